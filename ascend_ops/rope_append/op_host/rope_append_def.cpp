// The rope_append operator for CANN: definition, shape inference, tiling entry. Untested on
// hardware.
#include "common/op_host/op_def_support.h"
#include "rope_append/op_host/rope_append_tiling.h"

namespace ascend_ops {
namespace {

constexpr size_t kQkv = 0;
constexpr size_t kKCache = 3;
constexpr size_t kVCache = 4;
constexpr size_t kBlockTable = 5;
constexpr size_t kSeqLenKv = 7;
constexpr size_t kNumHeads = 0;
constexpr size_t kRotaryDim = 1;
constexpr size_t kQ = 0;
constexpr size_t kKCacheRef = 1;
constexpr size_t kVCacheRef = 2;

ge::graphStatus TileRopeAppend(gert::TilingContext* context) {
    TilingCall call(context);
    RopeAppendArgs args;
    args.qkvType = call.Type(kQkv);
    args.cacheType = call.Type(kKCache);
    args.numTokens = call.Dim(kQkv, 0);
    args.numSeqs = call.Dim(kSeqLenKv, 0);
    args.numHeads = call.Uint(kNumHeads);
    args.rotaryDim = call.Uint(kRotaryDim);
    args.numKvHeads = call.Dim(kKCache, 1);
    args.pageSize = call.Dim(kKCache, 2);
    args.headDim = call.Dim(kKCache, 3);
    args.maxPages = call.Dim(kBlockTable, 1);
    auto* tiling = context->GetTilingData<RopeAppendTilingData>();
    if (!call.ok() || tiling == nullptr) return RefuseCall("rope_append");
    const Status status =
        ComputeRopeAppendTiling(args, LimitsOf(context, CoreKind::kVector), tiling);
    if (!status.ok()) return RefuseTiling("rope_append", status);
    uint64_t key = 0;
    const Status keyed = RopeAppendTilingKey(args.qkvType, args.cacheType, &key);
    if (!keyed.ok()) return RefuseTiling("rope_append", keyed);
    return FinishTiling(context, tiling->numCores, key, 0);
}

// q (T, N, D); the caches are written in place and keep their shapes.
ge::graphStatus InferRopeAppendShape(gert::InferShapeContext* context) {
    const gert::Shape* qkv = context->GetInputShape(kQkv);
    const gert::Shape* kCache = context->GetInputShape(kKCache);
    const gert::Shape* vCache = context->GetInputShape(kVCache);
    const gert::RuntimeAttrs* attrs = context->GetAttrs();
    const int64_t* numHeads = attrs == nullptr ? nullptr : attrs->GetInt(kNumHeads);
    gert::Shape* q = context->GetOutputShape(kQ);
    gert::Shape* kCacheRef = context->GetOutputShape(kKCacheRef);
    gert::Shape* vCacheRef = context->GetOutputShape(kVCacheRef);
    if (qkv == nullptr || kCache == nullptr || vCache == nullptr || numHeads == nullptr ||
        q == nullptr || kCacheRef == nullptr || vCacheRef == nullptr || qkv->GetDimNum() != 2 ||
        kCache->GetDimNum() != 4) {
        return ge::GRAPH_FAILED;
    }
    *q = gert::Shape({qkv->GetDim(0), *numHeads, kCache->GetDim(3)});
    *kCacheRef = *kCache;
    *vCacheRef = *vCache;
    return ge::GRAPH_SUCCESS;
}

ge::graphStatus InferRopeAppendType(gert::InferDataTypeContext* context) {
    if (context->SetOutputDataType(kQ, context->GetInputDataType(kQkv)) != ge::GRAPH_SUCCESS) {
        return ge::GRAPH_FAILED;
    }
    const ge::DataType cacheType = context->GetInputDataType(kKCache);
    if (context->SetOutputDataType(kKCacheRef, cacheType) != ge::GRAPH_SUCCESS) {
        return ge::GRAPH_FAILED;
    }
    return context->SetOutputDataType(kVCacheRef, cacheType);
}

}  // namespace
}  // namespace ascend_ops

namespace ops {

class Glm2RopeAppend : public OpDef {
  public:
    explicit Glm2RopeAppend(const char* name) : OpDef(name) {
        using ascend_ops::Always;
        const std::vector<ge::DataType> types = {ge::DT_FLOAT16, ge::DT_FLOAT, ge::DT_FLOAT,
                                                 ge::DT_BF16, ge::DT_FLOAT};
        const std::vector<ge::DataType> cacheTypes = {ge::DT_FLOAT16, ge::DT_FLOAT16, ge::DT_FLOAT,
                                                      ge::DT_BF16, ge::DT_BF16};
        const std::vector<ge::DataType> floats = Always(ge::DT_FLOAT, types.size());
        const std::vector<ge::DataType> ints = Always(ge::DT_INT32, types.size());
        const std::vector<ge::Format> formats = ascend_ops::PlainFormats(types.size());
        Input("qkv").ParamType(REQUIRED).DataType(types).Format(formats).AutoContiguous();
        Input("cos").ParamType(REQUIRED).DataType(floats).Format(formats).AutoContiguous();
        Input("sin").ParamType(REQUIRED).DataType(floats).Format(formats).AutoContiguous();
        // Input and output of one name are one tensor. A copy of it would lose the append, so no
        // AutoContiguous.
        Input("k_cache").ParamType(REQUIRED).DataType(cacheTypes).Format(formats);
        Input("v_cache").ParamType(REQUIRED).DataType(cacheTypes).Format(formats);
        Input("block_table").ParamType(REQUIRED).DataType(ints).Format(formats).AutoContiguous();
        Input("cu_seqlens_q").ParamType(REQUIRED).DataType(ints).Format(formats).AutoContiguous();
        Input("seq_len_kv").ParamType(REQUIRED).DataType(ints).Format(formats).AutoContiguous();
        Output("q").ParamType(REQUIRED).DataType(types).Format(formats);
        Output("k_cache").ParamType(REQUIRED).DataType(cacheTypes).Format(formats);
        Output("v_cache").ParamType(REQUIRED).DataType(cacheTypes).Format(formats);
        Attr("num_heads").AttrType(REQUIRED).Int();
        Attr("rotary_dim").AttrType(REQUIRED).Int();
        SetInferShape(ascend_ops::InferRopeAppendShape);
        SetInferDataType(ascend_ops::InferRopeAppendType);
        AICore()
            .SetTiling(ascend_ops::TileRopeAppend)
            .AddConfig("ascend910b")
            .AddConfig("ascend910_93");
    }
};
OP_ADD(Glm2RopeAppend);

}  // namespace ops
