// The end of a pass: where everything stands if it hangs, and what was left behind if it does not.
#include <algorithm>
#include <string>

#include "engine.h"

namespace ascend_twin {
namespace check {
namespace {

constexpr uint32_t kDescribedCores = 3;
constexpr const char* kRoleNames[] = {"AIC", "AIV0", "AIV1"};

std::string At(Site site) {
    const std::string path = site.file;
    return " (" + path.substr(path.rfind('/') + 1) + ":" + std::to_string(site.line) + ")";
}

std::string FlagName(HardEvent event, uint32_t id) {
    return std::string(NameOf(event)) + " " + std::to_string(id);
}

}  // namespace

std::string Engine::Position(const RoleState& role) const {
    std::string text = kRoleNames[static_cast<uint32_t>(role.role)];
    const Waiting& waiting = role.waiting;
    if (role.fiber.Done()) {
        text += " has returned";
    } else if (waiting.on == Waiting::On::kCrossFlag) {
        text += " waits for flag " + std::to_string(waiting.id) + At(waiting.site);
    } else if (waiting.on == Waiting::On::kAll) {
        text += " waits in SyncAll" + At(waiting.site);
    } else if (waiting.on == Waiting::On::kEvent) {
        text += " waits for " + FlagName(waiting.event, waiting.id) + At(waiting.site);
    } else if (waiting.on == Waiting::On::kDrain) {
        text += " waits in PipeBarrier<PIPE_ALL>" + At(waiting.site);
    }
    for (uint32_t pipe = 0; pipe < kPipes; ++pipe) {
        if (role.queues[pipe].empty()) continue;
        const Entry& head = role.queues[pipe].front();
        text += std::string(", its pipe ") + NameOf(static_cast<pipe_t>(pipe)) + " waits for " +
                FlagName(head.event, head.id) + At(head.site);
    }
    return text;
}

void Engine::ReportHang() {
    uint32_t described = 0;
    const RoleState* first = nullptr;
    hang_ = std::string("twin: ") + config_.kernelName + " hangs";
    for (const auto& core : cores_) {
        bool stands = false;
        for (const RoleState* role : core->roles) {
            if (role == nullptr || (role->fiber.Done() && role->queued == 0)) continue;
            stands = true;
            if (first == nullptr) first = role;
        }
        if (!stands || ++described > kDescribedCores) continue;
        hang_ += described == 1 ? " on core " : "; core ";
        hang_ += std::to_string(core->block) + ":";
        bool comma = false;
        for (const RoleState* role : core->roles) {
            if (role == nullptr) continue;
            hang_ += (comma ? ", " : " ") + Position(*role);
            comma = true;
        }
    }
    if (described > kDescribedCores) {
        hang_ += "; and " + std::to_string(described - kDescribedCores) + " cores more";
    }
    if (arrived_ > 0) {
        const uint32_t aivs = config_.kernelType == KernelType::kAivOnly ? 1 : kAivPerCore;
        hang_ += "; " + std::to_string(arrived_) + " of " +
                 std::to_string(aivs * config_.numBlocks) + " AIVs have come to SyncAll";
    }
    if (first == nullptr) return;
    const std::string order = pass_.order == Order::kAdversarial
                                  ? "in adversarial schedule " + std::to_string(pass_.seed) + ", "
                                  : "";
    Add("hang", Severity::kError, *first, first->lastSite, "", nullptr, order + hang_,
        "that every wait has its set",
        "look at the roles above for the set that is missing, skipped, or behind another wait");
}

void Engine::CheckFlagsLeft(const RoleState& role) {
    const auto left = [&](const char* rule, const std::string& name, Site site) {
        Add(rule, Severity::kError, role, site, "", nullptr, name + " is still set at the end",
            "a wait for every set", "drain the flags: they leak into the next kernel");
    };
    for (uint32_t event = 0; event < kEvents; ++event) {
        for (uint32_t id = 0; id < kEventIds; ++id) {
            const Flag& flag = role.flags[event][id];
            if (flag.sets > 0)
                left("flag_left_set", FlagName(static_cast<HardEvent>(event), id), flag.site);
        }
    }
    for (uint32_t id = 0; id < kNumFlags; ++id) {
        const std::string name = "cross-core flag " + std::to_string(id);
        if (role.crossFlags[id].count > 0) {
            left("cross_flag_left_set", name, role.crossFlags[id].site);
        }
        for (const auto& flags : role.crossFlagsOfAiv) {
            if (flags[id].count > 0) left("cross_flag_left_set", name, flags[id].site);
        }
    }
}

void Engine::CountTime() {
    uint32_t aics = 0, aivs = 0;
    for (const auto& role : roles_) ++(role->IsAic() ? aics : aivs);
    for (const auto& role : roles_) {
        counters_.cycles = std::max(counters_.cycles, role->issueAt);
        for (uint32_t pipe = 0; pipe < kPipes; ++pipe) {
            counters_.cycles = std::max(counters_.cycles, role->freeAt[pipe]);
            if (role->busy[pipe] == 0) continue;
            const std::string kind = role->IsAic() ? "AIC " : "AIV ";
            counters_.busy[kind + NameOf(static_cast<pipe_t>(pipe))] +=
                role->busy[pipe] / (role->IsAic() ? aics : aivs);
        }
    }
}

void Engine::Finish() {
    CountTime();
    if (!hang_.empty()) return;  // what is left then is a consequence
    for (const auto& role : roles_) {
        CheckFlagsLeft(*role);
        if (role->atomic || role->maskCount) {
            Add("mode_left_on", Severity::kError, *role, role->modeSite, "", nullptr,
                role->atomic ? "SetAtomicAdd is still on at the end"
                             : "SetMaskCount is still on at the end",
                role->atomic ? "SetAtomicNone" : "SetMaskNorm",
                "the next kernel on this core inherits the mode");
        }
        if (!role->drained) {
            Add("final_barrier", Severity::kError, *role, role->lastSite, "", nullptr,
                "calls after the last PipeBarrier<PIPE_ALL>", "PipeBarrier<PIPE_ALL> last",
                "static tensors need it: the kernel must not end before its pipes do");
        }
    }
    bool reported = false;
    gmShadow_.ForEach([&](uint32_t tensor, uint64_t at, const Cell& cell) {
        if (cell.scalar == 0 || cell.count == 0 || reported) return;
        reported = true;
        const Record& last = cell.records[cell.count - 1];
        Access place;
        place.space = Space::kGm;
        place.begin = at * kCellBytes;
        if (tensor < gm_.Size()) place.begin += reinterpret_cast<uint64_t>(gm_[tensor].data);
        place.run = kCellBytes;
        Add("scalar_gm_write", Severity::kError, *roles_[last.agent / kPipes],
            sites_[last.site].site, sites_[last.site].name, &place,
            "bytes still in the scalar unit's cache at the end", "them in GM",
            "call DataCacheCleanAndInvalid after SetValue");
    });
}

}  // namespace check
}  // namespace ascend_twin
