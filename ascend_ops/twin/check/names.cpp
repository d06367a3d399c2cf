// Names of memories, positions, pipes and events; and which memory and pipe belongs to which.
#include "role.h"

namespace ascend_twin {
namespace check {
namespace {

struct EventPipes {
    HardEvent event;
    const char* name;
    pipe_t source;
    pipe_t target;
};

constexpr EventPipes kEventPipes[kEvents] = {
    {HardEvent::MTE2_V, "MTE2_V", PIPE_MTE2, PIPE_V},
    {HardEvent::V_MTE2, "V_MTE2", PIPE_V, PIPE_MTE2},
    {HardEvent::MTE3_V, "MTE3_V", PIPE_MTE3, PIPE_V},
    {HardEvent::V_MTE3, "V_MTE3", PIPE_V, PIPE_MTE3},
    {HardEvent::V_V, "V_V", PIPE_V, PIPE_V},
    {HardEvent::MTE2_MTE3, "MTE2_MTE3", PIPE_MTE2, PIPE_MTE3},
    {HardEvent::MTE3_MTE2, "MTE3_MTE2", PIPE_MTE3, PIPE_MTE2},
    {HardEvent::S_V, "S_V", PIPE_S, PIPE_V},
    {HardEvent::V_S, "V_S", PIPE_V, PIPE_S},
    {HardEvent::S_MTE2, "S_MTE2", PIPE_S, PIPE_MTE2},
    {HardEvent::MTE2_S, "MTE2_S", PIPE_MTE2, PIPE_S},
    {HardEvent::S_MTE3, "S_MTE3", PIPE_S, PIPE_MTE3},
    {HardEvent::MTE3_S, "MTE3_S", PIPE_MTE3, PIPE_S},
    {HardEvent::MTE2_MTE1, "MTE2_MTE1", PIPE_MTE2, PIPE_MTE1},
    {HardEvent::MTE1_MTE2, "MTE1_MTE2", PIPE_MTE1, PIPE_MTE2},
    {HardEvent::MTE1_M, "MTE1_M", PIPE_MTE1, PIPE_M},
    {HardEvent::M_MTE1, "M_MTE1", PIPE_M, PIPE_MTE1},
    {HardEvent::M_FIX, "M_FIX", PIPE_M, PIPE_FIX},
    {HardEvent::FIX_M, "FIX_M", PIPE_FIX, PIPE_M},
};

const EventPipes& Find(HardEvent event) { return kEventPipes[static_cast<uint32_t>(event)]; }

}  // namespace

pipe_t SourceOf(HardEvent event) { return Find(event).source; }
pipe_t TargetOf(HardEvent event) { return Find(event).target; }
const char* NameOf(HardEvent event) { return Find(event).name; }

const char* NameOf(pipe_t pipe) {
    static constexpr const char* kNames[] = {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX", "ALL"};
    return kNames[pipe];
}

const char* NameOf(Space space) {
    static constexpr const char* kNames[] = {"gm", "ub", "l1", "l0a", "l0b", "l0c", "nothing"};
    return kNames[static_cast<uint32_t>(space)];
}

const char* NameOf(TPosition position) {
    static constexpr const char* kNames[] = {"GM", "A1",  "B1",    "C1",     "A2",     "B2",
                                             "C2", "CO1", "VECIN", "VECOUT", "VECCALC"};
    return kNames[static_cast<uint32_t>(position)];
}

Space SpaceOf(TPosition position) {
    switch (position) {
        case TPosition::A1:
        case TPosition::B1:
        case TPosition::C1:
            return Space::kL1;
        case TPosition::A2:
            return Space::kL0a;
        case TPosition::B2:
            return Space::kL0b;
        case TPosition::CO1:
            return Space::kL0c;
        case TPosition::VECIN:
        case TPosition::VECOUT:
        case TPosition::VECCALC:
            return Space::kUb;
        default:
            return Space::kNone;
    }
}

LocalShadow& CoreState::ShadowOf(Space space, Role role) {
    switch (space) {
        case Space::kUb:
            return *ub[role == Role::kAiv1];
        case Space::kL1:
            return *l1;
        case Space::kL0a:
            return *l0a;
        case Space::kL0b:
            return *l0b;
        default:
            return *l0c;
    }
}

}  // namespace check
}  // namespace ascend_twin
