// SwiGLU over rows: silu of the first half times the second half.
#ifndef ASCEND_OPS_SWIGLU_H_
#define ASCEND_OPS_SWIGLU_H_

#include <cstdint>

#include "ascend_ops/status.h"
#include "ascend_ops/types.h"

namespace ascend_ops {

// M rows of `type`; F = width. All arrays are C-contiguous.
struct SwigluArgs {
    const void* x = nullptr;  // (M, 2 F): gate, then value
    void* out = nullptr;      // (M, F)
    DataType type = DataType::kFloat32;
    uint32_t numRows = 0;
    uint32_t width = 0;
};

// Fills out = gate / (1 + exp(-gate)) * value, in float, rounded once.
ASCEND_OPS_API Status Swiglu(const SwigluArgs& args);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_SWIGLU_H_
