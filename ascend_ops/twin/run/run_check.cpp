// ascend_twin::Run in check mode: the kernel runs under all rules, and what breaks them comes back.
#include "ascend_twin/run.h"
#include "gm_table.h"
#include "launch.h"
#include "session.h"

namespace ascend_twin {
namespace {

check::GmUse UseOf(Use use) {
    switch (use) {
        case Use::kIn:
            return check::GmUse::kIn;
        case Use::kOut:
            return check::GmUse::kOut;
        case Use::kInOut:
            return check::GmUse::kInOut;
        case Use::kWorkspace:
            return check::GmUse::kWorkspace;
    }
    return check::GmUse::kInOut;
}

}  // namespace

Outcome Run(const Kernel& kernel, const std::vector<Tensor>& tensors, void (*body)(const void*),
            const void* arguments) {
    std::vector<check::GmTensor> named;
    for (const Tensor& tensor : tensors) {
        named.push_back({tensor.name, tensor.data, tensor.bytes, UseOf(tensor.use)});
    }
    const check::Options before = check::CurrentOptions();
    check::Options options = before;
    options.firstSeed = kernel.seed;
    options.seeds = kernel.schedules;
    options.physicalCores = kernel.physicalCores;
    check::SetOptions(options);
    check::TakeFindings();
    check::NameGm(named);
    const LaunchConfig config = {kernel.name, kernel.type, kernel.blocks, kernel.tilingKey};
    Outcome outcome;
    outcome.hang = Launch(config, body, arguments);
    check::SetOptions(before);
    for (const check::Finding& finding : check::TakeFindings()) {
        const bool isError = finding.severity == check::Severity::kError;
        outcome.remarks.push_back(
            {finding.rule, isError, finding.file, finding.line, check::Describe(finding)});
    }
    return outcome;
}

}  // namespace ascend_twin
