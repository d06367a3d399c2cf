// The flash_attention operator for CANN: definition, shape inference, tiling entry. Untested on
// hardware.
//
// Lengths, offsets and pages are tensors on the device, and the tiling does not see their values:
// declared ValueDepend, they would be host arrays of int64 in the aclnn call, and each decode step
// would wait for their copy. It counts with the most work that the shapes allow instead; the kernel
// takes the true lengths from GM, and a core without work ends at once. The AIVs of all cores meet
// where the shapes allow keys to be split, even if the lengths turn out too short for it.
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
    // Whether these are wanted is what the tiling asks; it does not read them.
    const int32_t prefix = 0;
    float lse = 0.0f;
    args.prefixLen = call.HasInput(kPrefixLen) ? &prefix : nullptr;
    args.lse = call.Bool(kReturnLse) ? &lse : nullptr;
    auto* tiling = context->GetTilingData<FlashAttentionTilingData>();
    if (!call.ok() || tiling == nullptr) return RefuseCall("flash_attention");
    const Status status =
        ComputeFlashAttentionTilingOfShapes(args, keys, LimitsOf(context, CoreKind::kMix), tiling);
    if (!status.ok()) return RefuseTiling("flash_attention", status);
    uint64_t key = 0;
    const Status keyed = FlashAttentionTilingKey(args.qType, args.cacheType, &key);
    if (!keyed.ok()) return RefuseTiling("flash_attention", keyed);
    const Start start = tiling->partRows > 0 ? Start::kAllCoresAtOnce : Start::kCoreByCore;
    return FinishTiling(context, tiling->numCores, key, tiling->workspaceTotal, start);
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
