// The state of one role of one core: its queues, flags and modes; and that of its core.
#ifndef ASCEND_TWIN_CHECK_ROLE_H_
#define ASCEND_TWIN_CHECK_ROLE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "ascend_twin_check/operation.h"
#include "clock.h"
#include "fiber.h"
#include "shadow.h"

namespace ascend_twin {
namespace check {

constexpr uint32_t kPipes = PIPE_ALL;  // those before PIPE_ALL
constexpr uint32_t kEvents = static_cast<uint32_t>(HardEvent::FIX_M) + 1;
constexpr uint32_t kEventIds = 8;
constexpr uint32_t kMaxEventId = 5;  // the toolkit keeps 6 and 7
constexpr uint32_t kMaxCrossCount = 15;

pipe_t SourceOf(HardEvent event);
pipe_t TargetOf(HardEvent event);

// SetFlag and WaitFlag inside a role.
struct Flag {
    uint32_t sets = 0;        // not waited for; more than one is an error, but no hang here
    bool waited = false;      // ever
    uint32_t waitNumber = 0;  // of the last wait, in its pipe
    Site site;                // of the last set
    Site waitSite;
    Clock clock;
    double time = 0;  // of the model, when it was set last
};

// CrossCoreSetFlag to one role. Counted: a clock a set.
struct CrossFlag {
    uint32_t count = 0;
    std::deque<Clock> clocks;
    std::deque<double> times;
    Site site;
};

// What stands in a pipe's queue.
struct Entry {
    enum class Kind : uint8_t { kOperation, kSet, kWait, kBarrier, kCrossSet, kArrive };

    Kind kind;
    HardEvent event = HardEvent::MTE2_V;
    uint32_t id = 0;
    Site site;
    ClockRef acquired;
    double issued = 0;
    Operation operation;
    std::function<void()> body;
};

struct Waiting {
    enum class On : uint8_t { kNothing, kCrossFlag, kAll, kEvent, kDrain };

    On on = On::kNothing;
    HardEvent event = HardEvent::MTE2_V;
    uint32_t id = 0;  // of a flag; the round of SyncAll
    Site site;
};

// A static tensor: two that overlap must not both be in use.
struct Declaration {
    Space space;
    uint64_t begin;
    uint64_t end;
    Site site;
};

struct CoreState;

struct RoleState {
    uint32_t index = 0;  // among all roles of the launch
    Role role = Role::kAiv0;
    CoreState* core = nullptr;
    Fiber fiber;
    std::deque<Entry> queues[kPipes];
    uint32_t queued = 0;
    Flag flags[kEvents][kEventIds];
    CrossFlag crossFlags[kNumFlags];
    // AIC: what each AIV has set. AIV: crossFlags, what its AIC has.
    CrossFlag crossFlagsOfAiv[kAivPerCore][kNumFlags];
    Waiting waiting;
    uint32_t arrivals = 0;  // at SyncAll, as the queues come to them
    std::vector<Declaration> declarations;
    // Clocks: of each pipe, and what all calls issued from now on come after.
    Clock clocks[kPipes];
    uint32_t issued[kPipes] = {};
    ClockRef acquired;
    ClockRef joined[kPipes];
    // The pipe-time model, in cycles: when each pipe is free and how long it has worked, and when
    // the next call is issued.
    double freeAt[kPipes] = {};
    double busy[kPipes] = {};
    double issueAt = 0;
    uint16_t smallMmad = 0;  // site of a small Mmad that PIPE_M has not followed
    bool initialised = false;
    bool drained = true;  // PIPE_ALL came after the last call
    bool usesSyncAll = false;
    bool atomic = false;
    bool maskCount = false;
    Site modeSite;
    Site lastSite;

    bool IsAic() const { return role == Role::kAic; }
};

// Memories of one core and what is known of them.
struct CoreState {
    uint32_t block = 0;
    std::unique_ptr<CoreMemory> memory;
    std::unique_ptr<LocalShadow> ub[kAivPerCore];
    std::unique_ptr<LocalShadow> l1, l0a, l0b, l0c;
    RoleState* roles[1 + kAivPerCore] = {};  // null: the kernel has none

    LocalShadow& ShadowOf(Space space, Role role);
};

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_ROLE_H_
