// Binds ascend_ops::QuantMatmul.
#include <string>

#include "ascend_ops/quant_matmul.h"
#include "common.h"

namespace py = pybind11;

namespace glm2 {
namespace {

void QuantMatmul(const py::array& x, const py::array& weight, const py::array& scale,
                 const std::optional<py::array>& bias, const std::optional<py::array>& residual,
                 py::array& out, const std::string& storage, uint32_t groupSize,
                 uint32_t activationBits) {
    ascend_ops::QuantMatmulArgs args;
    args.x = x.data();
    args.weight = weight.data();
    args.scale = static_cast<const float*>(scale.data());
    args.bias = bias ? static_cast<const float*>(bias->data()) : nullptr;
    args.residual = residual ? residual->data() : nullptr;
    args.out = out.mutable_data();
    args.type = TypeOf(x);
    args.format = FormatNamed(storage);
    args.numTokens = Dim(x, 0);
    args.inFeatures = Dim(x, 1);
    args.outFeatures = Dim(scale, 0);
    args.groupSize = groupSize;
    args.activationBits = activationBits;
    ascend_ops::Status status;
    {
        const py::gil_scoped_release release;
        status = ascend_ops::QuantMatmul(args);
    }
    Raise(status);
}

}  // namespace

void RegisterQuantMatmul(py::module_& module) {
    module.def("quant_matmul", &QuantMatmul, py::arg("x"), py::arg("weight"), py::arg("scale"),
               py::arg("bias").none(true), py::arg("residual").none(true), py::arg("out"),
               py::arg("storage"), py::arg("group_size"), py::arg("activation_bits"));
    module.attr("MAX_IN_FEATURES") = ascend_ops::kMaxInFeatures;
}

}  // namespace glm2
