// Binds ascend_ops::RopeAppend.
#include "ascend_ops/rope_append.h"
#include "common.h"

namespace py = pybind11;

namespace glm2 {
namespace {

void RopeAppend(const py::array& qkv, const py::array& cos, const py::array& sin, py::array& kCache,
                py::array& vCache, const py::array& blockTable, const py::array& cuSeqlensQ,
                const py::array& seqLenKv, py::array& q, uint32_t rotaryDim) {
    ascend_ops::RopeAppendArgs args;
    args.qkv = qkv.data();
    args.cos = static_cast<const float*>(cos.data());
    args.sin = static_cast<const float*>(sin.data());
    args.kCache = kCache.mutable_data();
    args.vCache = vCache.mutable_data();
    args.blockTable = Int32(blockTable);
    args.cuSeqlensQ = Int32(cuSeqlensQ);
    args.seqLenKv = Int32(seqLenKv);
    args.q = q.mutable_data();
    args.qkvType = TypeOf(qkv);
    args.cacheType = TypeOf(kCache);
    args.numTokens = Dim(qkv, 0);
    args.numSeqs = Dim(seqLenKv, 0);
    args.numHeads = Dim(q, 1);
    args.numKvHeads = Dim(kCache, 1);
    args.headDim = Dim(q, 2);
    args.rotaryDim = rotaryDim;
    args.pageSize = Dim(kCache, 2);
    args.maxPages = Dim(blockTable, 1);
    ascend_ops::Status status;
    {
        const py::gil_scoped_release release;
        status = ascend_ops::RopeAppend(args);
    }
    Raise(status);
}

}  // namespace

void RegisterRopeAppend(py::module_& module) {
    module.def("rope_append", &RopeAppend, py::arg("qkv"), py::arg("cos"), py::arg("sin"),
               py::arg("k_cache"), py::arg("v_cache"), py::arg("block_table"),
               py::arg("cu_seqlens_q"), py::arg("seq_len_kv"), py::arg("q"), py::arg("rotary_dim"));
}

}  // namespace glm2
