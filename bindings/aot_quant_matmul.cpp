// quant_linear for MindSpore: a scale a row or a group, with and without bias and residual. Inputs:
// x, weight, scale, bias, residual, options (3,) int32: bits of the weight, group size, activation
// bits. Output: out.
#include "aot_common.h"
#include "ascend_ops/quant_matmul.h"

namespace {

constexpr char kOp[] = "quant_linear";

struct Form {
    bool groups;
    bool bias;
    bool residual;

    int Inputs() const { return 4 + bias + residual; }
};

ascend_ops::WeightFormat FormatOf(int32_t bits) {
    if (bits == 16) return ascend_ops::WeightFormat::kFloat16;
    return bits == 8 ? ascend_ops::WeightFormat::kInt8 : ascend_ops::WeightFormat::kInt4;
}

int RunQuantMatmul(const glm2_aot::Params& p, const Form& form) {
    const int last = form.Inputs() - 1;
    const int32_t* options = p.In<int32_t>(last);
    ascend_ops::QuantMatmulArgs args;
    args.x = p.In<void>(0);
    args.weight = p.In<void>(1);
    args.scale = p.In<float>(2);
    args.bias = form.bias ? p.In<float>(3) : nullptr;
    args.residual = form.residual ? p.In<void>(last - 1) : nullptr;
    args.out = p.data[last + 1];
    args.type = p.Type(0);
    args.format = FormatOf(options[0]);
    args.groupSize = static_cast<uint32_t>(options[1]);
    args.activationBits = static_cast<uint32_t>(options[2]);
    args.numTokens = p.Dim(0, 0);
    args.inFeatures = p.Dim(0, 1);
    args.outFeatures = p.Dim(2, 0);
    const uint64_t wanted = ascend_ops::PackedBytes(args.format, args.outFeatures, args.inFeatures);
    if (p.Dim(1, 0) != wanted) {
        glm2_aot::Refuse(kOp, "weight has shape (" + std::to_string(p.Dim(1, 0)) +
                                  ",); expected (" + std::to_string(wanted) +
                                  ",), what packed_size gives for this format and these features");
    }
    if (form.groups && uint64_t{p.Dim(2, 1)} * args.groupSize != args.inFeatures) {
        glm2_aot::Refuse(
            kOp, "scale has " + std::to_string(p.Dim(2, 1)) + " columns; expected one for every " +
                     std::to_string(args.groupSize) + " of " + std::to_string(args.inFeatures));
    }
    return glm2_aot::Run(kOp, &ascend_ops::QuantMatmul, args);
}

std::vector<int64_t> InferShape(int* ndims, int64_t** shapes, const Form& form) {
    const char* scale = form.groups ? "NG" : "N";
    glm2_aot::Sizes sizes;
    if (form.bias && form.residual) {
        sizes = glm2_aot::CheckShapes(kOp, ndims, shapes,
                                      {{"x", "MK"},
                                       {"weight", "P"},
                                       {"scale", scale},
                                       {"bias", "N"},
                                       {"residual", "MN"},
                                       {"options", "3"}});
    } else if (form.bias) {
        sizes = glm2_aot::CheckShapes(
            kOp, ndims, shapes,
            {{"x", "MK"}, {"weight", "P"}, {"scale", scale}, {"bias", "N"}, {"options", "3"}});
    } else if (form.residual) {
        sizes = glm2_aot::CheckShapes(
            kOp, ndims, shapes,
            {{"x", "MK"}, {"weight", "P"}, {"scale", scale}, {"residual", "MN"}, {"options", "3"}});
    } else {
        sizes = glm2_aot::CheckShapes(
            kOp, ndims, shapes, {{"x", "MK"}, {"weight", "P"}, {"scale", scale}, {"options", "3"}});
    }
    const int64_t columns = sizes['K'];
    if (columns != glm2_aot::kDynamic && (columns < 1 || columns > ascend_ops::kMaxInFeatures)) {
        glm2_aot::Refuse(kOp, "x has " + std::to_string(columns) +
                                  " columns; quant_linear serves 1 to " +
                                  std::to_string(ascend_ops::kMaxInFeatures));
    }
    return {sizes['M'], sizes['N']};
}

}  // namespace

// The two functions of one form.
#define GLM2_QUANT_MATMUL(Name, groups, bias, residual)                                           \
    extern "C" ASCEND_OPS_API int Name(int nparam, void** params, int*, int64_t** shapes,         \
                                       const char** dtypes, void*, void*) {                       \
        const Form form = {groups, bias, residual};                                               \
        glm2_aot::CheckCount(kOp, nparam, form.Inputs() + 1);                                     \
        return RunQuantMatmul({params, shapes, dtypes}, form);                                    \
    }                                                                                             \
    extern "C" ASCEND_OPS_API std::vector<int64_t> Name##InferShape(int* ndims, int64_t** shapes, \
                                                                    void*) {                      \
        return InferShape(ndims, shapes, {groups, bias, residual});                               \
    }

GLM2_QUANT_MATMUL(Glm2QuantMatmulRows, false, false, false)
GLM2_QUANT_MATMUL(Glm2QuantMatmulRowsBias, false, true, false)
GLM2_QUANT_MATMUL(Glm2QuantMatmulRowsResidual, false, false, true)
GLM2_QUANT_MATMUL(Glm2QuantMatmulRowsBiasResidual, false, true, true)
GLM2_QUANT_MATMUL(Glm2QuantMatmulGroups, true, false, false)
GLM2_QUANT_MATMUL(Glm2QuantMatmulGroupsBias, true, true, false)
GLM2_QUANT_MATMUL(Glm2QuantMatmulGroupsResidual, true, false, true)
GLM2_QUANT_MATMUL(Glm2QuantMatmulGroupsBiasResidual, true, true, true)
