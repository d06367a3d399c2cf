// One logical core of the twin: memories, the fibers of its three roles, what they wait for; and
// what the cores of a launch share.
#ifndef ASCEND_TWIN_FAST_LOGICAL_CORE_H_
#define ASCEND_TWIN_FAST_LOGICAL_CORE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "ascend_twin/core.h"
#include "fiber.h"
#include "launch.h"

namespace ascend_twin {

constexpr uint32_t kRoles = 3;  // AIC and two AIVs
constexpr uint32_t kNotWaiting = kNumFlags;
constexpr uint32_t kWaitsForAll = kNumFlags + 1;  // in SyncAll
constexpr uint32_t kNoRound = ~0u;

// One launch.
struct Job {
    Job(const LaunchConfig* launched, void (*entry)(const void*), const void* with)
        : config(launched), kernel(entry), arguments(with), taken(launched->numBlocks) {}

    const LaunchConfig* config;
    void (*kernel)(const void*);
    const void* arguments;
    std::vector<std::atomic<bool>> taken;  // which blocks some thread has begun
    // SyncAll. A round ends when the AIVs of all blocks have come.
    std::atomic<uint32_t> round{0};
    std::atomic<bool> hung{false};
    std::mutex mutex;      // of what follows, and of writes to the two above
    uint32_t arrived = 0;  // AIVs that have come in this round
    uint32_t resting = 0;  // blocks that can do nothing more in it
    std::string failure;

    void Fail(std::string message) {
        std::lock_guard<std::mutex> lock(mutex);
        if (failure.empty()) failure = std::move(message);
    }

    // Of a block that can do nothing more in this round, or at all. When all are such, those in
    // SyncAll will never leave it.
    void CountResting() {
        if (++resting == config->numBlocks && arrived > 0) hung.store(true);
    }

    void Rest() {
        std::lock_guard<std::mutex> lock(mutex);
        CountResting();
    }
};

// One core of one thread: memories, fibers and the counters behind CrossCoreSetFlag in mode 2.
struct LogicalCore {
    CoreMemory memory;
    Fiber fibers[kRoles];
    uint32_t toAiv[kAivPerCore][kNumFlags];
    uint32_t toAic[kAivPerCore][kNumFlags];
    uint32_t waitsFor[kRoles];
    uint32_t round[kRoles];  // of SyncAll, where that is what it waits for
    uint32_t restsIn;        // the last round in which no role could go on
    uint32_t block;
    bool closed;
    Job* job;

    bool CanPass(uint32_t role, uint32_t flag) const {
        if (flag == kNotWaiting) return true;
        if (flag == kWaitsForAll) return job->round.load(std::memory_order_acquire) != round[role];
        if (role == 0) return toAic[0][flag] > 0 && toAic[1][flag] > 0;
        return toAiv[role - 1][flag] > 0;
    }

    bool WaitsForAll(uint32_t role) const {
        return !fibers[role].Done() && waitsFor[role] == kWaitsForAll;
    }

    bool AnyWaitsForAll() const { return WaitsForAll(1) || WaitsForAll(2); }

    // Whether a round has ended in which one of its AIVs waits.
    bool RoundEnded() const {
        return (WaitsForAll(1) && CanPass(1, kWaitsForAll)) ||
               (WaitsForAll(2) && CanPass(2, kWaitsForAll));
    }
};

// The calling thread's core number `index`, at most one past those it has; null where its memories
// cannot be had.
LogicalCore* CoreOfThread(size_t index);

// The same of a core that it has.
LogicalCore& Core(size_t index);

// What the calling thread runs next is this core's: kernel calls find it through CurrentContext.
void MakeCurrent(LogicalCore& core);

// Where each role of a core that cannot go on stands.
std::string DescribeHang(const LogicalCore& core, Job& job);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_LOGICAL_CORE_H_
