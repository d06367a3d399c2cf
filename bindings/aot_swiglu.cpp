// swiglu for MindSpore.
#include "aot_common.h"
#include "ascend_ops/swiglu.h"

namespace {

constexpr char kOp[] = "swiglu";

}  // namespace

// x (M, 2 F) -> out (M, F)
extern "C" ASCEND_OPS_API int Glm2Swiglu(int nparam, void** params, int* /*ndims*/,
                                         int64_t** shapes, const char** dtypes, void* /*stream*/,
                                         void* /*extra*/) {
    glm2_aot::CheckCount(kOp, nparam, 2);
    const glm2_aot::Params p = {params, shapes, dtypes};
    ascend_ops::SwigluArgs args;
    args.x = p.In<void>(0);
    args.out = params[1];
    args.type = p.Type(0);
    args.numRows = p.Dim(0, 0);
    args.width = p.Dim(0, 1) / 2;
    return glm2_aot::Run(kOp, &ascend_ops::Swiglu, args);
}

extern "C" ASCEND_OPS_API std::vector<int64_t> Glm2SwigluInferShape(int* ndims, int64_t** shapes,
                                                                    void* /*extra*/) {
    const int64_t columns = glm2_aot::CheckShapes(kOp, ndims, shapes, {{"x", "MC"}})['C'];
    if (columns == glm2_aot::kDynamic) return {shapes[0][0], glm2_aot::kDynamic};
    if (columns == 0 || columns % 2 != 0) {
        glm2_aot::Refuse(kOp, "x has " + std::to_string(columns) +
                                  " columns; expected an even number, gate and value side by side");
    }
    return {shapes[0][0], columns / 2};
}
