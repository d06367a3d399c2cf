// Explains the tiling of rope_append.
#include <algorithm>

#include "ascend_ops/tiling_plan.h"
#include "rope_append/op_host/rope_append_tiling.h"

namespace ascend_ops {
namespace {

// As the tiling counts: four bytes an element whatever the type, and eight spare a row of angles.
std::vector<PlannedBuffer> BuffersOf(const RopeAppendTilingData& t) {
    const uint64_t heads = static_cast<uint64_t>(t.headsPerPass) * t.headDim * 4;
    return {
        {"ub", "heads as read", heads},
        {"ub", "heads in float32", heads},
        {"ub", "heads to write", heads},
        {"ub", "heads, pairs swapped", static_cast<uint64_t>(t.headsPerPass) * t.rotaryDim * 4},
        {"ub", "angles, signs, offsets", 7ull * (t.rotaryDim + 8) * 4},
    };
}

std::string ReasonOf(const RopeAppendTilingData& t, const CoreLimits& limits) {
    if (t.headsPerPass >= std::max(t.numHeads, t.numKvHeads)) return "one pass holds all heads";
    RopeAppendTilingData next = t;
    ++next.headsPerPass;
    const std::string overflow = WhatOverflows(BuffersOf(next), limits);
    if (overflow.empty()) {
        return "heads_per_pass " + std::to_string(t.headsPerPass) + " is the largest that is tried";
    }
    return "with heads_per_pass " + std::to_string(next.headsPerPass) + ", " + overflow;
}

}  // namespace

Status PlanRopeAppend(const RopeAppendArgs& args, const CoreLimits& limits, TilingPlan* plan) {
    uint64_t key = 0;
    const Status keyed = RopeAppendTilingKey(args.qkvType, args.cacheType, &key);
    if (!keyed.ok()) return keyed;
    RopeAppendTilingData t;
    const Status status = ComputeRopeAppendTiling(args, limits, &t);
    if (!status.ok()) return status;
    plan->tiles = {{"heads_per_pass", t.headsPerPass}, {"tiling_key", key}};
    plan->buffers = BuffersOf(t);
    plan->numCores = t.numCores;
    plan->reason = ReasonOf(t, limits);
    return Status::Ok();
}

}  // namespace ascend_ops
