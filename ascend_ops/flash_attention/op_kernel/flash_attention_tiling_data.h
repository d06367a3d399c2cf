// What the host tells the kernel: one plain structure, the same on both targets.
#ifndef ASCEND_OPS_FLASH_ATTENTION_TILING_DATA_H_
#define ASCEND_OPS_FLASH_ATTENTION_TILING_DATA_H_

#include <cstdint>

namespace ascend_ops {

// Most slots of S, P and O in the workspace: AIC runs two tasks ahead of AIV where both run at
// once.
constexpr uint32_t kMaxTaskSlots = 3;

// Tiling keys: the element types of (q and o, K/V cache).
constexpr uint64_t kKeyHalfHalf = 0;
constexpr uint64_t kKeyFloatHalf = 1;
constexpr uint64_t kKeyFloatFloat = 2;
constexpr uint64_t kKeyBfloat16Bfloat16 = 3;
constexpr uint64_t kKeyFloatBfloat16 = 4;

struct FlashAttentionTilingData {
    // The problem.
    uint32_t numSeqs;
    uint32_t numHeads;
    uint32_t numKvHeads;
    uint32_t groupSize;
    uint32_t headDim;
    uint32_t paged;  // else K and V are contiguous
    uint32_t pageSize;
    uint32_t maxPages;    // columns of block_table
    uint32_t kvRowPitch;  // elements from one token of a group to the next
    uint32_t causal;
    uint32_t window;  // 0: none
    uint32_t hasPrefix;
    uint32_t returnLse;
    float scale;
    // The tiles.
    uint32_t numCores;
    uint32_t tokensPerBlock;  // query tokens of one Q tile; its rows are token x head of one group
    uint32_t splitTokens;     // of a sequence whose keys are split, at most; no more than those
    uint32_t blockM;          // rows of that tile, a multiple of 16
    uint32_t blockN;          // rows of one K/V tile, a multiple of 64
    uint32_t l0BlockK;        // depth of one Mmad
    uint32_t l0BlockN;        // columns of one Mmad
    uint32_t vecRows;         // rows of one vector pass
    uint32_t taskSlots;       // tasks in flight: kMaxTaskSlots, or 1 where AIC and AIV take turns
    uint32_t splitKeys;       // keys of a part of such a sequence; 0: never split
    uint32_t partRows;        // rows of all parts of all sequences; 0: none is split
    // Workspace of one core, bytes from its start; S, P and O have taskSlots slots each.
    uint64_t workspaceQ;
    uint64_t workspaceS;
    uint64_t workspaceP;
    uint64_t workspaceO;
    uint64_t workspaceBytes;
    // Behind the cores' workspaces, bytes from the start of the first: acc (partRows, headDim), and
    // row_max and row_sum (partRows) of all parts.
    uint64_t workspacePartAcc;
    uint64_t workspacePartMax;
    uint64_t workspacePartSum;
    uint64_t workspaceTotal;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_TILING_DATA_H_
