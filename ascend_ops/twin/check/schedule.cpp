// Who moves next: in order, or as an adversary would have it.
#include <algorithm>
#include <vector>

#include "engine.h"

namespace ascend_twin {
namespace check {
namespace {

constexpr uint32_t kWindow = 3;        // calls that an adversary may swap where no barrier is
constexpr uint32_t kRedrawEvery = 24;  // steps, about, until a priority changes

}  // namespace

bool Engine::Pump(RoleState& role) {
    bool any = false;
    for (bool again = true; again;) {
        again = false;
        for (uint32_t pipe = 0; pipe < kPipes; ++pipe) {
            while (!role.queues[pipe].empty() && CanExecute(role, role.queues[pipe].front())) {
                Execute(role, static_cast<pipe_t>(pipe), 0);
                again = any = true;
            }
        }
    }
    return any;
}

bool Engine::RunInOrder() {
    for (bool moved = true; moved;) {
        moved = false;
        for (auto& role : roles_) {
            if (role->queued > 0) moved |= Pump(*role);
            if (role->fiber.Done() || !CanPass(*role)) continue;
            Resume(*role);
            moved = true;
        }
    }
    return std::all_of(roles_.begin(), roles_.end(),
                       [](const auto& role) { return role->fiber.Done() && role->queued == 0; });
}

size_t Engine::PickEntry(const RoleState& role, pipe_t pipe) {
    const std::deque<Entry>& queue = role.queues[pipe];
    if (pipe != PIPE_V) return 0;
    size_t window = 0;
    while (window < std::min<size_t>(kWindow, queue.size()) &&
           queue[window].kind == Entry::Kind::kOperation) {
        ++window;
    }
    return window > 1 ? random_() % window : 0;
}

bool Engine::RunAdversarial() {
    // One priority for each fiber, each pipe, and the flags on their way. Who has a low one stays
    // behind as long as anything else can move.
    constexpr uint32_t kPerRole = kPipes + 1;
    const uint32_t flight = static_cast<uint32_t>(roles_.size()) * kPerRole;
    std::vector<uint32_t> priority(flight + 1);
    for (uint32_t& value : priority) value = static_cast<uint32_t>(random_());
    while (true) {
        uint32_t best = flight + 1;
        const auto consider = [&](uint32_t index) {
            if (best > flight || priority[index] > priority[best]) best = index;
        };
        if (!inFlight_.empty()) consider(flight);
        for (const auto& role : roles_) {
            if (!role->fiber.Done() && CanPass(*role)) consider(role->index * kPerRole + kPipes);
            for (uint32_t pipe = 0; role->queued > 0 && pipe < kPipes; ++pipe) {
                const auto& queue = role->queues[pipe];
                if (!queue.empty() && CanExecute(*role, queue.front())) {
                    consider(role->index * kPerRole + pipe);
                }
            }
        }
        if (best > flight) break;
        if (random_() % kRedrawEvery == 0) priority[best] = static_cast<uint32_t>(random_());
        if (best == flight) {
            const size_t at = random_() % inFlight_.size();
            const InFlight set = inFlight_[at];
            inFlight_.erase(inFlight_.begin() + static_cast<std::ptrdiff_t>(at));
            Deliver(*set.from, set.id, set.site, {}, 0);
            continue;
        }
        RoleState& role = *roles_[best / kPerRole];
        const uint32_t pipe = best % kPerRole;
        if (pipe == kPipes) {
            Resume(role);
        } else {
            Execute(role, static_cast<pipe_t>(pipe), PickEntry(role, static_cast<pipe_t>(pipe)));
        }
    }
    return std::all_of(roles_.begin(), roles_.end(),
                       [](const auto& role) { return role->fiber.Done() && role->queued == 0; });
}

}  // namespace check
}  // namespace ascend_twin
