// Binds the findings and counters of check mode.
#include "ascend_ops/check.h"
#include "common.h"

namespace py = pybind11;

namespace glm2 {
namespace {

py::dict ToDict(const ascend_ops::CheckFinding& finding) {
    py::dict fields;
    fields["rule"] = finding.rule;
    fields["severity"] = finding.isError ? "error" : "warning";
    fields["kernel"] = finding.kernel;
    fields["core"] = finding.core;
    fields["role"] = finding.role;
    fields["file"] = finding.file;
    fields["line"] = finding.line;
    fields["call"] = finding.call;
    fields["tensor"] = finding.tensor;
    fields["begin"] = finding.begin;
    fields["end"] = finding.end;
    fields["got"] = finding.got;
    fields["wanted"] = finding.wanted;
    fields["advice"] = finding.advice;
    fields["count"] = finding.count;
    fields["text"] = finding.text;
    return fields;
}

py::list TakeFindings() {
    py::list all;
    for (const ascend_ops::CheckFinding& finding : ascend_ops::TakeCheckFindings()) {
        all.append(ToDict(finding));
    }
    return all;
}

// [(kernel, calls, [(from, to, tensor, bytes, bursts)], {pipe: instructions}, cycles, {pipe:
// cycles})]
py::list TakeCounters() {
    py::list all;
    for (const ascend_ops::KernelCounters& kernel : ascend_ops::TakeKernelCounters()) {
        py::list moves;
        for (const ascend_ops::MoveCount& move : kernel.moves) {
            moves.append(py::make_tuple(move.from, move.to, move.tensor, move.bytes, move.bursts));
        }
        py::dict pipes;
        for (const ascend_ops::PipeCount& pipe : kernel.pipes) {
            pipes[py::str(pipe.pipe)] = pipe.instructions;
        }
        py::dict busy;
        for (const ascend_ops::PipeTime& time : kernel.pipeTimes) {
            busy[py::str(time.pipe)] = time.cycles;
        }
        all.append(
            py::make_tuple(kernel.kernel, kernel.calls, moves, pipes, kernel.modelCycles, busy));
    }
    return all;
}

}  // namespace

void RegisterCheck(py::module_& module) {
    module.def("take_findings", &TakeFindings);
    module.def("take_counters", &TakeCounters);
    module.def(
        "set_check_options",
        [](uint32_t seed, uint32_t schedules, uint32_t physicalCores, bool hardwareTiling) {
            ascend_ops::SetCheckOptions({seed, schedules, physicalCores, hardwareTiling});
        },
        py::arg("seed"), py::arg("schedules"), py::arg("physical_cores"),
        py::arg("hardware_tiling"));
}

}  // namespace glm2
