// Host side of swiglu: cuts the output into tiles and deals them to vector cores.
#ifndef ASCEND_OPS_SWIGLU_TILING_H_
#define ASCEND_OPS_SWIGLU_TILING_H_

#include <cstdint>

#include "ascend_ops/status.h"
#include "ascend_ops/swiglu.h"
#include "ascend_ops/types.h"
#include "swiglu/op_kernel/swiglu_tiling_data.h"

namespace ascend_ops {

// Tiles of 16 KB a half of x, smaller where UB is short or there are more cores than such tiles.
// kInvalidShape: width is 0. kNoFit: UB does not hold the smallest tile.
Status ComputeSwigluTiling(const SwigluArgs& args, const CoreLimits& limits,
                           SwigluTilingData* tiling);

// The kernel's tiling key for this element type.
uint64_t SwigluTilingKey(DataType type);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_SWIGLU_TILING_H_
