// A launch in check mode: a pass that checks, and passes that must come to the same result.
#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "engine.h"
#include "gm_table.h"
#include "session.h"

namespace ascend_twin {
namespace {

using check::Engine;
using check::Finding;
using check::GmTable;
using check::Order;
using check::Pass;

using Saved = std::vector<std::vector<uint8_t>>;

constexpr uint8_t kNanPoison = 0xff;  // NaN as half, bfloat16_t and float
constexpr uint64_t kGmUnit = 512;
constexpr uint8_t kHugePoison = 0x7b;  // large and finite as each of them

class CheckedLaunch {
  public:
    CheckedLaunch(const LaunchConfig& config, void (*kernel)(const void*), const void* arguments)
        : config_(config),
          kernel_(kernel),
          arguments_(arguments),
          gm_(check::TakeNamedGm()),
          options_(check::CurrentOptions()),
          before_(gm_.SaveWritten()) {}

    std::string Run() {
        Engine checked = Make({Order::kChecked, 0, kNanPoison});
        CheckWorkspace();
        gm_.Poison(kNanPoison);
        const bool ended = checked.Run();
        check::Count(config_.kernelName, checked.counters());
        for (const Finding& finding : checked.found().All()) found_.Add(finding);
        if (ended && !gm_.Empty()) Repeat();
        check::Report(found_.All());
        return checked.hang();
    }

  private:
    Engine Make(const Pass& pass) {
        return Engine(config_, kernel_, arguments_, gm_, options_.physicalCores, pass);
    }

    // A warning: unaligned bursts are slow.
    void CheckWorkspace() {
        for (uint32_t i = 0; i < gm_.Size(); ++i) {
            const uint64_t offset = reinterpret_cast<uint64_t>(gm_[i].data) % kGmUnit;
            if (gm_[i].use != check::GmUse::kWorkspace || offset == 0) continue;
            Finding finding;
            finding.rule = "workspace_alignment";
            finding.severity = check::Severity::kWarning;
            finding.kernel = config_.kernelName;
            finding.tensor = gm_[i].name;
            finding.end = gm_[i].bytes;
            finding.got = "begins " + std::to_string(offset) + " bytes past a multiple of 512";
            finding.wanted = "workspace aligned to 512 bytes";
            finding.advice = "round its offset up in the tiling";
            found_.Add(std::move(finding));
        }
    }

    // Again from the beginning; false if it hangs.
    bool Again(const Pass& pass) {
        gm_.Restore(before_);
        gm_.Poison(pass.poison);
        Engine engine = Make(pass);
        const bool ended = engine.Run();
        for (const Finding& finding : engine.found().All()) found_.Add(finding);
        return ended;
    }

    void Repeat() {
        if (options_.seeds == 0) return;
        const Saved result = gm_.SaveWritten();
        if (Again({Order::kPlain, 0, kNanPoison})) {
            const Saved plain = gm_.SaveWritten();
            if (Again({Order::kPlain, 0, kHugePoison})) {
                Compare(plain, "poison_reached_output", "other bits when memories start otherwise",
                        "the same result whatever UB, L1, L0, workspace and outputs held before",
                        "something is read before it is written, or an output is not written");
            }
            for (uint32_t i = 0; i < options_.seeds; ++i) {
                const uint32_t seed = options_.firstSeed + i;
                if (!Again({Order::kAdversarial, seed, kNanPoison})) continue;
                Compare(plain, "order_dependent",
                        "other bits in adversarial schedule " + std::to_string(seed),
                        "the same result however long its flags let each call wait",
                        "a flag or a barrier is missing; findings of the checked pass say where");
            }
        }
        gm_.Restore(result);
    }

    void Compare(const Saved& wanted, const char* rule, const std::string& got,
                 const char* wantedText, const char* advice) {
        for (uint32_t i = 0; i < gm_.Size(); ++i) {
            const auto* now = static_cast<const uint8_t*>(gm_[i].data);
            const std::vector<uint8_t>& then = wanted[i];
            if (then.empty() || std::memcmp(now, then.data(), then.size()) == 0) continue;
            uint64_t first = 0, last = then.size();
            while (now[first] == then[first]) ++first;
            while (now[last - 1] == then[last - 1]) --last;
            Finding finding;
            finding.rule = rule;
            finding.kernel = config_.kernelName;
            finding.tensor = gm_[i].name;
            finding.begin = first;
            finding.end = last;
            finding.got = got;
            finding.wanted = wantedText;
            finding.advice = advice;
            found_.Add(std::move(finding));
        }
    }

    const LaunchConfig& config_;
    void (*kernel_)(const void*);
    const void* arguments_;
    GmTable gm_;
    check::Options options_;
    Saved before_;
    check::Findings found_;
};

}  // namespace

std::string Launch(const LaunchConfig& config, void (*kernel)(const void*), const void* arguments) {
    return CheckedLaunch(config, kernel, arguments).Run();
}

}  // namespace ascend_twin
