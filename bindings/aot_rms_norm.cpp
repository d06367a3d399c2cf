// rms_norm for MindSpore, with and without a residual.
#include "aot_common.h"
#include "ascend_ops/rms_norm.h"

namespace {

constexpr char kOp[] = "rms_norm";

// x and weight first, eps (1,) float32 last of the inputs; then y, with a residual also total.
int RunRmsNorm(const glm2_aot::Params& p, bool hasResidual) {
    const int epsIndex = hasResidual ? 3 : 2;
    ascend_ops::RmsNormArgs args;
    args.x = p.In<void>(0);
    args.weight = p.In<void>(1);
    args.residual = hasResidual ? p.In<void>(2) : nullptr;
    args.eps = p.In<float>(epsIndex)[0];
    args.y = p.data[epsIndex + 1];
    args.total = hasResidual ? p.data[epsIndex + 2] : nullptr;
    args.type = p.Type(0);
    args.numRows = p.Dim(0, 0);
    args.hiddenSize = p.Dim(0, 1);
    return glm2_aot::Run(kOp, &ascend_ops::RmsNorm, args);
}

void CheckColumns(const glm2_aot::Sizes& sizes) {
    const int64_t columns = sizes['H'];
    if (columns != glm2_aot::kDynamic && (columns < 1 || columns > ascend_ops::kMaxHiddenSize)) {
        glm2_aot::Refuse(kOp, "x has " + std::to_string(columns) +
                                  " columns; rms_norm serves 1 to " +
                                  std::to_string(ascend_ops::kMaxHiddenSize));
    }
}

}  // namespace

// x, weight, eps -> y
extern "C" ASCEND_OPS_API int Glm2RmsNorm(int nparam, void** params, int* /*ndims*/,
                                          int64_t** shapes, const char** dtypes, void* /*stream*/,
                                          void* /*extra*/) {
    glm2_aot::CheckCount(kOp, nparam, 4);
    return RunRmsNorm({params, shapes, dtypes}, false);
}

extern "C" ASCEND_OPS_API std::vector<int64_t> Glm2RmsNormInferShape(int* ndims, int64_t** shapes,
                                                                     void* /*extra*/) {
    CheckColumns(
        glm2_aot::CheckShapes(kOp, ndims, shapes, {{"x", "MH"}, {"weight", "H"}, {"eps", "1"}}));
    return std::vector<int64_t>(shapes[0], shapes[0] + 2);
}

// x, weight, residual, eps -> y, x + residual
extern "C" ASCEND_OPS_API int Glm2RmsNormResidual(int nparam, void** params, int* /*ndims*/,
                                                  int64_t** shapes, const char** dtypes,
                                                  void* /*stream*/, void* /*extra*/) {
    glm2_aot::CheckCount(kOp, nparam, 6);
    return RunRmsNorm({params, shapes, dtypes}, true);
}

extern "C" ASCEND_OPS_API std::vector<std::vector<int64_t>> Glm2RmsNormResidualInferShape(
    int* ndims, int64_t** shapes, void* /*extra*/) {
    CheckColumns(glm2_aot::CheckShapes(
        kOp, ndims, shapes, {{"x", "MH"}, {"weight", "H"}, {"residual", "MH"}, {"eps", "1"}}));
    const std::vector<int64_t> shape(shapes[0], shapes[0] + 2);
    return {shape, shape};
}
