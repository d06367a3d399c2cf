// What one call does: the pipe that it runs on and the bytes that it reads and writes. Calls of the
// API describe themselves as an Operation and hand it to the engine.
#ifndef ASCEND_TWIN_CHECK_OPERATION_H_
#define ASCEND_TWIN_CHECK_OPERATION_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "ascend_twin_check/field.h"
#include "ascend_twin_check/literal.h"
#include "ascend_twin_check/site.h"

namespace ascend_twin {
namespace check {

enum class Space : uint8_t { kGm, kUb, kL1, kL0a, kL0b, kL0c, kNone };

Space SpaceOf(TPosition position);
const char* NameOf(Space space);
const char* NameOf(TPosition position);
const char* NameOf(pipe_t pipe);
const char* NameOf(HardEvent event);

// Bytes of one operand: runs of `run` bytes in up to three loops. `begin` counts from the start of
// the memory; of GM it is an address.
struct Access {
    static constexpr uint32_t kLoops = 3;

    Space space = Space::kNone;
    bool write = false;
    bool atomic = false;
    uint16_t declaration = 0;  // the static tensor that it goes through
    uint64_t begin = 0;
    uint64_t end = 0;  // of that tensor; 0: not known
    uint64_t run = 0;
    uint64_t count[kLoops] = {1, 1, 1};
    uint64_t stride[kLoops] = {0, 0, 0};

    // Loops over `times` copies of what there is, `step` bytes apart; runs that touch are joined.
    void Repeat(uint64_t times, uint64_t step);
    bool Empty() const { return run * count[0] * count[1] * count[2] == 0; }
    uint64_t Runs() const { return count[0] * count[1] * count[2]; }
    uint64_t Bytes() const { return run * Runs(); }
    // One past the last byte.
    uint64_t Last() const;
    // f(first byte, bytes) for each run.
    template <typename F>
    void ForEachRun(const F& f) const {
        for (uint64_t i = 0; i < count[2]; ++i) {
            for (uint64_t j = 0; j < count[1]; ++j) {
                const uint64_t row = begin + i * stride[2] + j * stride[1];
                for (uint64_t k = 0; k < count[0]; ++k) f(row + k * stride[0], run);
            }
        }
    }
};

enum class RoleKind : uint8_t { kAic, kAiv, kAny };

struct Operation {
    static constexpr uint32_t kMaxAccesses = 6;

    const char* name = "";
    pipe_t pipe = PIPE_S;
    RoleKind role = RoleKind::kAny;
    bool isCopy = false;       // counted as a move between memories
    bool accumulates = false;  // Mmad onto what L0C holds
    bool bytewise = false;     // its stores leave the bytes beside them alone
    bool small = false;        // Mmad of few fractals, whose successor needs PIPE_M
    uint32_t cubeCycles = 0;   // of an Mmad, at the peak of the cube
    uint32_t copyUnit = 0;     // bytes of a burst, where it is not a contiguous run of GM
    Site site;
    uint32_t numAccesses = 0;
    Access accesses[kMaxAccesses];
};

enum class Severity : uint8_t { kError, kWarning };

// A call in the making. It complains as it is described; Run executes it, now or when its pipe
// comes to it, unless executing would leave the memories.
class Call {
  public:
    Call(const char* name, pipe_t pipe, RoleKind role, Site site);

    Access& Read(const Access& access) { return Add(access, false); }
    Access& Write(const Access& access) { return Add(access, true); }
    void IsCopy(uint32_t unit = 0) {
        operation_.isCopy = true;
        operation_.copyUnit = unit;
    }
    void IsBytewise() { operation_.bytewise = true; }
    void IsMmad(bool accumulates, bool small, uint64_t cycles) {
        operation_.accumulates = accumulates;
        operation_.small = small;
        operation_.cubeCycles = static_cast<uint32_t>(cycles);
    }

    // A finding about this call.
    void Fail(const char* rule, const std::string& got, const std::string& wanted,
              const std::string& advice, Severity severity = Severity::kError);
    // Will not be executed.
    void Forbid() { forbidden_ = true; }

    // `value` fits its parameter, and lies in [least, most].
    template <typename Narrow>
    void Limit(const char* parameter, const Field<Narrow>& value, int64_t least, int64_t most) {
        if (value.Fits() && value.Wide() >= least && value.Wide() <= most) return;
        OutOfRange("", parameter, value.Wide(), least, most);
    }
    template <typename Narrow>
    void Width(const char* parameter, const Field<Narrow>& value) {
        Width("", parameter, value);
    }
    template <typename Narrow>
    void Width(const char* operand, const char* parameter, const Field<Narrow>& value) {
        using Limits = std::numeric_limits<Narrow>;
        if (!value.Fits())
            OutOfRange(operand, parameter, value.Wide(), Limits::min(), Limits::max());
    }
    void Number(const char* parameter, int64_t value, int64_t least, int64_t most) {
        if (value < least || value > most) OutOfRange("", parameter, value, least, most);
    }
    // The operand's first byte is a multiple of `unit`.
    void Align(const char* operand, const Access& access, uint64_t unit);
    void Multiple(const char* what, uint64_t bytes, uint64_t unit);
    void InSpace(const char* operand, TPosition position, Space wanted);
    // What is written is identical to what is read, or disjoint.
    void NoPartialOverlap();

    template <typename F>
    void Run(F&& body) {
        if (!Admit()) return;
        if (StartsNow()) {
            Begin();
            body();
            End();
        } else {
            Queue(std::function<void()>(std::forward<F>(body)));
        }
    }

    // Of the scalar unit, which executes at once whatever the queues hold; false: do not.
    bool RunScalar();
    void EndScalar() { End(); }

  private:
    Access& Add(const Access& access, bool write);
    void OutOfRange(const char* operand, const char* parameter, int64_t value, int64_t least,
                    int64_t most);
    bool Admit();
    bool CheckRange(const Access& access);
    bool StartsNow() const;
    void Begin();
    void End();
    void Queue(std::function<void()> body);

    Operation operation_;
    bool forbidden_ = false;
};

// A finding of a call that is being executed.
void FailNow(const char* rule, const char* call, Site site, const std::string& got,
             const std::string& wanted, const std::string& advice);

// A static tensor of the running role: where it lies, what it may hold.
uint16_t Declare(TPosition position, uint64_t address, uint64_t bytes, Site site);

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_OPERATION_H_
