// What the host tells the rope_append kernel: one plain structure, the same on both targets.
#ifndef ASCEND_OPS_ROPE_APPEND_TILING_DATA_H_
#define ASCEND_OPS_ROPE_APPEND_TILING_DATA_H_

#include <cstdint>

namespace ascend_ops {

// Tiling keys: the element types of (qkv and q, K/V cache).
constexpr uint64_t kRopeKeyHalfHalf = 0;
constexpr uint64_t kRopeKeyFloatHalf = 1;
constexpr uint64_t kRopeKeyFloatFloat = 2;
constexpr uint64_t kRopeKeyBfloat16Bfloat16 = 3;
constexpr uint64_t kRopeKeyFloatBfloat16 = 4;

struct RopeAppendTilingData {
    uint32_t numTokens;
    uint32_t numSeqs;
    uint32_t numHeads;
    uint32_t numKvHeads;
    uint32_t headDim;
    uint32_t rotaryDim;
    uint32_t pageSize;
    uint32_t maxPages;      // columns of block_table
    uint32_t numCores;      // vector cores; each takes a range of tokens
    uint32_t headsPerPass;  // heads of one token that UB holds at a time
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_ROPE_APPEND_TILING_DATA_H_
