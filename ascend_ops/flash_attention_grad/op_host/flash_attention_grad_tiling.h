// Host side of the gradient of attention: chooses the tiles of one call. No device code.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_TILING_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_TILING_H_

#include <cstdint>

#include "ascend_ops/flash_attention_grad.h"
#include "ascend_ops/status.h"
#include "ascend_ops/types.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"

namespace ascend_ops {

// Picks blockM, blockN and the cube's tiles so that they fit `limits`: the largest first.
// kInvalidShape: the dimensions contradict one another or leave what the kernel serves.
// kNoFit: even tiles of 64 x 64 need more than a memory of the core holds.
Status ComputeFlashAttentionGradTiling(const FlashAttentionGradArgs& args, const CoreLimits& limits,
                                       FlashAttentionGradTilingData* tiling);

// The kernel's tiling key for this element type.
uint64_t FlashAttentionGradTilingKey(DataType type);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_TILING_H_
