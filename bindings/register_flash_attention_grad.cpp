// Binds ascend_ops::FlashAttentionGrad.
#include "ascend_ops/flash_attention_grad.h"
#include "common.h"

namespace py = pybind11;

namespace glm2 {
namespace {

void FlashAttentionGrad(const py::array& dO, const py::array& q, const py::array& k,
                        const py::array& v, const py::array& o, const py::array& lse,
                        const py::array& cuSeqlensQ, const py::array& cuSeqlensKv,
                        const std::optional<py::array>& prefixLen, py::array& dQ, py::array& dK,
                        py::array& dV, float scale, bool causal, uint32_t window) {
    ascend_ops::FlashAttentionGradArgs args;
    args.dO = dO.data();
    args.q = q.data();
    args.k = k.data();
    args.v = v.data();
    args.o = o.data();
    args.lse = static_cast<const float*>(lse.data());
    args.cuSeqlensQ = Int32(cuSeqlensQ);
    args.cuSeqlensKv = Int32(cuSeqlensKv);
    args.prefixLen = prefixLen ? Int32(*prefixLen) : nullptr;
    args.dQ = dQ.mutable_data();
    args.dK = dK.mutable_data();
    args.dV = dV.mutable_data();
    args.type = TypeOf(q);
    args.numSeqs = Dim(cuSeqlensQ, 0) - 1;
    args.numHeads = Dim(q, 1);
    args.numKvHeads = Dim(k, 1);
    args.headDim = Dim(q, 2);
    args.scale = scale;
    args.causal = causal;
    args.window = window;
    ascend_ops::Status status;
    {
        const py::gil_scoped_release release;
        status = ascend_ops::FlashAttentionGrad(args);
    }
    Raise(status);
}

}  // namespace

void RegisterFlashAttentionGrad(py::module_& module) {
    module.def("flash_attention_grad", &FlashAttentionGrad, py::arg("do"), py::arg("q"),
               py::arg("k"), py::arg("v"), py::arg("o"), py::arg("lse"), py::arg("cu_seqlens_q"),
               py::arg("cu_seqlens_kv"), py::arg("prefix_len").none(true), py::arg("dq"),
               py::arg("dk"), py::arg("dv"), py::arg("scale"), py::arg("causal"),
               py::arg("window"));
}

}  // namespace glm2
