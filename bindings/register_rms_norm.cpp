// Binds ascend_ops::RmsNorm.
#include "ascend_ops/rms_norm.h"
#include "common.h"

namespace py = pybind11;

namespace glm2 {
namespace {

void RmsNorm(const py::array& x, const py::array& weight, const std::optional<py::array>& residual,
             py::array& y, std::optional<py::array>& total, float eps) {
    ascend_ops::RmsNormArgs args;
    args.x = x.data();
    args.weight = weight.data();
    args.residual = residual ? residual->data() : nullptr;
    args.y = y.mutable_data();
    args.total = total ? total->mutable_data() : nullptr;
    args.type = TypeOf(x);
    args.numRows = Dim(x, 0);
    args.hiddenSize = Dim(x, 1);
    args.eps = eps;
    ascend_ops::Status status;
    {
        const py::gil_scoped_release release;
        status = ascend_ops::RmsNorm(args);
    }
    Raise(status);
}

}  // namespace

void RegisterRmsNorm(py::module_& module) {
    module.def("rms_norm", &RmsNorm, py::arg("x"), py::arg("weight"),
               py::arg("residual").none(true), py::arg("y"), py::arg("total").none(true),
               py::arg("eps"));
    module.attr("MAX_HIDDEN_SIZE") = ascend_ops::kMaxHiddenSize;
}

}  // namespace glm2
