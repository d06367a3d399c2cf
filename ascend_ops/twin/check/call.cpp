// A call's description, and what can be said of it before it runs: role, bounds, alignment, widths.
#include <cstring>
#include <string>
#include <vector>

#include "ascend_twin_check/copy.h"
#include "ascend_twin_check/vector.h"
#include "engine.h"
#include "memories.h"

namespace ascend_twin {
namespace check {
namespace {

bool SameShape(const Access& a, const Access& b) {
    return a.begin == b.begin && a.run == b.run &&
           std::memcmp(a.count, b.count, sizeof(a.count)) == 0 &&
           std::memcmp(a.stride, b.stride, sizeof(a.stride)) == 0;
}

// Whether a run of one meets a run of the other.
bool Meet(const Access& a, const Access& b) {
    if (a.Last() <= b.begin || b.Last() <= a.begin) return false;
    bool meet = false;
    a.ForEachRun([&](uint64_t begin, uint64_t bytes) {
        b.ForEachRun([&](uint64_t other, uint64_t otherBytes) {
            meet = meet || (begin < other + otherBytes && other < begin + bytes);
        });
    });
    return meet;
}

}  // namespace

Call::Call(const char* name, pipe_t pipe, RoleKind role, Site site) {
    operation_.name = name;
    operation_.pipe = pipe;
    operation_.role = role;
    operation_.site = site;
    Engine& engine = Engine::Current();
    engine.Touch(site);
    const bool aic = engine.running().IsAic();
    if ((role == RoleKind::kAic && !aic) || (role == RoleKind::kAiv && aic)) {
        Fail("role", std::string(name) + " on the " + (aic ? "AIC" : "AIV"),
             role == RoleKind::kAic ? "a call of the AIC" : "a call of an AIV",
             "put it under ASCEND_IS_AIC or ASCEND_IS_AIV: the other core has no such instruction");
        Forbid();
    }
}

Access& Call::Add(const Access& access, bool write) {
    Access& added = operation_.accesses[operation_.numAccesses++];
    added = access;
    added.write = write;
    added.atomic = write && access.space == Space::kGm && Engine::Current().running().atomic &&
                   operation_.pipe != PIPE_S;
    return added;
}

void Call::Fail(const char* rule, const std::string& got, const std::string& wanted,
                const std::string& advice, Severity severity) {
    Engine& engine = Engine::Current();
    if (!engine.Checks()) return;
    engine.Add(rule, severity, engine.running(), operation_.site, operation_.name, nullptr, got,
               wanted, advice);
}

void Call::OutOfRange(const char* operand, const char* parameter, int64_t value, int64_t least,
                      int64_t most) {
    Fail("parameter", std::string(operand) + parameter + " = " + std::to_string(value),
         std::to_string(least) + " to " + std::to_string(most),
         "the instruction has no bits for more: split the call, or correct the value");
    Forbid();
}

void Call::Align(const char* operand, const Access& access, uint64_t unit) {
    if (access.begin % unit == 0) return;
    Engine& engine = Engine::Current();
    if (!engine.Checks()) return;
    engine.Add("alignment", Severity::kError, engine.running(), operation_.site, operation_.name,
               &access, std::string(operand) + " begins at byte " + std::to_string(access.begin),
               "a multiple of " + Bytes(unit), "round the offset up, or pad the tile's rows");
}

void Call::Multiple(const char* what, uint64_t bytes, uint64_t unit) {
    if (bytes % unit == 0) return;
    Fail("alignment", std::string(what) + " is " + std::to_string(bytes),
         "a multiple of " + std::to_string(unit),
         "pad it, or use DataCopyPad, which takes any number of bytes");
}

void Call::InSpace(const char* operand, TPosition position, Space wanted) {
    if (SpaceOf(position) == wanted) return;
    Fail("position", std::string(operand) + " is in " + NameOf(position),
         std::string("a tensor in ") + NameOf(wanted),
         "the hardware has no path between these memories");
    Forbid();
}

void Call::NoPartialOverlap() {
    for (uint32_t i = 0; i < operation_.numAccesses; ++i) {
        const Access& written = operation_.accesses[i];
        for (uint32_t j = 0; written.write && j < operation_.numAccesses; ++j) {
            const Access& read = operation_.accesses[j];
            if (read.write || read.space != written.space || SameShape(read, written)) continue;
            if (!Meet(read, written)) continue;
            Fail("operand_overlap", "dst overlaps a source in part",
                 "operands that are identical or disjoint", "give dst a place of its own");
            return;
        }
    }
}

bool Call::CheckRange(const Access& access) {
    Engine& engine = Engine::Current();
    if (access.Empty()) return true;
    const uint64_t last = access.Last();
    const auto fail = [&](const char* rule, const std::string& got, const std::string& wanted,
                          const char* advice) {
        if (engine.Checks()) {
            engine.Add(rule, Severity::kError, engine.running(), operation_.site, operation_.name,
                       &access, got, wanted, advice);
        }
        return false;
    };
    const std::string verb = access.write ? "writes" : "reads";
    if (access.space != Space::kGm) {
        const uint64_t room = HardwareBytes(access.space);
        if (last > room) {
            fail("capacity", verb + " up to byte " + std::to_string(last),
                 Bytes(room) + " of " + NameOf(access.space), "lower the tile sizes");
            return last <= ArrayBytes(access.space);
        }
        if (last > access.end) {
            // Harmless to the twin, so that it is executed.
            fail("tensor_bounds", verb + " up to byte " + std::to_string(last),
                 "the tensor's end, byte " + std::to_string(access.end),
                 "declare the tensor large enough, or correct offset, count or strides");
        }
        return true;
    }
    if (access.end != 0 && last > access.end) {
        return fail("gm_bounds", verb + " " + Bytes(last - access.end) + " behind the end",
                    "the buffer of SetGlobalBuffer", "correct offset, count or strides");
    }
    if (engine.gm().Empty()) return access.begin != 0;
    const uint32_t tensor = engine.gm().Find(access.begin);
    const auto inside = [&](uint64_t begin, uint64_t end) {
        const uint32_t found = engine.gm().Find(begin);
        if (found == GmTable::kNone) return false;
        const GmTensor& gm = engine.gm()[found];
        return end <= reinterpret_cast<uint64_t>(gm.data) + gm.bytes;
    };
    bool good = tensor != GmTable::kNone && inside(access.begin, last);
    if (!good) {
        good = true;
        access.ForEachRun(
            [&](uint64_t begin, uint64_t bytes) { good = good && inside(begin, begin + bytes); });
    }
    if (!good) {
        const GmTensor& near = engine.gm()[engine.gm().Before(access.begin)];
        return fail("gm_bounds", verb + " outside of every tensor of the launch",
                    std::string("bytes of a tensor; the nearest is ") + near.name + " of " +
                        Bytes(near.bytes),
                    "correct offset, count or strides");
    }
    if (access.write && tensor != GmTable::kNone && engine.gm()[tensor].use == GmUse::kIn) {
        return fail("input_written", "writes to an input", "outputs and workspace alone",
                    "correct the tensor, or name it as an output of the launch");
    }
    return true;
}

bool Call::Admit() {
    for (uint32_t i = 0; i < operation_.numAccesses; ++i) {
        if (!CheckRange(operation_.accesses[i])) Forbid();
    }
    return !forbidden_;
}

bool Call::StartsNow() const { return Engine::Current().StartsNow(operation_.pipe); }

void Call::Begin() {
    Engine& engine = Engine::Current();
    RoleState& role = engine.running();
    engine.BeginOperation(role, operation_, role.acquired, role.issueAt);
}

void Call::End() {
    Engine& engine = Engine::Current();
    engine.EndOperation(engine.running());
}

void Call::Queue(std::function<void()> body) {
    Entry entry = {};
    entry.kind = Entry::Kind::kOperation;
    entry.site = operation_.site;
    entry.operation = operation_;
    entry.body = std::move(body);
    Engine::Current().Push(operation_.pipe, std::move(entry));
}

bool Call::RunScalar() {
    if (!Admit()) return false;
    Begin();
    return true;
}

void FailNow(const char* rule, const char* call, Site site, const std::string& got,
             const std::string& wanted, const std::string& advice) {
    Engine::Current().Complain(rule, site, call, got, wanted, advice);
}

}  // namespace check
}  // namespace ascend_twin
