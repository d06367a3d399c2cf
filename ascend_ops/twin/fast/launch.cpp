// Schedules the three roles of each logical core as fibers of one thread, and lets cores meet.
#include "launch.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "ascend_twin/l1_views.h"
#include "fiber.h"
#include "thread_pool.h"

namespace ascend_twin {
namespace {

constexpr uint32_t kRoles = 3;
constexpr uint32_t kNotWaiting = kNumFlags;
constexpr uint32_t kWaitsForAll = kNumFlags + 1;  // in SyncAll
constexpr uint32_t kSpins = 4096;                 // before a waiting thread looks for other work
constexpr uint32_t kNoRound = ~0u;
constexpr const char* kRoleNames[kRoles] = {"AIC", "AIV0", "AIV1"};

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

thread_local Context tContext;
// A thread runs one block after the other, but several at once where they wait in SyncAll: hardware
// has a core for each block, and here a worker may be asleep or have a share of several blocks.
thread_local std::vector<std::unique_ptr<LogicalCore>> tCores;
thread_local LogicalCore* tRunning = nullptr;

// The thread's core number `index`; null where its memories cannot be had.
LogicalCore* CoreOfThread(size_t index) {
    try {
        if (index == tCores.size()) tCores.push_back(std::make_unique<LogicalCore>());
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
    return tCores[index].get();
}

void RunRole(void* argument) {
    const Job* job = static_cast<const Job*>(argument);
    job->kernel(job->arguments);
}

std::string DescribeHang(const LogicalCore& core, Job& job) {
    std::string text = std::string("twin: ") + job.config->kernelName + " hangs on core " +
                       std::to_string(core.block) + ":";
    for (uint32_t role = 0; role < kRoles; ++role) {
        text += std::string(role == 0 ? " " : ", ") + kRoleNames[role];
        if (core.fibers[role].Done()) {
            text += " has returned";
        } else if (core.WaitsForAll(role)) {
            text += " waits in SyncAll";
        } else {
            text += " waits for flag " + std::to_string(core.waitsFor[role]);
        }
    }
    if (core.AnyWaitsForAll()) {
        std::lock_guard<std::mutex> lock(job.mutex);
        text += "; " + std::to_string(job.arrived) + " of " +
                std::to_string(kAivPerCore * job.config->numBlocks) + " AIVs have come to it";
    }
    return text;
}

// Makes a block the thread's core number `index`; false where another thread has begun it, or it
// cannot be.
bool Begin(Job& job, uint32_t block, size_t index) {
    if (job.taken[block].exchange(true)) return false;
    LogicalCore* core = CoreOfThread(index);
    if (core == nullptr) {
        job.Fail("twin: no memory for a logical core; lower GLM2_NUM_THREADS");
        job.Rest();
        return false;
    }
    for (uint32_t role = 0; role < kRoles; ++role) {
        core->fibers[role].Reset(&RunRole, &job);
        core->waitsFor[role] = kNotWaiting;
        core->memory.toUb[role] = PendingCopy();
    }
    ForgetL1Views(&core->memory);
    std::memset(core->toAiv, 0, sizeof(core->toAiv));
    std::memset(core->toAic, 0, sizeof(core->toAic));
    core->restsIn = kNoRound;
    core->block = block;
    core->closed = false;
    core->job = &job;
    return true;
}

// Begins one block that no thread has begun, if there is one.
bool BeginAnother(Job& job, size_t index) {
    for (uint32_t block = 0; block < job.config->numBlocks; ++block) {
        if (!job.taken[block].load(std::memory_order_relaxed) && Begin(job, block, index)) {
            return true;
        }
    }
    return false;
}

void MakeCurrent(LogicalCore& core) {
    tRunning = &core;
    tContext.memory = &core.memory;
    tContext.block = core.block;
}

// A turn for each role that can go on; false if none can.
bool TakeTurns(LogicalCore& core) {
    MakeCurrent(core);
    bool moved = false;
    for (uint32_t role = 0; role < kRoles; ++role) {
        if (core.fibers[role].Done() || !core.CanPass(role, core.waitsFor[role])) continue;
        core.waitsFor[role] = kNotWaiting;
        moved = true;
        tContext.role = static_cast<Role>(role);
        core.fibers[role].Resume();
    }
    return moved;
}

// The end of a block none of whose roles can go on: have they not all returned, that is a hang.
void Close(LogicalCore& core, Job& job) {
    bool returned = true;
    for (const Fiber& fiber : core.fibers) returned = returned && fiber.Done();
    if (!returned) job.Fail(DescribeHang(core, job));
    core.closed = true;
    job.Rest();
}

// Until one of the thread's first `count` cores can go on, which all wait in SyncAll, or it has
// begun another block. False: that will never be.
bool AwaitRound(Job& job, size_t* count) {
    const auto canGoOn = [count] {
        bool any = false;
        for (size_t i = 0; i < *count; ++i) {
            any = any || (!tCores[i]->closed && tCores[i]->RoundEnded());
        }
        return any;
    };
    {
        std::lock_guard<std::mutex> lock(job.mutex);
        const uint32_t round = job.round.load(std::memory_order_relaxed);
        if (canGoOn()) return true;
        for (size_t i = 0; i < *count; ++i) {
            LogicalCore& core = *tCores[i];
            if (core.closed || core.restsIn == round) continue;
            core.restsIn = round;
            job.CountResting();
        }
    }
    for (uint32_t spins = 1; !canGoOn(); ++spins) {
        if (job.hung.load(std::memory_order_acquire)) return false;
        if (spins % kSpins != 0) continue;
        std::this_thread::yield();
        if (BeginAnother(job, *count)) {
            ++*count;
            return true;
        }
    }
    return true;
}

void RunMixBlock(Job& job, uint32_t first) {
    if (!Begin(job, first, 0)) return;
    size_t count = 1;  // cores of this thread that have a block
    for (bool open = true; open;) {
        open = false;
        bool moved = false;
        for (size_t i = 0; i < count; ++i) {
            LogicalCore& core = *tCores[i];
            if (core.closed) continue;
            if (TakeTurns(core)) {
                moved = true;
            } else if (!core.AnyWaitsForAll()) {
                Close(core, job);
                continue;
            }
            open = true;
        }
        if (!open || moved || AwaitRound(job, &count)) continue;
        for (size_t i = 0; i < count; ++i) {
            if (!tCores[i]->closed) Close(*tCores[i], job);
        }
        open = false;
    }
}

void RunVectorBlock(Job& job, uint32_t block) {
    if (!Begin(job, block, 0)) return;
    MakeCurrent(*tCores[0]);
    tContext.role = Role::kAiv0;
    job.kernel(job.arguments);
}

void RunBlock(void* argument, uint32_t block) {
    Job& job = *static_cast<Job*>(argument);
    const Context outer = tContext;
    tContext.numBlocks = job.config->numBlocks;
    tContext.kernelType = job.config->kernelType;
    tContext.tilingKey = job.config->tilingKey;
    tContext.inputs = job.config->inputs;
    if (job.config->kernelType == KernelType::kAivOnly) {
        RunVectorBlock(job, block);
    } else {
        RunMixBlock(job, block);
    }
    tContext = outer;
}

}  // namespace

Context& CurrentContext() { return tContext; }

void CrossCoreSet(uint32_t flag) {
    LogicalCore& core = *tRunning;
    if (tContext.role == Role::kAic) {
        for (auto& flags : core.toAiv) ++flags[flag];
    } else {
        ++core.toAic[tContext.role == Role::kAiv1][flag];
    }
}

void CrossCoreWait(uint32_t flag) {
    LogicalCore& core = *tRunning;
    const uint32_t role = static_cast<uint32_t>(tContext.role);
    while (!core.CanPass(role, flag)) {
        core.waitsFor[role] = flag;
        core.fibers[role].Yield();
    }
    if (role == 0) {
        for (auto& flags : core.toAic) --flags[flag];
    } else {
        --core.toAiv[role - 1][flag];
    }
}

void SyncAllAivs() {
    LogicalCore& core = *tRunning;
    Job& job = *core.job;
    const uint32_t role = static_cast<uint32_t>(tContext.role);
    if (tContext.kernelType == KernelType::kAivOnly || tContext.role == Role::kAic) {
        job.Fail(std::string("twin: ") + job.config->kernelName +
                 " calls SyncAll, which is served in AIVs of MIX kernels");
        return;
    }
    {
        std::lock_guard<std::mutex> lock(job.mutex);
        core.round[role] = job.round.load(std::memory_order_relaxed);
        if (++job.arrived == kAivPerCore * job.config->numBlocks) {
            job.arrived = 0;
            job.resting = 0;
            job.round.fetch_add(1, std::memory_order_release);
            return;
        }
    }
    while (!core.CanPass(role, kWaitsForAll)) {
        core.waitsFor[role] = kWaitsForAll;
        core.fibers[role].Yield();
    }
}

std::string Launch(const LaunchConfig& config, void (*kernel)(const void*), const void* arguments) {
    Job job(&config, kernel, arguments);
    ParallelFor(config.numBlocks, &RunBlock, &job);
    return job.failure;
}

}  // namespace ascend_twin
