// RMSNorm over rows, with or without the residual addition before it.
#ifndef ASCEND_OPS_RMS_NORM_H_
#define ASCEND_OPS_RMS_NORM_H_

#include <cstdint>

#include "ascend_ops/status.h"
#include "ascend_ops/types.h"

namespace ascend_ops {

// One row and its residual fit UB up to here, whatever the type.
constexpr uint32_t kMaxHiddenSize = 11264;

// M rows of H elements of `type`. All arrays are C-contiguous.
struct RmsNormArgs {
    const void* x = nullptr;         // (M, H)
    const void* weight = nullptr;    // (H,)
    const void* residual = nullptr;  // (M, H); null: none
    void* y = nullptr;               // (M, H)
    void* total = nullptr;           // (M, H): x + residual; null where residual is
    DataType type = DataType::kFloat32;
    uint32_t numRows = 0;
    uint32_t hiddenSize = 0;
    float eps = 0.0f;
};

// Fills y = weight * h / sqrt(mean(h^2) + eps) with h = x, or h = total = x + residual.
ASCEND_OPS_API Status RmsNorm(const RmsNormArgs& args);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_RMS_NORM_H_
