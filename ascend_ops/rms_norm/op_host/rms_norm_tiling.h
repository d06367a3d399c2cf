// Host side of rms_norm: splits the rows over vector cores and tiles.
#ifndef ASCEND_OPS_RMS_NORM_TILING_H_
#define ASCEND_OPS_RMS_NORM_TILING_H_

#include <cstdint>

#include "ascend_ops/rms_norm.h"
#include "ascend_ops/status.h"
#include "ascend_ops/types.h"
#include "rms_norm/op_kernel/rms_norm_tiling_data.h"

namespace ascend_ops {

// Picks rowsPerTile for bursts of 16 KB, fewer where UB is short, then one buffer instead of two.
// kInvalidShape: hiddenSize is not 1 to kMaxHiddenSize, or residual and total do not come together.
// kNoFit: not even one row in one buffer fits.
Status ComputeRmsNormTiling(const RmsNormArgs& args, const CoreLimits& limits,
                            RmsNormTilingData* tiling);

// The kernel's tiling key for this element type.
uint64_t RmsNormTilingKey(DataType type, bool hasResidual);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_RMS_NORM_TILING_H_
