// Host side of FlashAttention: chooses the tiles of one call. No device code.
#ifndef ASCEND_OPS_FLASH_ATTENTION_TILING_H_
#define ASCEND_OPS_FLASH_ATTENTION_TILING_H_

#include <cstdint>

#include "ascend_ops/flash_attention.h"
#include "ascend_ops/status.h"
#include "ascend_ops/types.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"

namespace ascend_ops {

// Picks blockM, blockN and the cube's tiles so that they fit `limits`: the largest blockN first.
// The keys of a sequence are split where its queries have at most 128 rows, token x head of a
// group: at multiples of limits.splitKeys, whatever the number of cores, of sequences and of a
// tile's rows. kInvalidShape: the dimensions contradict one another or leave what the kernel
// serves. kNoFit: even blockN = 64 needs more than a memory of the core holds, or the parts of all
// sequences have more rows than 32 bits count.
Status ComputeFlashAttentionTiling(const FlashAttentionArgs& args, const CoreLimits& limits,
                                   FlashAttentionTilingData* tiling);

// The same where the host knows the shapes alone, and the lengths lie on the device: cores and
// workspace for the most that they can ask for. No sequence has more than `maxSeqLenKv` keys;
// args.cuSeqlensQ and args.seqLenKv are not read, args.prefixLen counts as given where not null.
Status ComputeFlashAttentionTilingOfShapes(const FlashAttentionArgs& args, uint32_t maxSeqLenKv,
                                           const CoreLimits& limits,
                                           FlashAttentionTilingData* tiling);

// Into how many parts that tiling cuts the keys of a sequence; 1: they are not cut.
uint32_t CountParts(const FlashAttentionArgs& args, const FlashAttentionTilingData& tiling,
                    uint32_t seq);

// The kernel's tiling key for these element types; kInvalidShape for a pair that it does not serve.
Status FlashAttentionTilingKey(DataType qType, DataType cacheType, uint64_t* key);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_TILING_H_
