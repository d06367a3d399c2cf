// The flash_attention_grad operator for CANN: definition, shape inference, tiling entry. Untested
// on hardware.
//
// As in flash_attention, offsets are tensors on the device and the tiling does not see their
// values. The workspace has room for the longest sequence, so its length comes as an attribute.
#include "common/op_host/op_def_support.h"
#include "flash_attention_grad/op_host/flash_attention_grad_tiling.h"

namespace ascend_ops {
namespace {

constexpr size_t kQ = 1;
constexpr size_t kK = 2;
constexpr size_t kCuSeqlensQ = 6;
constexpr size_t kPrefixLen = 8;
constexpr size_t kScale = 0;
constexpr size_t kCausal = 1;
constexpr size_t kWindow = 2;
constexpr size_t kMaxSeqLenQ = 3;

// Offsets of the worst case: one sequence is as long as any, and each has a key to work on.
struct WorstCase {
    std::vector<int32_t> cuSeqlensQ;
    std::vector<int32_t> cuSeqlensKv;
};

WorstCase WorstCaseOf(uint32_t numSeqs, uint32_t longest) {
    WorstCase offsets;
    for (uint32_t seq = 0; seq <= numSeqs; ++seq) {
        offsets.cuSeqlensQ.push_back(seq == 0 ? 0 : static_cast<int32_t>(longest));
        offsets.cuSeqlensKv.push_back(static_cast<int32_t>(seq));
    }
    return offsets;
}

ge::graphStatus TileFlashAttentionGrad(gert::TilingContext* context) {
    TilingCall call(context);
    FlashAttentionGradArgs args;
    args.type = call.Type(kQ);
    args.numHeads = call.Dim(kQ, 1);
    args.headDim = call.Dim(kQ, 2);
    args.numKvHeads = call.Dim(kK, 1);
    args.scale = call.Float(kScale);
    args.causal = call.Bool(kCausal);
    args.window = call.Uint(kWindow);
    const uint32_t numTokens = call.Dim(kQ, 0);
    const uint32_t maxSeqLenQ = call.Uint(kMaxSeqLenQ);
    const uint32_t numOffsets = call.Dim(kCuSeqlensQ, 0);
    auto* tiling = context->GetTilingData<FlashAttentionGradTilingData>();
    if (!call.ok() || tiling == nullptr || numOffsets == 0) {
        return RefuseCall("flash_attention_grad");
    }
    args.numSeqs = numOffsets - 1;
    const WorstCase offsets =
        WorstCaseOf(args.numSeqs, maxSeqLenQ == 0 ? numTokens : std::min(maxSeqLenQ, numTokens));
    args.cuSeqlensQ = offsets.cuSeqlensQ.data();
    args.cuSeqlensKv = offsets.cuSeqlensKv.data();
    args.prefixLen = call.HasInput(kPrefixLen) ? offsets.cuSeqlensKv.data() : nullptr;
    const Status status =
        ComputeFlashAttentionGradTiling(args, LimitsOf(context, CoreKind::kMix), tiling);
    if (!status.ok()) return RefuseTiling("flash_attention_grad", status);
    return FinishTiling(context, tiling->numCores, FlashAttentionGradTilingKey(args.type),
                        tiling->workspaceBytes * tiling->numCores);
}

// dq like q; dk and dv like k.
ge::graphStatus InferFlashAttentionGradShape(gert::InferShapeContext* context) {
    for (size_t output = 0; output < 3; ++output) {
        const gert::Shape* like = context->GetInputShape(output == 0 ? kQ : kK);
        gert::Shape* shape = context->GetOutputShape(output);
        if (like == nullptr || shape == nullptr) return ge::GRAPH_FAILED;
        *shape = *like;
    }
    return ge::GRAPH_SUCCESS;
}

ge::graphStatus InferFlashAttentionGradType(gert::InferDataTypeContext* context) {
    for (size_t output = 0; output < 3; ++output) {
        if (context->SetOutputDataType(output, context->GetInputDataType(kQ)) !=
            ge::GRAPH_SUCCESS) {
            return ge::GRAPH_FAILED;
        }
    }
    return ge::GRAPH_SUCCESS;
}

}  // namespace
}  // namespace ascend_ops

namespace ops {

class Glm2FlashAttentionGrad : public OpDef {
  public:
    explicit Glm2FlashAttentionGrad(const char* name) : OpDef(name) {
        using ascend_ops::Always;
        const std::vector<ge::DataType> types = {ge::DT_FLOAT16, ge::DT_FLOAT, ge::DT_BF16};
        const std::vector<ge::DataType> floats = Always(ge::DT_FLOAT, types.size());
        const std::vector<ge::DataType> ints = Always(ge::DT_INT32, types.size());
        const std::vector<ge::Format> formats = ascend_ops::PlainFormats(types.size());
        for (const char* input : {"d_o", "q", "k", "v", "o"}) {
            Input(input).ParamType(REQUIRED).DataType(types).Format(formats).AutoContiguous();
        }
        Input("lse").ParamType(REQUIRED).DataType(floats).Format(formats).AutoContiguous();
        Input("cu_seqlens_q").ParamType(REQUIRED).DataType(ints).Format(formats).AutoContiguous();
        Input("cu_seqlens_kv").ParamType(REQUIRED).DataType(ints).Format(formats).AutoContiguous();
        Input("prefix_len").ParamType(OPTIONAL).DataType(ints).Format(formats).AutoContiguous();
        for (const char* output : {"dq", "dk", "dv"}) {
            Output(output).ParamType(REQUIRED).DataType(types).Format(formats);
        }
        Attr("scale").AttrType(REQUIRED).Float();
        Attr("causal").AttrType(OPTIONAL).Bool(true);
        Attr("window").AttrType(OPTIONAL).Int(0);
        Attr("max_seq_len_q").AttrType(OPTIONAL).Int(0);  // 0: not known, all tokens may be one
        SetInferShape(ascend_ops::InferFlashAttentionGradShape);
        SetInferDataType(ascend_ops::InferFlashAttentionGradType);
        AICore()
            .SetTiling(ascend_ops::TileFlashAttentionGrad)
            .AddConfig("ascend910b")
            .AddConfig("ascend910_93");
    }
};
OP_ADD(Glm2FlashAttentionGrad);

}  // namespace ops
