// glm2_ops._native and _native_check: the operators for numpy. Arguments were checked in Python.
#include "ascend_ops/build_info.h"
#include "ascend_ops/machine_probe.h"
#include "common.h"

PYBIND11_MODULE(GLM2_MODULE, module) {
    module.doc() =
        "Ascend C operators of glm2 on the CPU twin; use the checked wrappers of glm2_ops.";
    glm2::RegisterFlashAttention(module);
    glm2::RegisterFlashAttentionGrad(module);
    glm2::RegisterPackedWeight(module);
    glm2::RegisterQuantMatmul(module);
    glm2::RegisterRmsNorm(module);
    glm2::RegisterRopeAppend(module);
    glm2::RegisterSwiglu(module);
    glm2::RegisterTiling(module);
#if defined(GLM2_CHECK)
    glm2::RegisterCheck(module);
#endif
    module.def("set_num_threads", &ascend_ops::SetNumThreads);
    module.def("machine_peaks", [](uint64_t readBytes) {
        pybind11::gil_scoped_release release;
        const double fmaGflops = ascend_ops::MeasureFmaGflops();
        const double readGbps = ascend_ops::MeasureReadGbps(readBytes);
        pybind11::gil_scoped_acquire acquire;
        pybind11::dict peaks;
        peaks["fma_gflops"] = fmaGflops;
        peaks["read_gbps"] = readGbps;
        return peaks;
    });
    module.def("build_info", [] {
        const ascend_ops::BuildInfo info = ascend_ops::GetBuildInfo();
        pybind11::dict fields;
        fields["simd"] = info.simd;
        fields["compiler"] = info.compiler;
        fields["twin"] = info.twin;
        fields["threads"] = info.threads;
        return fields;
    });
}
