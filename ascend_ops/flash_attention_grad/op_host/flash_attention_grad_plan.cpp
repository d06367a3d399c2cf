// Explains the tiling of the gradient.
#include <algorithm>

#include "ascend_ops/tiling_plan.h"
#include "flash_attention_grad/op_host/flash_attention_grad_tiling.h"

namespace ascend_ops {
namespace {

// The tilings that are tried, the largest first.
struct Tried {
    uint32_t blockM;
    uint32_t blockN;
    uint32_t vecRows;
};
constexpr Tried kTried[] = {{128, 128, 32}, {128, 128, 16}, {128, 64, 32},
                            {128, 64, 16},  {64, 64, 32},   {64, 64, 16}};

std::vector<PlannedBuffer> BuffersOf(const FlashAttentionGradTilingData& t, uint64_t typeBytes) {
    const uint64_t pass = static_cast<uint64_t>(t.vecRows) * std::max(t.blockN, t.headDim);
    const uint64_t q = static_cast<uint64_t>(t.blockM) * t.headDim * typeBytes;
    const uint64_t kv = static_cast<uint64_t>(t.blockN) * t.headDim;
    const uint64_t square = static_cast<uint64_t>(t.blockM) * t.blockN * typeBytes;
    const uint64_t rows = std::max(t.blockM, t.blockN);
    std::vector<PlannedBuffer> buffers = {
        {"ub", "dv, dk of this AIV", 2 * (kv / 2) * 4},
        {"ub", "2 x two tiles", 4 * pass * 4},
        {"ub", "2 x lse, delta", 4 * t.vecRows * 4u},
        {"ub", "fold", t.vecRows * 64u * 4u},
        {"ub", "blocks", t.vecRows * 8u * 4u},
        {"l1", "k, v of stage one", 2 * kv * typeBytes},
        {"l1", "q, do of stage one", 2 * q},
        {"l1", "probs, dscores", 2 * square},
        {"l0a", "2 x left operand", 2 * rows * t.l0BlockK * typeBytes},
        {"l0b", "2 x right operand", 2ull * t.l0BlockN * t.l0BlockK * typeBytes},
        {"l0c", "2 x product", 2 * rows * t.l0BlockN * 4},
    };
    if (typeBytes == 2) buffers.push_back({"ub", "2 x two rounded tiles", 4 * pass * typeBytes});
    if (t.taskSlots > 1) buffers.push_back({"l1", "k, q, do of stage two", kv * typeBytes + 2 * q});
    return buffers;
}

std::string NameOf(const Tried& tried) {
    return "block_m " + std::to_string(tried.blockM) + ", block_n " + std::to_string(tried.blockN) +
           ", vec_rows " + std::to_string(tried.vecRows);
}

std::string ReasonOf(const FlashAttentionGradTilingData& t, uint64_t typeBytes,
                     const CoreLimits& limits) {
    const Tried* larger = nullptr;
    for (const Tried& tried : kTried) {
        if (tried.blockM == t.blockM && tried.blockN == t.blockN && tried.vecRows == t.vecRows) {
            break;
        }
        larger = &tried;
    }
    if (larger == nullptr) return NameOf(kTried[0]) + " are the largest that are tried";
    FlashAttentionGradTilingData next = t;
    next.blockM = larger->blockM;
    next.blockN = larger->blockN;
    next.vecRows = larger->vecRows;
    return "with " + NameOf(*larger) + ", " + WhatOverflows(BuffersOf(next, typeBytes), limits);
}

}  // namespace

Status PlanFlashAttentionGrad(const FlashAttentionGradArgs& args, const CoreLimits& limits,
                              TilingPlan* plan) {
    FlashAttentionGradTilingData t;
    const Status status = ComputeFlashAttentionGradTiling(args, limits, &t);
    if (!status.ok()) return status;
    plan->tiles = {{"block_m", t.blockM},
                   {"block_n", t.blockN},
                   {"l0_block_k", t.l0BlockK},
                   {"l0_block_n", t.l0BlockN},
                   {"vec_rows", t.vecRows},
                   {"group_size", t.groupSize},
                   {"tiling_key", FlashAttentionGradTilingKey(args.type)}};
    plan->buffers = BuffersOf(t, SizeOf(args.type));
    plan->numCores = t.numCores;
    plan->taskSlots = t.taskSlots;
    plan->workspaceBytes = t.workspaceBytes;
    plan->reason = ReasonOf(t, SizeOf(args.type), limits);
    return Status::Ok();
}

}  // namespace ascend_ops
