// The flash_attention operator for CANN: definition, shape inference, tiling entry. Untested on
// hardware.
//
// Lengths, offsets and pages are tensors on the device, and the tiling does not see their values:
// declared ValueDepend, they would be host arrays of int64 in the aclnn call, and each decode step
// would wait for their copy. It counts with the most work that the shapes allow instead; the kernel
// takes the true lengths from GM, and a core without work ends at once.
#include "common/op_host/op_def_support.h"
#include "flash_attention/op_host/flash_attention_tiling.h"

namespace ascend_ops {
namespace {

constexpr size_t kQ = 0;
constexpr size_t kKCache = 1;
constexpr size_t kBlockTable = 3;
constexpr size_t kSeqLenKv = 5;
constexpr size_t kPrefixLen = 6;
constexpr size_t kScale = 0;
constexpr size_t kCausal = 1;
constexpr size_t kWindow = 2;
constexpr size_t kReturnLse = 3;
constexpr size_t kO = 0;
constexpr size_t kLse = 1;
constexpr size_t kPagedRank = 4;  // of k_cache; contiguous keys have three dimensions

// Lengths of the shapes' worst case: one token in each sequence but the last, which has the rest.
// No other split of the tokens has more Q tiles.
struct WorstCase {
    std::vector<int32_t> cuSeqlensQ;
    std::vector<int32_t> seqLenKv;
};

WorstCase WorstCaseOf(const FlashAttentionArgs& args, uint32_t keys) {
    WorstCase lengths;
    for (uint32_t seq = 0; seq < args.numSeqs; ++seq) {
        lengths.cuSeqlensQ.push_back(static_cast<int32_t>(std::min(seq, args.numTokens)));
    }
    lengths.cuSeqlensQ.push_back(static_cast<int32_t>(args.numTokens));
    lengths.seqLenKv.assign(args.numSeqs, static_cast<int32_t>(keys));
    return lengths;
}

FlashAttentionArgs ArgumentsOf(TilingCall* call) {
    FlashAttentionArgs args;
    args.qType = call->Type(kQ);
    args.cacheType = call->Type(kKCache);
    args.numTokens = call->Dim(kQ, 0);
    args.numHeads = call->Dim(kQ, 1);
    args.headDim = call->Dim(kQ, 2);
    args.numSeqs = call->Dim(kSeqLenKv, 0);
    args.numKvHeads = call->Dim(kKCache, 1);
    args.paged = call->Rank(kKCache) == kPagedRank;
    if (args.paged) {
        args.pageSize = call->Dim(kKCache, 2);
        args.maxPages = call->Dim(kBlockTable, 1);
    }
    args.scale = call->Float(kScale);
    args.causal = call->Bool(kCausal);
    args.window = call->Uint(kWindow);
    return args;
}

ge::graphStatus TileFlashAttention(gert::TilingContext* context) {
    TilingCall call(context);
    FlashAttentionArgs args = ArgumentsOf(&call);
    const uint32_t keys = args.paged ? args.maxPages * args.pageSize : call.Dim(kKCache, 0);
    const WorstCase lengths = WorstCaseOf(args, keys);
    float present = 0.0f;  // the tiling asks whether lse is wanted, and does not read it
    args.cuSeqlensQ = lengths.cuSeqlensQ.data();
    args.seqLenKv = lengths.seqLenKv.data();
    args.prefixLen = call.HasInput(kPrefixLen) ? lengths.seqLenKv.data() : nullptr;
    args.lse = call.Bool(kReturnLse) ? &present : nullptr;
    auto* tiling = context->GetTilingData<FlashAttentionTilingData>();
    if (!call.ok() || tiling == nullptr) return RefuseCall("flash_attention");
    const Status status =
        ComputeFlashAttentionTiling(args, LimitsOf(context, CoreKind::kMix), tiling);
    if (!status.ok()) return RefuseTiling("flash_attention", status);
    uint64_t key = 0;
    const Status keyed = FlashAttentionTilingKey(args.qType, args.cacheType, &key);
    if (!keyed.ok()) return RefuseTiling("flash_attention", keyed);
    return FinishTiling(context, tiling->numCores, key, tiling->workspaceBytes * tiling->numCores);
}

// o like q; lse (T, N), or empty where it is not wanted.
ge::graphStatus InferFlashAttentionShape(gert::InferShapeContext* context) {
    const gert::Shape* q = context->GetInputShape(kQ);
    const gert::RuntimeAttrs* attrs = context->GetAttrs();
    const bool* returnLse = attrs == nullptr ? nullptr : attrs->GetBool(kReturnLse);
    gert::Shape* o = context->GetOutputShape(kO);
    gert::Shape* lse = context->GetOutputShape(kLse);
    if (q == nullptr || returnLse == nullptr || o == nullptr || lse == nullptr ||
        q->GetDimNum() != 3) {
        return ge::GRAPH_FAILED;
    }
    *o = *q;
    *lse = *returnLse ? gert::Shape({q->GetDim(0), q->GetDim(1)}) : gert::Shape({0});
    return ge::GRAPH_SUCCESS;
}

ge::graphStatus InferFlashAttentionType(gert::InferDataTypeContext* context) {
    if (context->SetOutputDataType(kO, context->GetInputDataType(kQ)) != ge::GRAPH_SUCCESS) {
        return ge::GRAPH_FAILED;
    }
    return context->SetOutputDataType(kLse, ge::DT_FLOAT);
}

}  // namespace
}  // namespace ascend_ops

