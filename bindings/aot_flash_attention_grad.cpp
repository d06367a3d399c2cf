// flash_attention_grad for MindSpore.
#include "aot_common.h"
#include "ascend_ops/flash_attention_grad.h"

namespace {

constexpr char kOp[] = "flash_attention_grad";

}  // namespace

// do, q, k, v, o, lse, cu_seqlens_q, cu_seqlens_kv, prefix_len, scale (1,) float32,
// options (2,) int32 {causal, window} -> dq, dk, dv
extern "C" ASCEND_OPS_API int Glm2FlashAttentionGrad(int nparam, void** params, int* /*ndims*/,
                                                     int64_t** shapes, const char** dtypes,
                                                     void* /*stream*/, void* /*extra*/) {
    glm2_aot::CheckCount(kOp, nparam, 14);
    const glm2_aot::Params p = {params, shapes, dtypes};
    ascend_ops::FlashAttentionGradArgs args;
    args.dO = p.In<void>(0);
    args.q = p.In<void>(1);
    args.k = p.In<void>(2);
    args.v = p.In<void>(3);
    args.o = p.In<void>(4);
    args.lse = p.In<float>(5);
    args.cuSeqlensQ = p.In<int32_t>(6);
    args.cuSeqlensKv = p.In<int32_t>(7);
    args.prefixLen = p.In<int32_t>(8);
    args.scale = p.In<float>(9)[0];
    args.causal = p.In<int32_t>(10)[0] != 0;
    args.window = static_cast<uint32_t>(p.In<int32_t>(10)[1]);
    args.dQ = params[11];
    args.dK = params[12];
    args.dV = params[13];
    args.type = p.Type(1);
    args.numSeqs = p.Dim(8, 0);
    args.numHeads = p.Dim(1, 1);
    args.numKvHeads = p.Dim(2, 1);
    args.headDim = p.Dim(1, 2);
    glm2_aot::CheckOffsets(kOp, "cu_seqlens_q", args.cuSeqlensQ, args.numSeqs, p.Dim(1, 0));
    glm2_aot::CheckOffsets(kOp, "cu_seqlens_kv", args.cuSeqlensKv, args.numSeqs, p.Dim(2, 0));
    const std::vector<int32_t> seqLenKv = glm2_aot::Lengths(args.cuSeqlensKv, args.numSeqs);
    glm2_aot::CheckPrefixes(kOp, args.prefixLen, seqLenKv.data(), args.numSeqs);
    return glm2_aot::Run(kOp, &ascend_ops::FlashAttentionGrad, args);
}

extern "C" ASCEND_OPS_API std::vector<std::vector<int64_t>> Glm2FlashAttentionGradInferShape(
    int* ndims, int64_t** shapes, void* /*extra*/) {
    const glm2_aot::Sizes sizes = glm2_aot::CheckShapes(kOp, ndims, shapes,
                                                        {{"do", "TND"},
                                                         {"q", "TND"},
                                                         {"k", "KGD"},
                                                         {"v", "KGD"},
                                                         {"o", "TND"},
                                                         {"lse", "TN"},
                                                         {"cu_seqlens_q", "b"},
                                                         {"cu_seqlens_kv", "b"},
                                                         {"prefix_len", "B"},
                                                         {"scale", "1"},
                                                         {"options", "2"}});
    glm2_aot::CheckHeads(kOp, sizes);
    const std::vector<int64_t> key(shapes[2], shapes[2] + 3);
    return {std::vector<int64_t>(shapes[1], shapes[1] + 3), key, key};
}
