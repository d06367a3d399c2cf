// flash_attention and flash_attention_varlen for MindSpore.
#include "aot_common.h"
#include "ascend_ops/flash_attention.h"

namespace {

using glm2_aot::Params;

constexpr char kPaged[] = "flash_attention";
constexpr char kVarlen[] = "flash_attention_varlen";

// What both forms have: q, k and v in places 0 to 2; scale (1,) float32 and options (2,) int32
// {causal, window} from `place` on.
ascend_ops::FlashAttentionArgs Arguments(const Params& p, int place) {
    ascend_ops::FlashAttentionArgs args;
    args.q = p.In<void>(0);
    args.kCache = p.In<void>(1);
    args.vCache = p.In<void>(2);
    args.scale = p.In<float>(place)[0];
    args.causal = p.In<int32_t>(place + 1)[0] != 0;
    args.window = static_cast<uint32_t>(p.In<int32_t>(place + 1)[1]);
    args.qType = p.Type(0);
    args.cacheType = p.Type(1);
    args.numTokens = p.Dim(0, 0);
    args.numHeads = p.Dim(0, 1);
    args.numKvHeads = p.Dim(1, 1);  // in pages and in contiguous keys alike
    args.headDim = p.Dim(0, 2);
    return args;
}

}  // namespace

// q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len, scale, options -> o
extern "C" ASCEND_OPS_API int Glm2FlashAttention(int nparam, void** params, int* /*ndims*/,
                                                 int64_t** shapes, const char** dtypes,
                                                 void* /*stream*/, void* /*extra*/) {
    glm2_aot::CheckCount(kPaged, nparam, 10);
    const Params p = {params, shapes, dtypes};
    ascend_ops::FlashAttentionArgs args = Arguments(p, 7);
    args.blockTable = p.In<int32_t>(3);
    args.cuSeqlensQ = p.In<int32_t>(4);
    args.seqLenKv = p.In<int32_t>(5);
    args.prefixLen = p.In<int32_t>(6);
    args.o = params[9];
    args.numSeqs = p.Dim(5, 0);
    args.pageSize = p.Dim(1, 2);
    args.maxPages = p.Dim(3, 1);
    glm2_aot::CheckOffsets(kPaged, "cu_seqlens_q", args.cuSeqlensQ, args.numSeqs, args.numTokens);
    glm2_aot::CheckPages(kPaged, args.blockTable, args.seqLenKv, args.numSeqs, args.maxPages,
                         args.pageSize, p.Dim(1, 0));
    glm2_aot::CheckPrefixes(kPaged, args.prefixLen, args.seqLenKv, args.numSeqs);
    return glm2_aot::Run(kPaged, &ascend_ops::FlashAttention, args);
}

extern "C" ASCEND_OPS_API std::vector<int64_t> Glm2FlashAttentionInferShape(int* ndims,
                                                                            int64_t** shapes,
                                                                            void* /*extra*/) {
    const glm2_aot::Sizes sizes = glm2_aot::CheckShapes(kPaged, ndims, shapes,
                                                        {{"q", "TND"},
                                                         {"k_cache", "PGSD"},
                                                         {"v_cache", "PGSD"},
                                                         {"block_table", "BM"},
                                                         {"cu_seqlens_q", "b"},
                                                         {"seq_len_kv", "B"},
                                                         {"prefix_len", "B"},
                                                         {"scale", "1"},
                                                         {"options", "2"}});
    glm2_aot::CheckHeads(kPaged, sizes);
    return std::vector<int64_t>(shapes[0], shapes[0] + ndims[0]);
}

// q, k, v, cu_seqlens_q, cu_seqlens_kv, prefix_len, scale, options -> o, lse
extern "C" ASCEND_OPS_API int Glm2FlashAttentionVarlen(int nparam, void** params, int* /*ndims*/,
                                                       int64_t** shapes, const char** dtypes,
                                                       void* /*stream*/, void* /*extra*/) {
    glm2_aot::CheckCount(kVarlen, nparam, 10);
    const Params p = {params, shapes, dtypes};
    ascend_ops::FlashAttentionArgs args = Arguments(p, 6);
    const int32_t* startsKv = p.In<int32_t>(4);
    args.paged = false;
    args.blockTable = startsKv;
    args.cuSeqlensQ = p.In<int32_t>(3);
    args.prefixLen = p.In<int32_t>(5);
    args.o = params[8];
    args.lse = static_cast<float*>(params[9]);
    args.numSeqs = p.Dim(5, 0);
    glm2_aot::CheckOffsets(kVarlen, "cu_seqlens_q", args.cuSeqlensQ, args.numSeqs, args.numTokens);
    glm2_aot::CheckOffsets(kVarlen, "cu_seqlens_kv", startsKv, args.numSeqs, p.Dim(1, 0));
    const std::vector<int32_t> seqLenKv = glm2_aot::Lengths(startsKv, args.numSeqs);
    args.seqLenKv = seqLenKv.data();
    glm2_aot::CheckPrefixes(kVarlen, args.prefixLen, args.seqLenKv, args.numSeqs);
    return glm2_aot::Run(kVarlen, &ascend_ops::FlashAttention, args);
}

extern "C" ASCEND_OPS_API std::vector<std::vector<int64_t>> Glm2FlashAttentionVarlenInferShape(
    int* ndims, int64_t** shapes, void* /*extra*/) {
    const glm2_aot::Sizes sizes = glm2_aot::CheckShapes(kVarlen, ndims, shapes,
                                                        {{"q", "TND"},
                                                         {"k", "KGD"},
                                                         {"v", "KGD"},
                                                         {"cu_seqlens_q", "b"},
                                                         {"cu_seqlens_kv", "b"},
                                                         {"prefix_len", "B"},
                                                         {"scale", "1"},
                                                         {"options", "2"}});
    glm2_aot::CheckHeads(kVarlen, sizes);
    return {{shapes[0][0], shapes[0][1], shapes[0][2]}, {shapes[0][0], shapes[0][1]}};
}