namespace ops {

class Glm2FlashAttention : public OpDef {
  public:
    explicit Glm2FlashAttention(const char* name) : OpDef(name) {
        using ascend_ops::Always;
        const std::vector<ge::DataType> types = {ge::DT_FLOAT16, ge::DT_FLOAT, ge::DT_FLOAT,
                                                 ge::DT_BF16, ge::DT_FLOAT};
        const std::vector<ge::DataType> cacheTypes = {ge::DT_FLOAT16, ge::DT_FLOAT16, ge::DT_FLOAT,
                                                      ge::DT_BF16, ge::DT_BF16};
        const std::vector<ge::DataType> floats = Always(ge::DT_FLOAT, types.size());
        const std::vector<ge::DataType> ints = Always(ge::DT_INT32, types.size());
        const std::vector<ge::Format> formats = ascend_ops::PlainFormats(types.size());
        Input("q").ParamType(REQUIRED).DataType(types).Format(formats).AutoContiguous();
        // A copy of the cache would cost more than the call.
        Input("k_cache").ParamType(REQUIRED).DataType(cacheTypes).Format(formats);
        Input("v_cache").ParamType(REQUIRED).DataType(cacheTypes).Format(formats);
        Input("block_table").ParamType(REQUIRED).DataType(ints).Format(formats).AutoContiguous();
        Input("cu_seqlens_q").ParamType(REQUIRED).DataType(ints).Format(formats).AutoContiguous();
        Input("seq_len_kv").ParamType(REQUIRED).DataType(ints).Format(formats).AutoContiguous();
        Input("prefix_len").ParamType(OPTIONAL).DataType(ints).Format(formats).AutoContiguous();
        Output("o").ParamType(REQUIRED).DataType(types).Format(formats);
        Output("lse").ParamType(REQUIRED).DataType(floats).Format(formats);
        Attr("scale").AttrType(REQUIRED).Float();
        Attr("causal").AttrType(OPTIONAL).Bool(true);
        Attr("window").AttrType(OPTIONAL).Int(0);
        Attr("return_lse").AttrType(OPTIONAL).Bool(false);
        SetInferShape(ascend_ops::InferFlashAttentionShape);
        SetInferDataType(ascend_ops::InferFlashAttentionType);
        AICore()
            .SetTiling(ascend_ops::TileFlashAttention)
            .AddConfig("ascend910b")
            .AddConfig("ascend910_93");
    }
};
OP_ADD(Glm2FlashAttention);

}  // namespace ops
