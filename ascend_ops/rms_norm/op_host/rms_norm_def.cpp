// The rms_norm operator for CANN: definition, shape inference, tiling entry. Untested on hardware.
#include "common/op_host/op_def_support.h"
#include "rms_norm/op_host/rms_norm_tiling.h"

namespace ascend_ops {
namespace {

constexpr size_t kX = 0;
constexpr size_t kResidual = 2;
constexpr size_t kEps = 0;
constexpr size_t kY = 0;
constexpr size_t kTotal = 1;

ge::graphStatus TileRmsNorm(gert::TilingContext* context) {
    TilingCall call(context);
    const bool hasResidual = call.HasInput(kResidual);
    float present = 0.0f;  // the tiling asks which arrays there are, and reads none
    RmsNormArgs args;
    args.type = call.Type(kX);
    args.numRows = call.Dim(kX, 0);
    args.hiddenSize = call.Dim(kX, 1);
    args.eps = call.Float(kEps);
    args.residual = hasResidual ? &present : nullptr;
    args.total = hasResidual ? &present : nullptr;
    auto* tiling = context->GetTilingData<RmsNormTilingData>();
    if (!call.ok() || tiling == nullptr) return RefuseCall("rms_norm");
    const Status status = ComputeRmsNormTiling(args, LimitsOf(context, CoreKind::kVector), tiling);
    if (!status.ok()) return RefuseTiling("rms_norm", status);
    return FinishTiling(context, tiling->numCores, RmsNormTilingKey(args.type, hasResidual), 0);
}

// y like x; total like x, or empty where there is no residual.
ge::graphStatus InferRmsNormShape(gert::InferShapeContext* context) {
    const gert::Shape* x = context->GetInputShape(kX);
    gert::Shape* y = context->GetOutputShape(kY);
    gert::Shape* total = context->GetOutputShape(kTotal);
    if (x == nullptr || y == nullptr || total == nullptr) return ge::GRAPH_FAILED;
    *y = *x;
    *total = context->GetOptionalInputShape(kResidual) != nullptr ? *x : gert::Shape({0});
    return ge::GRAPH_SUCCESS;
}

ge::graphStatus InferRmsNormType(gert::InferDataTypeContext* context) {
    const ge::DataType type = context->GetInputDataType(kX);
    if (context->SetOutputDataType(kY, type) != ge::GRAPH_SUCCESS) return ge::GRAPH_FAILED;
    return context->SetOutputDataType(kTotal, type);
}

}  // namespace
}  // namespace ascend_ops

namespace ops {

class Glm2RmsNorm : public OpDef {
  public:
    explicit Glm2RmsNorm(const char* name) : OpDef(name) {
        const std::vector<ge::DataType> types = {ge::DT_FLOAT16, ge::DT_FLOAT, ge::DT_BF16};
        const std::vector<ge::Format> formats = ascend_ops::PlainFormats(types.size());
        Input("x").ParamType(REQUIRED).DataType(types).Format(formats).AutoContiguous();
        Input("weight").ParamType(REQUIRED).DataType(types).Format(formats).AutoContiguous();
        Input("residual").ParamType(OPTIONAL).DataType(types).Format(formats).AutoContiguous();
        Output("y").ParamType(REQUIRED).DataType(types).Format(formats);
        Output("total").ParamType(REQUIRED).DataType(types).Format(formats);
        Attr("eps").AttrType(REQUIRED).Float();
        SetInferShape(ascend_ops::InferRmsNormShape);
        SetInferDataType(ascend_ops::InferRmsNormType);
        AICore()
            .SetTiling(ascend_ops::TileRmsNorm)
            .AddConfig("ascend910b")
            .AddConfig("ascend910_93");
    }
};
OP_ADD(Glm2RmsNorm);

}  // namespace ops
