// rope_append for MindSpore.
#include "aot_common.h"
#include "ascend_ops/rope_append.h"

namespace {

constexpr char kOp[] = "rope_append";

// Requires lengths that count the call's own tokens and stay inside the cos and sin tables.
void CheckLengths(const ascend_ops::RopeAppendArgs& args, uint32_t maxPosition) {
    for (uint32_t seq = 0; seq < args.numSeqs; ++seq) {
        const int32_t tokens = args.cuSeqlensQ[seq + 1] - args.cuSeqlensQ[seq];
        const int32_t length = args.seqLenKv[seq];
        const std::string came =
            "seq_len_kv[" + std::to_string(seq) + "] is " + std::to_string(length);
        if (length < tokens) {
            glm2_aot::Refuse(kOp, came + ", but sequence " + std::to_string(seq) + " has " +
                                      std::to_string(tokens) +
                                      " tokens in this call; the length counts them too");
        }
        if (args.rotaryDim > 0 && tokens > 0 && static_cast<uint32_t>(length) > maxPosition) {
            glm2_aot::Refuse(kOp, came + ", but cos and sin have " + std::to_string(maxPosition) +
                                      " positions; make longer tables");
        }
    }
}

// Requires that a page that is written stands in one place of the block table alone.
void CheckDisjoint(const ascend_ops::RopeAppendArgs& args, uint32_t numPages) {
    std::vector<uint32_t> places(numPages);
    const auto pagesOf = [&](int32_t tokens) {
        return (static_cast<uint32_t>(tokens) + args.pageSize - 1) / args.pageSize;
    };
    for (uint32_t seq = 0; seq < args.numSeqs; ++seq) {
        const int32_t* pages = args.blockTable + int64_t{seq} * args.maxPages;
        for (uint32_t i = 0; i < pagesOf(args.seqLenKv[seq]); ++i)
            ++places[static_cast<uint32_t>(pages[i])];
    }
    for (uint32_t seq = 0; seq < args.numSeqs; ++seq) {
        const int32_t* pages = args.blockTable + int64_t{seq} * args.maxPages;
        const int32_t tokens = args.cuSeqlensQ[seq + 1] - args.cuSeqlensQ[seq];
        if (tokens == 0) continue;
        const uint32_t first = static_cast<uint32_t>(args.seqLenKv[seq] - tokens) / args.pageSize;
        for (uint32_t i = first; i < pagesOf(args.seqLenKv[seq]); ++i) {
            const uint32_t found = places[static_cast<uint32_t>(pages[i])];
            if (found == 1) continue;
            glm2_aot::Refuse(kOp, "block_table has page " + std::to_string(pages[i]) + " in " +
                                      std::to_string(found) +
                                      " places, and this call writes to it; a page that is "
                                      "written must have one place");
        }
    }
}

}  // namespace

// qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv -> q; writes the caches
extern "C" ASCEND_OPS_API int Glm2RopeAppend(int nparam, void** params, int* /*ndims*/,
                                             int64_t** shapes, const char** dtypes,
                                             void* /*stream*/, void* /*extra*/) {
    glm2_aot::CheckCount(kOp, nparam, 9);
    const glm2_aot::Params p = {params, shapes, dtypes};
    ascend_ops::RopeAppendArgs args;
    args.qkv = p.In<void>(0);
    args.cos = p.In<float>(1);
    args.sin = p.In<float>(2);
    args.kCache = params[3];
    args.vCache = params[4];
    args.blockTable = p.In<int32_t>(5);
    args.cuSeqlensQ = p.In<int32_t>(6);
    args.seqLenKv = p.In<int32_t>(7);
    args.q = params[8];
    args.qkvType = p.Type(0);
    args.cacheType = p.Type(3);
    args.numTokens = p.Dim(0, 0);
    args.numSeqs = p.Dim(7, 0);
    args.numKvHeads = p.Dim(3, 1);
    args.headDim = p.Dim(3, 3);
    args.numHeads = p.Dim(0, 1) / args.headDim - 2 * args.numKvHeads;
    args.rotaryDim = 2 * p.Dim(1, 1);
    args.pageSize = p.Dim(3, 2);
    args.maxPages = p.Dim(5, 1);
    glm2_aot::CheckOffsets(kOp, "cu_seqlens_q", args.cuSeqlensQ, args.numSeqs, args.numTokens);
    glm2_aot::CheckPages(kOp, args.blockTable, args.seqLenKv, args.numSeqs, args.maxPages,
                         args.pageSize, p.Dim(3, 0));
    CheckLengths(args, p.Dim(1, 0));
    CheckDisjoint(args, p.Dim(3, 0));
    return glm2_aot::Run(kOp, &ascend_ops::RopeAppend, args);
}

extern "C" ASCEND_OPS_API std::vector<int64_t> Glm2RopeAppendInferShape(int* ndims,
                                                                        int64_t** shapes,
                                                                        void* /*extra*/) {
    glm2_aot::Sizes sizes = glm2_aot::CheckShapes(kOp, ndims, shapes,
                                                  {{"qkv", "TW"},
                                                   {"cos", "LR"},
                                                   {"sin", "LR"},
                                                   {"k_cache", "PGSD"},
                                                   {"v_cache", "PGSD"},
                                                   {"block_table", "BM"},
                                                   {"cu_seqlens_q", "b"},
                                                   {"seq_len_kv", "B"}});
    const int64_t width = sizes['W'];
    const int64_t kvHeads = sizes['G'];
    const int64_t headDim = sizes['D'];
    glm2_aot::CheckHeads(kOp, sizes);
    if (width != glm2_aot::kDynamic && kvHeads != glm2_aot::kDynamic &&
        headDim != glm2_aot::kDynamic) {
        if (width % headDim != 0 || width / headDim <= 2 * kvHeads) {
            glm2_aot::Refuse(kOp, "qkv has " + std::to_string(width) + " columns and k_cache " +
                                      std::to_string(kvHeads) + " heads of " +
                                      std::to_string(headDim) +
                                      "; expected (num_heads + 2 num_kv_heads) * head_dim columns");
        }
        sizes['N'] = width / headDim - 2 * kvHeads;
        glm2_aot::CheckHeads(kOp, sizes);
    }
    return {shapes[0][0], sizes['N'], headDim};
}
