// Tile sizes of rms_norm. The UB plan mirrors the kernel's Init function.
#include "rms_norm/op_host/rms_norm_tiling.h"

#include <algorithm>
#include <string>

#include "common/op_host/tiling_math.h"

namespace ascend_ops {
namespace {

constexpr uint32_t kBlockBytes = 32;
constexpr uint32_t kFloatsPerBlock = 8;
constexpr uint32_t kFloatsPerRepeat = 64;
constexpr uint32_t kMaxRepeats = 255;        // also the largest stride between repeats, in blocks
constexpr uint32_t kBurstBytes = 16 * 1024;  // shorter transfers waste the bandwidth of GM
constexpr uint32_t kElemsPerCore = 8192;     // fewer are not worth another core

uint32_t CeilDiv(uint32_t value, uint32_t divisor) { return (value + divisor - 1) / divisor; }
uint32_t AlignUp(uint32_t value, uint32_t unit) { return CeilDiv(value, unit) * unit; }

uint32_t UbBytes(const RmsNormTilingData& t, DataType type, bool hasResidual) {
    const uint32_t inputs = t.numBuffers * (hasResidual ? 2 : 1) * SizeOf(type);
    const uint32_t floats = type == DataType::kFloat32 ? 1 : 2;  // a wide copy of x, and work
    const uint32_t tile = t.rowsPerTile * t.pitch * (inputs + floats * 4);
    const uint32_t perRow = 4 * (kFloatsPerRepeat + kFloatsPerBlock + 3);
    return tile + t.pitch * 4 + AlignUp(t.rowsPerTile, kFloatsPerBlock) * perRow;
}

void SplitRows(const RmsNormArgs& args, uint32_t cores, RmsNormTilingData* t) {
    const uint64_t elems = static_cast<uint64_t>(args.numRows) * args.hiddenSize;
    t->numCores = static_cast<uint32_t>(Clamp<uint64_t>(elems / kElemsPerCore, 1, cores));
    // Rows that end where a 32-byte granule of GM does.
    const uint32_t granule = kBlockBytes / Gcd(kBlockBytes, args.hiddenSize * SizeOf(args.type));
    t->rowsPerCore = AlignUp(std::max(1u, CeilDiv(args.numRows, t->numCores)), granule);
    t->numCores = std::max(1u, CeilDiv(args.numRows, t->rowsPerCore));
}

}  // namespace

uint64_t RmsNormTilingKey(DataType type, bool hasResidual) {
    if (type == DataType::kFloat16) return hasResidual ? kRmsNormKeyHalfResidual : kRmsNormKeyHalf;
    if (type == DataType::kBfloat16) {
        return hasResidual ? kRmsNormKeyBfloat16Residual : kRmsNormKeyBfloat16;
    }
    return hasResidual ? kRmsNormKeyFloatResidual : kRmsNormKeyFloat;
}

Status ComputeRmsNormTiling(const RmsNormArgs& args, const CoreLimits& limits,
                            RmsNormTilingData* tiling) {
    const bool hasResidual = args.residual != nullptr;
    if (args.hiddenSize == 0 || args.hiddenSize > kMaxHiddenSize) {
        return Status::Error(StatusCode::kInvalidShape,
                             "hidden_size is " + std::to_string(args.hiddenSize) +
                                 "; it must be 1 to " + std::to_string(kMaxHiddenSize));
    }
    if (hasResidual != (args.total != nullptr)) {
        return Status::Error(StatusCode::kInvalidShape, "residual and total must come together");
    }
    RmsNormTilingData t = {};
    t.numRows = args.numRows;
    t.hiddenSize = args.hiddenSize;
    t.pitch = AlignUp(args.hiddenSize, kBlockBytes / SizeOf(args.type));
    t.eps = args.eps;
    SplitRows(args, limits.numCores, &t);
    t.numBuffers = 2;
    t.rowsPerTile = Clamp(kBurstBytes / (t.pitch * SizeOf(args.type)), 1u,
                          std::min(kMaxRepeats, t.rowsPerCore));
    while (t.rowsPerTile > 1 && UbBytes(t, args.type, hasResidual) > limits.ubBytes) {
        --t.rowsPerTile;
    }
    if (UbBytes(t, args.type, hasResidual) > limits.ubBytes) t.numBuffers = 1;
    const uint32_t bytes = UbBytes(t, args.type, hasResidual);
    if (bytes > limits.ubBytes) {
        return Status::Error(StatusCode::kNoFit,
                             "UB needs " + std::to_string(bytes) + " bytes for one row of " +
                                 std::to_string(args.hiddenSize) + ", but holds " +
                                 std::to_string(limits.ubBytes) + "; lower hidden_size");
    }
    // Whichever needs fewer instructions: a repeat of every row, or every repeat of a row.
    const bool reaches = t.pitch / kFloatsPerBlock <= kMaxRepeats;
    t.acrossRows = reaches && CeilDiv(t.hiddenSize, kFloatsPerRepeat) <= t.rowsPerTile ? 1 : 0;
    *tiling = t;
    return Status::Ok();
}

}  // namespace ascend_ops
