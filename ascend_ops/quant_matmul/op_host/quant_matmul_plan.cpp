// Explains the tiling of quant_matmul.
#include "ascend_ops/tiling_plan.h"
#include "quant_matmul/op_host/quant_matmul_tiling.h"

namespace ascend_ops {
namespace {

constexpr const char* kRouteNames[] = {"float16 weights as they are",
                                       "int8 weights and int8 tokens",
                                       "int4 weights and tokens as two int4 digits",
                                       "int4 weights cast to int8, int8 tokens",
                                       "int8 weights cast to half",
                                       "int4 weights cast to half",
                                       "int4 weights times their groups' scales, as half"};

std::vector<PlannedBuffer> BuffersOf(const QuantMatmulTilingData& t, uint64_t route,
                                     DataType type) {
    const QuantMatmulBytes bytes = QuantMatmulBytesOf(t, route, type);
    std::vector<PlannedBuffer> buffers;
    const auto add = [&buffers](const char* memory, const char* name, uint64_t size) {
        if (size > 0) buffers.push_back({memory, name, size});
    };
    // Tokens and what follows take turns in UB: the larger one counts.
    if (bytes.tokensUb > bytes.widenUb + bytes.outputUb) {
        add("ub", "a token being quantised", bytes.tokensUb);
    } else {
        add("ub", "weights being widened", bytes.widenUb);
        add("ub", "sums, scales, out", bytes.outputUb);
    }
    add("l1", "2 x tokens and weights", bytes.l1);
    add("l0a", "2 x tokens", bytes.l0a);
    add("l0b", "2 x weights", bytes.l0b);
    add("l0c", "2 x sums", bytes.l0c);
    return buffers;
}

std::string ReasonOf(const QuantMatmulTilingData& t, uint64_t route, DataType type,
                     const CoreLimits& limits) {
    std::string why = kRouteNames[route];
    if (t.serialOutput != 0) {
        return why + "; rows of out end inside a block of 32 bytes, so one AIV writes them all";
    }
    QuantMatmulTilingData next = t;
    next.stripesPerTile = 2 * t.stripesPerTile;
    const std::string overflow = WhatOverflows(BuffersOf(next, route, type), limits);
    if (!overflow.empty()) why += "; with twice the columns, " + overflow;
    return why;
}

}  // namespace

Status PlanQuantMatmul(const QuantMatmulArgs& args, const CoreLimits& limits, TilingPlan* plan) {
    QuantMatmulTilingData t;
    const Status status = ComputeQuantMatmulTiling(args, limits, &t);
    if (!status.ok()) return status;
    const uint64_t route = QuantMatmulRoute(args);
    plan->tiles = {{"tokens_per_tile", t.tokensPerTile},
                   {"columns_per_tile", t.stripesPerTile * kStripeRows},
                   {"tiles_per_core", t.tilesPerCore},
                   {"chunk_fractals", t.chunkFractals},
                   {"step_fractals", t.stepFractals},
                   {"sums_per_row", t.numSums},
                   {"tiling_key", QuantMatmulTilingKey(args)}};
    plan->buffers = BuffersOf(t, route, args.type);
    plan->numCores = t.numCores;
    plan->taskSlots = t.partSlots;
    plan->workspaceBytes = (t.workspaceTotal + t.numCores - 1) / t.numCores;
    plan->reason = ReasonOf(t, route, args.type, limits);
    return Status::Ok();
}

}  // namespace ascend_ops
