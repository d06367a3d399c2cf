// Host side of rope_append: splits the tokens over vector cores and the heads over passes.
#ifndef ASCEND_OPS_ROPE_APPEND_TILING_H_
#define ASCEND_OPS_ROPE_APPEND_TILING_H_

#include <cstdint>

#include "ascend_ops/rope_append.h"
#include "ascend_ops/status.h"
#include "ascend_ops/types.h"
#include "rope_append/op_kernel/rope_append_tiling_data.h"

namespace ascend_ops {

// Picks headsPerPass so that one pass fits UB.
// kInvalidShape: the dimensions leave what the kernel serves. kNoFit: not even one head fits.
Status ComputeRopeAppendTiling(const RopeAppendArgs& args, const CoreLimits& limits,
                               RopeAppendTilingData* tiling);

// The kernel's tiling key for these element types; kInvalidShape for a pair that it does not serve.
Status RopeAppendTilingKey(DataType qkvType, DataType cacheType, uint64_t* key);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_ROPE_APPEND_TILING_H_
