// What an operator's tiling chooses, where its bytes go and why its tiles are not larger: for
// `glm2 doctor --tiling`. Buffers and their sizes are those of the kernels' Init functions.
#ifndef ASCEND_OPS_TILING_PLAN_H_
#define ASCEND_OPS_TILING_PLAN_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "ascend_ops/flash_attention.h"
#include "ascend_ops/flash_attention_grad.h"
#include "ascend_ops/quant_matmul.h"
#include "ascend_ops/rms_norm.h"
#include "ascend_ops/rope_append.h"
#include "ascend_ops/status.h"
#include "ascend_ops/swiglu.h"
#include "ascend_ops/types.h"

namespace ascend_ops {

struct PlannedBuffer {
    std::string memory;  // ub, l1, l0a, l0b or l0c; ub_combine: UB once more, in a later step
    std::string name;
    uint64_t bytes;
};

// Keys that are cut: where, into how many parts of how many sequences, and what the parts take
// behind the workspaces of the cores. No sequences: nothing is cut.
struct PlannedSplit {
    uint32_t keysPerPart = 0;
    uint32_t sequences = 0;
    uint64_t parts = 0;
    uint64_t workspaceBytes = 0;
};

struct TilingPlan {
    std::vector<std::pair<std::string, uint64_t>> tiles;
    std::vector<PlannedBuffer> buffers;
    uint32_t numCores = 0;
    uint32_t taskSlots = 1;       // tasks in flight
    uint64_t workspaceBytes = 0;  // of one core
    PlannedSplit split;
    std::string reason;
};

// Each fills `plan` from the same tiling that a call uses, or returns that tiling's refusal. Of the
// arguments' arrays the offsets alone are read; optional ones count as wanted where not null.
ASCEND_OPS_API Status PlanFlashAttention(const FlashAttentionArgs& args, const CoreLimits& limits,
                                         TilingPlan* plan);
ASCEND_OPS_API Status PlanFlashAttentionGrad(const FlashAttentionGradArgs& args,
                                             const CoreLimits& limits, TilingPlan* plan);
ASCEND_OPS_API Status PlanQuantMatmul(const QuantMatmulArgs& args, const CoreLimits& limits,
                                      TilingPlan* plan);
ASCEND_OPS_API Status PlanRmsNorm(const RmsNormArgs& args, const CoreLimits& limits,
                                  TilingPlan* plan);
ASCEND_OPS_API Status PlanRopeAppend(const RopeAppendArgs& args, const CoreLimits& limits,
                                     TilingPlan* plan);
ASCEND_OPS_API Status PlanSwiglu(const SwigluArgs& args, const CoreLimits& limits,
                                 TilingPlan* plan);

// Bytes of `memory` that the buffers take, and what a core has of it; 0 for a name of none.
ASCEND_OPS_API uint64_t PlannedBytes(const std::vector<PlannedBuffer>& buffers,
                                     const std::string& memory);
ASCEND_OPS_API uint64_t CapacityBytes(const CoreLimits& limits, const std::string& memory);

// "UB needs 204800 bytes, but holds 188416" for each memory that they overflow; else empty.
std::string WhatOverflows(const std::vector<PlannedBuffer>& buffers, const CoreLimits& limits);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_TILING_PLAN_H_
