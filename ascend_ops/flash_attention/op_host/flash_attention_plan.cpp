// Explains the tiling of FlashAttention.
#include <algorithm>

#include "ascend_ops/tiling_plan.h"
#include "flash_attention/op_host/flash_attention_tiling.h"

namespace ascend_ops {
namespace {

std::vector<PlannedBuffer> BuffersOf(const FlashAttentionTilingData& t, uint64_t cacheBytes) {
    const uint64_t rows = t.blockM / 2;  // of one AIV
    const uint64_t pass = static_cast<uint64_t>(t.vecRows) * std::max(t.blockN, t.headDim);
    const uint64_t q = static_cast<uint64_t>(t.blockM) * t.headDim;
    const uint64_t kv = static_cast<uint64_t>(t.blockN) * t.headDim;
    const uint64_t p = static_cast<uint64_t>(t.blockM) * t.blockN;
    const uint64_t a = static_cast<uint64_t>(t.blockM) * t.l0BlockK;
    const uint64_t b = static_cast<uint64_t>(t.l0BlockN) * t.l0BlockK;
    const uint64_t c = static_cast<uint64_t>(t.blockM) * t.l0BlockN;
    return {
        {"ub", "acc", rows * t.headDim * 4},
        {"ub", "tile", pass * 4},
        {"ub", "probs", pass * cacheBytes},
        {"ub", "fold", t.vecRows * 64u * 4u},
        {"ub", "blocks", t.vecRows * 8u * 4u},
        {"ub", "new_max", rows * 4},
        {"ub", "row_max, row_sum, alpha of each slot", 3 * t.taskSlots * rows * 4},
        {"l1", "q", q * cacheBytes},
        {"l1", "2 x k", 2 * kv * cacheBytes},
        {"l1", "2 x v", 2 * kv * cacheBytes},
        {"l1", "2 x probs", 2 * p * cacheBytes},
        {"l0a", "2 x left operand", 2 * a * cacheBytes},
        {"l0b", "2 x right operand", 2 * b * cacheBytes},
        {"l0c", "2 x product", 2 * c * 4},
    };
}

// As FlashAttentionCombine::Init takes them: eight rows at a time. They are fewer bytes than the
// first step's, and bound no tile.
void AddCombineBuffers(const FlashAttentionTilingData& t, uint64_t outBytes,
                       std::vector<PlannedBuffer>* buffers) {
    constexpr uint64_t kRows = 8;
    const uint64_t elems = kRows * t.headDim;
    const std::vector<PlannedBuffer> added = {
        {"ub_combine", "2 x acc", 2 * elems * 4},
        {"ub_combine", "2 x row_max, row_sum", 2 * 2 * kRows * 4},
        {"ub_combine", "total", elems * 4},
        {"ub_combine", "out", elems * outBytes},
        {"ub_combine", "blocks, lse", 2 * kRows * 8 * 4},
        {"ub_combine", "row_max, row_sum, new_max, alpha", 4 * kRows * 4},
    };
    buffers->insert(buffers->end(), added.begin(), added.end());
}

PlannedSplit SplitOf(const FlashAttentionArgs& args, const FlashAttentionTilingData& t) {
    PlannedSplit split;
    for (uint32_t seq = 0; seq < args.numSeqs; ++seq) {
        const uint32_t parts = CountParts(args, t, seq);
        if (parts == 1) continue;
        split.keysPerPart = t.splitKeys;
        ++split.sequences;
        split.parts += parts;
    }
    split.workspaceBytes = t.workspaceTotal - t.numCores * t.workspaceBytes;
    return split;
}

std::string ReasonOf(const FlashAttentionTilingData& t, uint64_t cacheBytes,
                     const CoreLimits& limits) {
    FlashAttentionTilingData next = t;
    next.blockN *= 2;
    const std::string overflow = WhatOverflows(BuffersOf(next, cacheBytes), limits);
    const std::string rows = "block_m holds " + std::to_string(t.tokensPerBlock) + " tokens x " +
                             std::to_string(t.groupSize) + " heads that share a KV head; ";
    if (overflow.empty()) {
        return rows + "block_n " + std::to_string(t.blockN) + " is the largest that is tried";
    }
    return rows + "with block_n " + std::to_string(next.blockN) + ", " + overflow;
}

}  // namespace

Status PlanFlashAttention(const FlashAttentionArgs& args, const CoreLimits& limits,
                          TilingPlan* plan) {
    uint64_t key = 0;
    const Status keyed = FlashAttentionTilingKey(args.qType, args.cacheType, &key);
    if (!keyed.ok()) return keyed;
    FlashAttentionTilingData t;
    const Status status = ComputeFlashAttentionTiling(args, limits, &t);
    if (!status.ok()) return status;
    plan->tiles = {{"block_m", t.blockM},       {"block_n", t.blockN},
                   {"l0_block_k", t.l0BlockK},  {"l0_block_n", t.l0BlockN},
                   {"vec_rows", t.vecRows},     {"tokens_per_block", t.tokensPerBlock},
                   {"group_size", t.groupSize}, {"tiling_key", key}};
    plan->buffers = BuffersOf(t, SizeOf(args.cacheType));
    plan->split = SplitOf(args, t);
    if (plan->split.sequences > 0) AddCombineBuffers(t, SizeOf(args.qType), &plan->buffers);
    plan->numCores = t.numCores;
    plan->taskSlots = t.taskSlots;
    plan->workspaceBytes = t.workspaceBytes;
    plan->reason = ReasonOf(t, SizeOf(args.cacheType), limits);
    return Status::Ok();
}

}  // namespace ascend_ops
