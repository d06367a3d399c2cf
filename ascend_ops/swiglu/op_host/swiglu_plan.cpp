// Explains the tiling of swiglu.
#include "ascend_ops/tiling_plan.h"
#include "swiglu/op_host/swiglu_tiling.h"

namespace ascend_ops {
namespace {

constexpr uint64_t kBurstBytes = 16 * 1024;
constexpr uint32_t kColUnit = 256;

std::vector<PlannedBuffer> BuffersOf(uint64_t elems, DataType type) {
    std::vector<PlannedBuffer> buffers = {{"ub", "2 x gate", 2 * elems * SizeOf(type)},
                                          {"ub", "2 x value", 2 * elems * SizeOf(type)}};
    if (type != DataType::kFloat32) {
        buffers.push_back({"ub", "gate in float32", elems * 4});
        buffers.push_back({"ub", "value in float32", elems * 4});
    }
    buffers.push_back({"ub", "work", elems * 4});
    return buffers;
}

std::string ReasonOf(const SwigluTilingData& t, DataType type, const CoreLimits& limits) {
    if (t.numTiles <= 1) return "one tile holds the whole output";
    const uint32_t next = t.tileElems + kColUnit;
    const std::string overflow = WhatOverflows(BuffersOf(next, type), limits);
    if (!overflow.empty()) return "with tile_elems " + std::to_string(next) + ", " + overflow;
    if (static_cast<uint64_t>(t.tileElems + t.tileCols) * SizeOf(type) > kBurstBytes) {
        return "a larger tile has more than 16 KB of gate, from where on a transfer is no faster";
    }
    return "larger tiles would leave cores without work";
}

}  // namespace

Status PlanSwiglu(const SwigluArgs& args, const CoreLimits& limits, TilingPlan* plan) {
    SwigluTilingData t;
    const Status status = ComputeSwigluTiling(args, limits, &t);
    if (!status.ok()) return status;
    plan->tiles = {{"tile_rows", t.tileRows},          {"tile_cols", t.tileCols},
                   {"tile_elems", t.tileElems},        {"tiles", t.numTiles},
                   {"tiles_per_core", t.tilesPerCore}, {"tiling_key", SwigluTilingKey(args.type)}};
    plan->buffers = BuffersOf(t.tileElems, args.type);
    plan->numCores = t.numCores;
    plan->reason = ReasonOf(t, args.type, limits);
    return Status::Ok();
}

}  // namespace ascend_ops
