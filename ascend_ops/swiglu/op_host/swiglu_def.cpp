// The swiglu operator for CANN: definition, shape inference, tiling entry. Untested on hardware.
#include "common/op_host/op_def_support.h"
#include "swiglu/op_host/swiglu_tiling.h"

namespace ascend_ops {
namespace {

constexpr size_t kX = 0;

ge::graphStatus TileSwiglu(gert::TilingContext* context) {
    TilingCall call(context);
    SwigluArgs args;
    args.type = call.Type(kX);
    args.numRows = call.Dim(kX, 0);
    args.width = call.Dim(kX, 1) / 2;
    auto* tiling = context->GetTilingData<SwigluTilingData>();
    if (!call.ok() || tiling == nullptr) return RefuseCall("swiglu");
    const Status status = ComputeSwigluTiling(args, LimitsOf(context, CoreKind::kVector), tiling);
    if (!status.ok()) return RefuseTiling("swiglu", status);
    return FinishTiling(context, tiling->numCores, SwigluTilingKey(args.type), 0);
}

// (M, 2 F) -> (M, F)
ge::graphStatus InferSwigluShape(gert::InferShapeContext* context) {
    const gert::Shape* x = context->GetInputShape(kX);
    gert::Shape* out = context->GetOutputShape(0);
    if (x == nullptr || out == nullptr || x->GetDimNum() != 2) return ge::GRAPH_FAILED;
    *out = *x;
    if (x->GetDim(1) >= 0) out->SetDim(1, x->GetDim(1) / 2);
    return ge::GRAPH_SUCCESS;
}

ge::graphStatus InferSwigluType(gert::InferDataTypeContext* context) {
    return context->SetOutputDataType(0, context->GetInputDataType(kX));
}

}  // namespace
}  // namespace ascend_ops

namespace ops {

class Glm2Swiglu : public OpDef {
  public:
    explicit Glm2Swiglu(const char* name) : OpDef(name) {
        const std::vector<ge::DataType> types = {ge::DT_FLOAT16, ge::DT_FLOAT, ge::DT_BF16};
        const std::vector<ge::Format> formats = ascend_ops::PlainFormats(types.size());
        Input("x").ParamType(REQUIRED).DataType(types).Format(formats).AutoContiguous();
        Output("out").ParamType(REQUIRED).DataType(types).Format(formats);
        SetInferShape(ascend_ops::InferSwigluShape);
        SetInferDataType(ascend_ops::InferSwigluType);
        AICore()
            .SetTiling(ascend_ops::TileSwiglu)
            .AddConfig("ascend910b")
            .AddConfig("ascend910_93");
    }
};
OP_ADD(Glm2Swiglu);

}  // namespace ops
