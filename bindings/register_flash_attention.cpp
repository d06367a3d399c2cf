// Binds ascend_ops::FlashAttention.
#include "ascend_ops/flash_attention.h"
#include "common.h"

namespace py = pybind11;

namespace glm2 {
namespace {

ascend_ops::FlashAttentionArgs Arguments(const py::array& q, const py::array& k, const py::array& v,
                                         const py::array& cuSeqlensQ, const py::array& seqLenKv,
                                         const std::optional<py::array>& prefixLen, py::array& o,
                                         std::optional<py::array>& lse, float scale, bool causal,
                                         uint32_t window) {
    ascend_ops::FlashAttentionArgs args;
    args.q = q.data();
    args.kCache = k.data();
    args.vCache = v.data();
    args.cuSeqlensQ = Int32(cuSeqlensQ);
    args.seqLenKv = Int32(seqLenKv);
    args.prefixLen = prefixLen ? Int32(*prefixLen) : nullptr;
    args.o = o.mutable_data();
    args.lse = lse ? static_cast<float*>(lse->mutable_data()) : nullptr;
    args.qType = TypeOf(q);
    args.cacheType = TypeOf(k);
    args.numTokens = Dim(q, 0);
    args.numSeqs = Dim(seqLenKv, 0);
    args.numHeads = Dim(q, 1);
    args.numKvHeads = Dim(k, 1);  // in pages and in contiguous keys alike
    args.headDim = Dim(q, 2);
    args.scale = scale;
    args.causal = causal;
    args.window = window;
    return args;
}

void Run(const ascend_ops::FlashAttentionArgs& args) {
    ascend_ops::Status status;
    {
        const py::gil_scoped_release release;
        status = ascend_ops::FlashAttention(args);
    }
    Raise(status);
}

void FlashAttention(const py::array& q, const py::array& kCache, const py::array& vCache,
                    const py::array& blockTable, const py::array& cuSeqlensQ,
                    const py::array& seqLenKv, const std::optional<py::array>& prefixLen,
                    py::array& o, std::optional<py::array>& lse, float scale, bool causal,
                    uint32_t window) {
    ascend_ops::FlashAttentionArgs args = Arguments(q, kCache, vCache, cuSeqlensQ, seqLenKv,
                                                    prefixLen, o, lse, scale, causal, window);
    args.blockTable = Int32(blockTable);
    args.pageSize = Dim(kCache, 2);
    args.maxPages = Dim(blockTable, 1);
    Run(args);
}

void FlashAttentionVarlen(const py::array& q, const py::array& k, const py::array& v,
                          const py::array& cuSeqlensQ, const py::array& startsKv,
                          const py::array& seqLenKv, const std::optional<py::array>& prefixLen,
                          py::array& o, std::optional<py::array>& lse, float scale, bool causal,
                          uint32_t window) {
    ascend_ops::FlashAttentionArgs args =
        Arguments(q, k, v, cuSeqlensQ, seqLenKv, prefixLen, o, lse, scale, causal, window);
    args.paged = false;
    args.blockTable = Int32(startsKv);
    Run(args);
}

}  // namespace

void RegisterFlashAttention(py::module_& module) {
    module.def("flash_attention", &FlashAttention, py::arg("q"), py::arg("k_cache"),
               py::arg("v_cache"), py::arg("block_table"), py::arg("cu_seqlens_q"),
               py::arg("seq_len_kv"), py::arg("prefix_len").none(true), py::arg("o"),
               py::arg("lse").none(true), py::arg("scale"), py::arg("causal"), py::arg("window"));
    module.def("flash_attention_varlen", &FlashAttentionVarlen, py::arg("q"), py::arg("k"),
               py::arg("v"), py::arg("cu_seqlens_q"), py::arg("starts_kv"), py::arg("seq_len_kv"),
               py::arg("prefix_len").none(true), py::arg("o"), py::arg("lse").none(true),
               py::arg("scale"), py::arg("causal"), py::arg("window"));
}

}  // namespace glm2
