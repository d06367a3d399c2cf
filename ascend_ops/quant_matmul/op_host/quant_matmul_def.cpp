// The quant_matmul operator for CANN: definition, shape inference, tiling entry. Untested on
// hardware.
#include "common/op_host/op_def_support.h"
#include "quant_matmul/op_host/quant_matmul_tiling.h"

namespace ascend_ops {
namespace {

constexpr size_t kX = 0;
constexpr size_t kScale = 2;
constexpr size_t kBias = 3;
constexpr size_t kResidual = 4;
constexpr size_t kWeightBits = 0;
constexpr size_t kGroupSize = 1;
constexpr size_t kActivationBits = 2;
constexpr size_t kOut = 0;

WeightFormat FormatOf(uint32_t bits) {
    if (bits == 16) return WeightFormat::kFloat16;
    return bits == 8 ? WeightFormat::kInt8 : WeightFormat::kInt4;
}

ge::graphStatus TileQuantMatmul(gert::TilingContext* context) {
    TilingCall call(context);
    float present = 0.0f;  // the tiling asks which arrays there are, and reads none
    QuantMatmulArgs args;
    args.type = call.Type(kX);
    args.format = FormatOf(call.Uint(kWeightBits));
    args.numTokens = call.Dim(kX, 0);
    args.inFeatures = call.Dim(kX, 1);
    args.outFeatures = call.Dim(kScale, 0);
    args.groupSize = call.Uint(kGroupSize);
    args.activationBits = call.Uint(kActivationBits);
    args.bias = call.HasInput(kBias) ? &present : nullptr;
    args.residual = call.HasInput(kResidual) ? &present : nullptr;
    auto* tiling = context->GetTilingData<QuantMatmulTilingData>();
    if (!call.ok() || tiling == nullptr) return RefuseCall("quant_matmul");
    const Status status = ComputeQuantMatmulTiling(args, LimitsOf(context, CoreKind::kMix), tiling);
    if (!status.ok()) return RefuseTiling("quant_matmul", status);
    // Tokens that cores share are waited for in SyncAll.
    const Start start = tiling->sharedTokens != 0 ? Start::kAllCoresAtOnce : Start::kCoreByCore;
    return FinishTiling(context, tiling->numCores, QuantMatmulTilingKey(args),
                        tiling->workspaceTotal, start);
}

// out (M, N) from x (M, K) and scale (N) or (N, K / group)
ge::graphStatus InferQuantMatmulShape(gert::InferShapeContext* context) {
    const gert::Shape* x = context->GetInputShape(kX);
    const gert::Shape* scale = context->GetInputShape(kScale);
    gert::Shape* out = context->GetOutputShape(kOut);
    if (x == nullptr || scale == nullptr || out == nullptr) return ge::GRAPH_FAILED;
    *out = *x;
    out->SetDim(1, scale->GetDim(0));
    return ge::GRAPH_SUCCESS;
}

ge::graphStatus InferQuantMatmulType(gert::InferDataTypeContext* context) {
    return context->SetOutputDataType(kOut, context->GetInputDataType(kX));
}

}  // namespace
}  // namespace ascend_ops

namespace ops {

class Glm2QuantMatmul : public OpDef {
  public:
    explicit Glm2QuantMatmul(const char* name) : OpDef(name) {
        const std::vector<ge::DataType> types = {ge::DT_FLOAT16, ge::DT_FLOAT, ge::DT_BF16};
        const std::vector<ge::DataType> floats = ascend_ops::Always(ge::DT_FLOAT, types.size());
        const std::vector<ge::DataType> bytes = ascend_ops::Always(ge::DT_UINT8, types.size());
        const std::vector<ge::Format> formats = ascend_ops::PlainFormats(types.size());
        Input("x").ParamType(REQUIRED).DataType(types).Format(formats).AutoContiguous();
        Input("weight").ParamType(REQUIRED).DataType(bytes).Format(formats).AutoContiguous();
        Input("scale").ParamType(REQUIRED).DataType(floats).Format(formats).AutoContiguous();
        Input("bias").ParamType(OPTIONAL).DataType(floats).Format(formats).AutoContiguous();
        Input("residual").ParamType(OPTIONAL).DataType(types).Format(formats).AutoContiguous();
        Output("out").ParamType(REQUIRED).DataType(types).Format(formats);
        Attr("weight_bits").AttrType(REQUIRED).Int();
        Attr("group_size").AttrType(REQUIRED).Int();
        Attr("activation_bits").AttrType(REQUIRED).Int();
        SetInferShape(ascend_ops::InferQuantMatmulShape);
        SetInferDataType(ascend_ops::InferQuantMatmulType);
        AICore()
            .SetTiling(ascend_ops::TileQuantMatmul)
            .AddConfig("ascend910b")
            .AddConfig("ascend910_93");
    }
};
OP_ADD(Glm2QuantMatmul);

}  // namespace ops
