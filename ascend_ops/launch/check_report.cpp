// Findings and counters of check mode, as the host API hands them out.
#include "ascend_ops/check.h"
#include "session.h"

namespace ascend_ops {

namespace twin = ascend_twin::check;

void SetCheckOptions(const CheckOptions& options) {
    twin::SetOptions(
        {options.firstSeed, options.seeds, options.physicalCores, options.hardwareTiling});
}

CheckOptions GetCheckOptions() {
    const twin::Options options = twin::CurrentOptions();
    return {options.firstSeed, options.seeds, options.physicalCores, options.hardwareTiling};
}

std::vector<CheckFinding> TakeCheckFindings() {
    std::vector<CheckFinding> all;
    for (const twin::Finding& f : twin::TakeFindings()) {
        all.push_back({f.rule, f.severity == twin::Severity::kError, f.kernel, f.core, f.role,
                       f.file, f.line, f.call, f.tensor, f.begin, f.end, f.got, f.wanted, f.advice,
                       f.count, twin::Describe(f)});
    }
    return all;
}

std::vector<KernelCounters> TakeKernelCounters() {
    std::vector<KernelCounters> all;
    for (const auto& [kernel, counters] : twin::TakeCounters()) {
        KernelCounters counted = {kernel, counters.calls, {}, {}, counters.cycles, {}};
        for (const auto& [key, traffic] : counters.moves) {
            const auto& [from, to, tensor] = key;
            counted.moves.push_back({from, to, tensor, traffic.bytes, traffic.bursts});
        }
        for (const auto& [pipe, count] : counters.instructions) {
            counted.pipes.push_back({pipe, count});
        }
        for (const auto& [pipe, cycles] : counters.busy)
            counted.pipeTimes.push_back({pipe, cycles});
        all.push_back(counted);
    }
    return all;
}

}  // namespace ascend_ops
