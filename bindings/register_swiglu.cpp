// Binds ascend_ops::Swiglu.
#include "ascend_ops/swiglu.h"
#include "common.h"

namespace py = pybind11;

namespace glm2 {
namespace {

void Swiglu(const py::array& x, py::array& out) {
    ascend_ops::SwigluArgs args;
    args.x = x.data();
    args.out = out.mutable_data();
    args.type = TypeOf(x);
    args.numRows = Dim(out, 0);
    args.width = Dim(out, 1);
    ascend_ops::Status status;
    {
        const py::gil_scoped_release release;
        status = ascend_ops::Swiglu(args);
    }
    Raise(status);
}

}  // namespace

void RegisterSwiglu(py::module_& module) {
    module.def("swiglu", &Swiglu, py::arg("x"), py::arg("out"));
}

}  // namespace glm2
