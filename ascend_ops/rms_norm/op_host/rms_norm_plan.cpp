// Explains the tiling of rms_norm.
#include "ascend_ops/tiling_plan.h"
#include "rms_norm/op_host/rms_norm_tiling.h"

namespace ascend_ops {
namespace {

std::vector<PlannedBuffer> BuffersOf(const RmsNormTilingData& t, DataType type, bool hasResidual) {
    const uint64_t elems = static_cast<uint64_t>(t.rowsPerTile) * t.pitch;
    const uint64_t rows = (t.rowsPerTile + 7) / 8 * 8;
    const std::string copies = std::to_string(t.numBuffers) + " x ";
    std::vector<PlannedBuffer> buffers = {
        {"ub", copies + "x", t.numBuffers * elems * SizeOf(type)}};
    if (hasResidual) {
        buffers.push_back({"ub", copies + "residual", t.numBuffers * elems * SizeOf(type)});
    }
    if (type != DataType::kFloat32) buffers.push_back({"ub", "x in float32", elems * 4});
    buffers.push_back({"ub", "work", elems * 4});
    buffers.push_back({"ub", "weight", t.pitch * 4u});
    buffers.push_back({"ub", "fold", rows * 64 * 4});
    buffers.push_back({"ub", "blocks", rows * 8 * 4});
    buffers.push_back({"ub", "rms, count, ones", 3 * rows * 4});
    return buffers;
}

std::string ReasonOf(const RmsNormTilingData& t, const RmsNormArgs& args,
                     const CoreLimits& limits) {
    RmsNormTilingData next = t;
    const bool hasResidual = args.residual != nullptr;
    if (t.numBuffers == 1) {
        next.numBuffers = 2;
        return "with two buffers, " +
               WhatOverflows(BuffersOf(next, args.type, hasResidual), limits);
    }
    if (t.rowsPerTile == t.rowsPerCore) return "one tile holds all rows of a core";
    ++next.rowsPerTile;
    const std::string overflow = WhatOverflows(BuffersOf(next, args.type, hasResidual), limits);
    if (!overflow.empty()) {
        return "with rows_per_tile " + std::to_string(next.rowsPerTile) + ", " + overflow;
    }
    return "a larger tile has more than 16 KB of x, from where on a transfer is no faster";
}

}  // namespace

Status PlanRmsNorm(const RmsNormArgs& args, const CoreLimits& limits, TilingPlan* plan) {
    RmsNormTilingData t;
    const Status status = ComputeRmsNormTiling(args, limits, &t);
    if (!status.ok()) return status;
    const bool hasResidual = args.residual != nullptr;
    plan->tiles = {
        {"rows_per_tile", t.rowsPerTile}, {"rows_per_core", t.rowsPerCore},
        {"buffers", t.numBuffers},        {"pitch", t.pitch},
        {"across_rows", t.acrossRows},    {"tiling_key", RmsNormTilingKey(args.type, hasResidual)}};
    plan->buffers = BuffersOf(t, args.type, hasResidual);
    plan->numCores = t.numCores;
    plan->reason = ReasonOf(t, args, limits);
    return Status::Ok();
}

}  // namespace ascend_ops
