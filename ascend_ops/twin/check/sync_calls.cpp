// Flags, barriers, cross-core flags, SyncAll and modes as a kernel calls them: which exist for
// whom.
#include <string>

#include "ascend_twin_check/sync.h"
#include "engine.h"

namespace ascend_twin {
namespace check {
namespace {

constexpr uint32_t kFirstSyncAllId = 11, kLastSyncAllId = 14;

bool IsAivEvent(HardEvent event) { return event <= HardEvent::MTE3_S; }

// The flag exists for this role and has this id.
bool Legal(const char* call, HardEvent event, int64_t id, Site site) {
    Engine& engine = Engine::Current();
    engine.Touch(site);
    if (IsAivEvent(event) == engine.running().IsAic()) {
        engine.Complain("event_role", site, call, NameOf(event),
                        engine.running().IsAic() ? "an event between pipes of the AIC"
                                                 : "an event between pipes of an AIV",
                        "this core lacks one of the two pipes: it does not compile, or hangs");
        return false;
    }
    if (id < 0 || id > kMaxEventId) {
        engine.Complain("event_id", site, call, "event id " + std::to_string(id), "0 to 5",
                        "there are 8 ids for two pipes, and the toolkit keeps 6 and 7");
        if (id < 0 || id >= kEventIds) return false;
    }
    return true;
}

}  // namespace

void InitSocState(Site site) {
    Engine& engine = Engine::Current();
    engine.Touch(site);
    engine.running().initialised = true;
}

void SetFlag(HardEvent event, int64_t id, Site site) {
    if (!Legal("SetFlag", event, id, site)) return;
    Engine::Current().Set(event, static_cast<uint32_t>(id), site);
}

void WaitFlag(HardEvent event, int64_t id, Site site) {
    if (!Legal("WaitFlag", event, id, site)) return;
    Engine::Current().Wait(event, static_cast<uint32_t>(id), site);
}

void PipeBarrier(pipe_t pipe, Site site) {
    Engine& engine = Engine::Current();
    engine.Touch(site);
    const bool aic = engine.running().IsAic();
    const bool exists = pipe == PIPE_ALL || pipe == PIPE_MTE2 ||
                        (aic ? pipe == PIPE_M || pipe == PIPE_MTE1 || pipe == PIPE_FIX
                             : pipe == PIPE_V || pipe == PIPE_MTE3);
    if (!exists) {
        engine.Complain("role", site, "PipeBarrier", std::string("PIPE_") + NameOf(pipe),
                        aic ? "M, MTE1, MTE2, FIX or ALL" : "V, MTE2, MTE3 or ALL",
                        "this core has no such pipe");
        return;
    }
    engine.Barrier(pipe, site);
}

void CrossCoreSetFlag(uint32_t mode, pipe_t pipe, int64_t id, Site site) {
    Engine& engine = Engine::Current();
    engine.Touch(site);
    const bool aic = engine.running().IsAic();
    const auto complain = [&](const char* rule, const std::string& got, const char* wanted,
                              const char* advice) {
        engine.Complain(rule, site, "CrossCoreSetFlag", got, wanted, advice);
    };
    if (mode != 2) {
        complain("cross_mode", "mode " + std::to_string(mode), "mode 2, which the twin serves",
                 "meet all AIVs with SyncAll");
        return;
    }
    const bool exists =
        pipe == PIPE_MTE2 || (aic ? pipe == PIPE_M || pipe == PIPE_MTE1 || pipe == PIPE_FIX
                                  : pipe == PIPE_V || pipe == PIPE_MTE3);
    if (!exists) {
        complain("cross_pipe", std::string("PIPE_") + NameOf(pipe),
                 aic ? "M, MTE1, MTE2 or FIX" : "V, MTE2 or MTE3",
                 "name the pipe whose work the other role waits for");
        return;
    }
    if (id < 0 || id >= kNumFlags || (id >= kFirstSyncAllId && id <= kLastSyncAllId)) {
        complain("cross_id", "id " + std::to_string(id), "0 to 10, better 1 to 7",
                 "there are 16 ids, and SyncAll uses 11 to 14");
        if (id < 0 || id >= kNumFlags) return;
    }
    engine.CrossSet(pipe, static_cast<uint32_t>(id), site);
}

void CrossCoreWaitFlag(uint32_t /*mode: the hardware does not look at it*/, int64_t id, Site site) {
    Engine& engine = Engine::Current();
    engine.Touch(site);
    if (id < 0 || id >= kNumFlags) {
        engine.Complain("cross_id", site, "CrossCoreWaitFlag", "id " + std::to_string(id),
                        "0 to 15", "take 1 to 7");
        return;
    }
    engine.CrossWait(static_cast<uint32_t>(id), site);
}

void SyncAll(bool aivOnly, Site site) {
    Engine& engine = Engine::Current();
    engine.Touch(site);
    if (!aivOnly || engine.running().IsAic()) {
        engine.Complain("sync_all", site, "SyncAll", aivOnly ? "on an AIC" : "SyncAll<false>",
                        "SyncAll<true> on every AIV", "the twin serves SyncAll among the AIVs");
        return;
    }
    engine.MeetAll(site);
}

void SetAtomicAdd(bool on, Site site) {
    RoleState& role = Engine::Current().running();
    Engine::Current().Touch(site);
    role.atomic = on;
    role.modeSite = site;
}

void SetMaskCount(bool on, Site site) {
    RoleState& role = Engine::Current().running();
    Engine::Current().Touch(site);
    role.maskCount = on;
    role.modeSite = site;
}

void CleanCache(uint64_t address, uint64_t bytes, Site site) {
    Engine::Current().Touch(site);
    Engine::Current().Clean(address, bytes);
}

}  // namespace check
}  // namespace ascend_twin
