// SetFlag, WaitFlag and PipeBarrier inside of a role: what they order, and sets too many.
#include <algorithm>
#include <string>
#include <utility>

#include "engine.h"

namespace ascend_twin {
namespace check {
namespace {

std::string FlagName(HardEvent event, uint32_t id) {
    return std::string(NameOf(event)) + " " + std::to_string(id);
}

std::string At(Site site) {
    const std::string path = site.file;
    return path.substr(path.rfind('/') + 1) + ":" + std::to_string(site.line);
}

}  // namespace

Clock Engine::Publish(RoleState& role, pipe_t pipe, const ClockRef& acquired) {
    if (!Checks()) return {};
    if (acquired != role.joined[pipe]) {
        Join(&role.clocks[pipe], *acquired);
        role.joined[pipe] = acquired;
    }
    Clock clock = role.clocks[pipe];
    clock[role.index * kPipes + pipe] = role.issued[pipe];
    return clock;
}

void Engine::Acquire(RoleState& role, const Clock& clock) {
    if (!Checks()) return;
    auto joined = std::make_shared<Clock>(*role.acquired);
    Join(joined.get(), clock);
    role.acquired = joined;
}

void Engine::RaiseFlag(RoleState& role, HardEvent event, uint32_t id, Site site,
                       const ClockRef& acquired, double issued) {
    Flag& flag = role.flags[static_cast<uint32_t>(event)][id];
    const pipe_t source = SourceOf(event), target = TargetOf(event);
    Clock clock = Publish(role, source, acquired);
    if (Checks()) {
        const uint32_t waiter = role.index * kPipes + target;
        if (flag.sets > 0) {
            Add("flag_set_twice", Severity::kError, role, site, "SetFlag", nullptr,
                FlagName(event, id) + ", which was set at " + At(flag.site) +
                    " and not yet waited for",
                "a WaitFlag between two sets", "wait for it, or take another event id");
        } else if (flag.waited && source != target && clock[waiter] < flag.waitNumber) {
            Add("flag_set_twice", Severity::kError, role, site, "SetFlag", nullptr,
                FlagName(event, id) + ", whose WaitFlag at " + At(flag.waitSite) +
                    " may not have passed yet",
                std::string("PIPE_") + NameOf(source) + " behind that wait",
                "let a flag come back the other way before it is set again");
        }
    }
    ++flag.sets;
    flag.site = site;
    flag.clock = std::move(clock);
    flag.time = std::max(role.freeAt[source], issued);
}

void Engine::TakeFlag(RoleState& role, HardEvent event, uint32_t id, Site site) {
    Flag& flag = role.flags[static_cast<uint32_t>(event)][id];
    const pipe_t target = TargetOf(event);
    --flag.sets;
    double& goesOn = target == PIPE_S ? role.issueAt : role.freeAt[target];
    goesOn = std::max(goesOn, flag.time);
    if (!Checks()) return;
    flag.waited = true;
    flag.waitNumber = ++role.issued[target];
    flag.waitSite = site;
    Join(&role.clocks[target], flag.clock);
    if (target == PIPE_S) Acquire(role, flag.clock);
}

void Engine::Set(HardEvent event, uint32_t id, Site site) {
    const pipe_t pipe = SourceOf(event);
    if (pipe == PIPE_S || StartsNow(pipe)) {
        RaiseFlag(*running_, event, id, site, running_->acquired, running_->issueAt);
        if (pass_.order != Order::kAdversarial && running_->queued > 0) Pump(*running_);
        return;
    }
    Entry entry = {};
    entry.kind = Entry::Kind::kSet;
    entry.event = event;
    entry.id = id;
    entry.site = site;
    Push(pipe, std::move(entry));
}

void Engine::Wait(HardEvent event, uint32_t id, Site site) {
    const pipe_t pipe = TargetOf(event);
    const Flag& flag = running_->flags[static_cast<uint32_t>(event)][id];
    if (pipe == PIPE_S) {
        if (flag.sets == 0) BlockRunning({Waiting::On::kEvent, event, id, site});
        TakeFlag(*running_, event, id, site);
        return;
    }
    if (StartsNow(pipe) && flag.sets > 0) {
        TakeFlag(*running_, event, id, site);
        return;
    }
    Entry entry = {};
    entry.kind = Entry::Kind::kWait;
    entry.event = event;
    entry.id = id;
    entry.site = site;
    Push(pipe, std::move(entry));
}

void Engine::Barrier(pipe_t pipe, Site site) {
    RoleState& role = *running_;
    if (pipe != PIPE_ALL) {
        if (StartsNow(pipe)) {
            if (Checks()) role.clocks[pipe][role.index * kPipes + pipe] = role.issued[pipe];
            if (pipe == PIPE_M) role.smallMmad = 0;
            return;
        }
        Entry entry = {};
        entry.kind = Entry::Kind::kBarrier;
        entry.site = site;
        Push(pipe, std::move(entry));
        return;
    }
    if (role.queued > 0) BlockRunning({Waiting::On::kDrain, HardEvent::MTE2_V, 0, site});
    role.drained = true;
    role.smallMmad = 0;
    for (const double freeAt : role.freeAt) role.issueAt = std::max(role.issueAt, freeAt);
    if (!Checks()) return;
    Clock all = *role.acquired;
    for (uint32_t p = 0; p < kPipes; ++p) {
        Join(&all, Publish(role, static_cast<pipe_t>(p), role.acquired));
    }
    Acquire(role, all);
}

}  // namespace check
}  // namespace ascend_twin
