// What the host tells the kernel: one plain structure, the same on both targets.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_TILING_DATA_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_TILING_DATA_H_

#include <cstdint>

namespace ascend_ops {

// Most slots of a task's tiles in the workspace: AIC runs two tasks ahead of AIV where both run at
// once.
constexpr uint32_t kMaxGradSlots = 3;

// Tiling keys: the element type of every tensor but lse.
constexpr uint64_t kGradKeyHalf = 0;
constexpr uint64_t kGradKeyFloat = 1;
constexpr uint64_t kGradKeyBfloat16 = 2;

struct FlashAttentionGradTilingData {
    // The problem.
    uint32_t numSeqs;
    uint32_t numHeads;
    uint32_t numKvHeads;
    uint32_t groupSize;
    uint32_t headDim;
    uint32_t causal;
    uint32_t window;  // 0: none
    uint32_t hasPrefix;
    float scale;
    // The tiles.
    uint32_t numCores;
    uint32_t blockM;     // rows (token x head of one group) of a Q tile, a multiple of 16
    uint32_t blockN;     // rows of a K/V tile, a multiple of 64
    uint32_t l0BlockK;   // depth of one Mmad
    uint32_t l0BlockN;   // columns of one Mmad
    uint32_t vecRows;    // rows of one vector pass
    uint32_t taskSlots;  // tasks in flight: kMaxGradSlots, or 1 where AIC and AIV take turns
    // Workspace of one core, bytes from its start. These have taskSlots slots each:
    uint64_t workspaceS;
    uint64_t workspaceDp;
    uint64_t workspaceP;
    uint64_t workspaceDs;
    uint64_t workspaceDvPart;
    uint64_t workspaceDkPart;
    uint64_t workspaceDqPart;
    // And these hold every Q tile of the longest sequence:
    uint64_t workspaceDq;
    uint64_t workspaceLse;
    uint64_t workspaceDelta;
    uint64_t workspaceBytes;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_TILING_DATA_H_
