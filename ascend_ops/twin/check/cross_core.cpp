// CrossCoreSetFlag, CrossCoreWaitFlag and SyncAll: what they order between roles and cores.
#include <algorithm>
#include <string>
#include <utility>

#include "engine.h"

namespace ascend_twin {
namespace check {

void Engine::CrossSet(pipe_t pipe, uint32_t id, Site site) {
    if (config_.kernelType == KernelType::kAivOnly) {
        Complain("cross_kernel_type", site, "CrossCoreSetFlag", "in a kernel of AIVs alone",
                 "a MIX kernel of one AIC and two AIVs", "there is nobody to wait for it");
        return;
    }
    if (StartsNow(pipe)) {
        Deliver(*running_, id, site, Publish(*running_, pipe, running_->acquired),
                std::max(running_->freeAt[pipe], running_->issueAt));
        return;
    }
    Entry entry = {};
    entry.kind = Entry::Kind::kCrossSet;
    entry.id = id;
    entry.site = site;
    Push(pipe, std::move(entry));
}

void Engine::Deliver(RoleState& role, uint32_t id, Site site, const Clock& clock, double time) {
    const auto raise = [&](CrossFlag& flag) {
        if (++flag.count > kMaxCrossCount && Checks()) {
            Add("cross_overflow", Severity::kError, role, site, "CrossCoreSetFlag", nullptr,
                "flag " + std::to_string(id) + " set " + std::to_string(flag.count) +
                    " times more than it was waited for",
                "15 at most", "let the other role answer with a flag of its own before that");
        }
        flag.site = site;
        if (!Checks()) return;
        flag.clocks.push_back(clock);
        flag.times.push_back(time);
    };
    if (role.IsAic()) {
        for (uint32_t i = 1; i <= kAivPerCore; ++i) raise(role.core->roles[i]->crossFlags[id]);
    } else {
        raise(role.core->roles[0]->crossFlagsOfAiv[role.role == Role::kAiv1][id]);
    }
}

void Engine::CrossWait(uint32_t id, Site site) {
    RoleState& role = *running_;
    if (config_.kernelType == KernelType::kAivOnly) {
        Complain("cross_kernel_type", site, "CrossCoreWaitFlag", "in a kernel of AIVs alone",
                 "a MIX kernel of one AIC and two AIVs", "nobody will ever set it");
    }
    const Waiting waiting = {Waiting::On::kCrossFlag, HardEvent::MTE2_V, id, site};
    role.waiting = waiting;
    if (!CanPass(role)) BlockRunning(waiting);
    role.waiting = {};
    const auto take = [&](CrossFlag& flag) {
        --flag.count;
        if (!Checks()) return;
        Acquire(role, flag.clocks.front());
        flag.clocks.pop_front();
        role.issueAt = std::max(role.issueAt, flag.times.front());
        flag.times.pop_front();
    };
    if (role.IsAic()) {
        for (auto& flags : role.crossFlagsOfAiv) take(flags[id]);
    } else {
        take(role.crossFlags[id]);
    }
}

void Engine::Arrive(RoleState& role, const Clock& clock, double time) {
    meetingTime_ = std::max(meetingTime_, time);
    if (Checks()) Join(&meeting_, clock);
    ++role.arrivals;
    ++arrived_;
    const uint32_t aivs = config_.kernelType == KernelType::kAivOnly ? 1 : kAivPerCore;
    if (arrived_ < aivs * config_.numBlocks) return;
    arrived_ = 0;
    ++round_;
}

void Engine::MeetAll(Site site) {
    RoleState& role = *running_;
    if (!role.usesSyncAll &&
        config_.numBlocks >
            physicalCores_ * (config_.kernelType == KernelType::kAivOnly ? kAivPerCore : 1)) {
        Complain("too_many_blocks", site, "SyncAll",
                 std::to_string(config_.numBlocks) + " blocks on " +
                     std::to_string(physicalCores_) + " AI cores",
                 "no more blocks than cores",
                 "the blocks that have no core never come to SyncAll: lower numBlocks");
    }
    role.usesSyncAll = true;
    const uint32_t round = round_;
    if (StartsNow(PIPE_MTE3)) {
        Arrive(role, Publish(role, PIPE_MTE3, role.acquired),
               std::max(role.freeAt[PIPE_MTE3], role.issueAt));
    } else {
        Entry entry = {};
        entry.kind = Entry::Kind::kArrive;
        entry.site = site;
        Push(PIPE_MTE3, std::move(entry));
    }
    if (round_ == round) BlockRunning({Waiting::On::kAll, HardEvent::MTE2_V, round, site});
    role.issueAt = std::max(role.issueAt, meetingTime_);
    if (Checks()) Acquire(role, meeting_);
}

}  // namespace check
}  // namespace ascend_twin
