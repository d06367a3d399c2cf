// glm2_ops._native: the operators for numpy. Arguments were checked in Python.
#include "ascend_ops/build_info.h"
#include "common.h"

PYBIND11_MODULE(_native, module) {
    module.doc() =
        "Ascend C operators of glm2 on the CPU twin; use the checked wrappers of glm2_ops.";
    glm2::RegisterFlashAttention(module);
    glm2::RegisterRmsNorm(module);
    glm2::RegisterRopeAppend(module);
    glm2::RegisterSwiglu(module);
    module.def("set_num_threads", &ascend_ops::SetNumThreads);
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
