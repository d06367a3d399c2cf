// Routes and tile sizes of quant_matmul. The plans of the memories mirror the kernel's Init
// functions.
#include "quant_matmul/op_host/quant_matmul_tiling.h"

#include <algorithm>
#include <string>

#include "common/op_host/tiling_math.h"

namespace ascend_ops {
namespace {

constexpr uint32_t kBlockBytes = 32;
constexpr uint32_t kFractalRows = 16;
constexpr uint32_t kFewTokens = 16;  // decoding: the weight's bytes decide
constexpr uint32_t kFewStripes = 4;  // of a tile then
constexpr uint32_t kManyStripes = 8;
constexpr uint32_t kGroupStripes = 16;
constexpr uint32_t kManyTokens = 128;
constexpr uint32_t kFewChunkFractals = 64;  // along the input, in L1: bursts of 32 KB
constexpr uint32_t kManyChunkFractals = 16;
constexpr uint32_t kMaxGroupsPerPart = 8;
constexpr uint32_t kMaxPiece = 4096;
constexpr uint32_t kMaxOutputRows = 32;
constexpr uint32_t kOwnTokens = 8;  // so few are quantised by each core for itself
constexpr uint64_t kAlign = 512;    // of workspace

uint32_t CeilDiv(uint32_t value, uint32_t divisor) { return (value + divisor - 1) / divisor; }
uint32_t AlignUp(uint32_t value, uint32_t unit) { return CeilDiv(value, unit) * unit; }
uint64_t Aligned(uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }
uint64_t UbBytes(uint64_t elems, uint64_t size) {
    return (elems * size + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

bool TakesHalf(uint64_t route) {
    return route == kQuantRouteHalf || route >= kQuantRouteBytesToHalf;
}

uint32_t RowsPerToken(uint64_t route) { return route == kQuantRouteDigits ? 2 : 1; }

// Columns of an operand's fractal.
uint32_t OperandColumns(uint64_t route) {
    if (TakesHalf(route)) return 16;
    return route == kQuantRouteDigits ? 64 : 32;
}

uint32_t PaddedRows(const QuantMatmulTilingData& t, uint64_t route) {
    return AlignUp(std::max(2u, t.tokensPerTile * RowsPerToken(route)), kFractalRows);
}

uint64_t WidenBytes(const QuantMatmulTilingData& t, uint64_t route) {
    if (route < kQuantRouteNibblesToBytes) return 0;
    const uint64_t rows = uint64_t{t.packedPiece} * kFractalRows;
    const uint64_t values = rows * (route == kQuantRouteBytesToHalf ? 32 : 64);
    uint64_t bytes = 2 * uint64_t{t.packedPiece} * kPackedFractalBytes + values * 2;
    if (route == kQuantRouteNibblesToBytes) bytes += values;
    if (route == kQuantRouteGroupsToHalf) {
        bytes += values * 4 + UbBytes(kFractalRows * t.numGroups, 4) + rows * (4 + 32 + 4);
    }
    return bytes;
}

uint64_t OutputBytes(const QuantMatmulTilingData& t, uint64_t route, DataType type) {
    const uint64_t cols = uint64_t{t.stripesPerTile} * kFractalRows;
    const uint64_t elems = t.outputRows * cols;
    uint64_t bytes = elems * RowsPerToken(route) * 4 + t.totalRows * cols * 4;
    bytes += UbBytes(elems, SizeOf(type)) + 2 * cols * 4 + t.outputRows * 32;
    if (t.numSums > 1) bytes += cols * AlignUp(t.groupsPerPart, 8) * 4 + cols * 4;
    return bytes;
}

uint64_t TokensBytes(const QuantMatmulTilingData& t, uint64_t route, DataType type) {
    if (TakesHalf(route) && type == DataType::kFloat16) return 0;
    return uint64_t{t.piece} * (SizeOf(type) + 4 + 4 + 4 + 2 + 1) + UbBytes(t.piece / 64 + 64, 4) +
           64;
}

Status CheckShape(const QuantMatmulArgs& args) {
    std::string wrong;
    if (args.inFeatures == 0 || args.inFeatures > kMaxInFeatures) {
        wrong = "in_features is " + std::to_string(args.inFeatures) + "; it must be 1 to " +
                std::to_string(kMaxInFeatures);
    } else if (args.outFeatures == 0) {
        wrong = "out_features is 0; it must be positive";
    } else if (args.groupSize != 0 &&
               (args.format != WeightFormat::kInt4 || args.inFeatures % args.groupSize != 0 ||
                (args.groupSize != 32 && args.groupSize != 64 && args.groupSize != 128))) {
        wrong = "the group is " + std::to_string(args.groupSize) + " of " +
                std::to_string(args.inFeatures) +
                " columns; it must be 32, 64 or 128 of an int4 weight, and divide them";
    } else if (args.activationBits != 16 &&
               (args.activationBits != 8 || args.format == WeightFormat::kFloat16)) {
        wrong = "activation_bits is " + std::to_string(args.activationBits) +
                "; it must be 16, or 8 where the weight is not float16";
    }
    return wrong.empty() ? Status::Ok() : Status::Error(StatusCode::kInvalidShape, wrong);
}

void DescribeProblem(const QuantMatmulArgs& args, uint64_t route, QuantMatmulTilingData* t) {
    t->numTokens = args.numTokens;
    t->inFeatures = args.inFeatures;
    t->outFeatures = args.outFeatures;
    t->groupSize = args.groupSize == 0 ? args.inFeatures : args.groupSize;
    t->numGroups = args.inFeatures / t->groupSize;
    t->numSums = route == kQuantRouteGroupsToHalf ? 1 : t->numGroups;
    t->hasBias = args.bias != nullptr ? 1 : 0;
    t->hasResidual = args.residual != nullptr ? 1 : 0;
    t->largest = args.format == WeightFormat::kInt4 ? 119.0f : 127.0f;
    t->numStripes = CeilDiv(args.outFeatures, kStripeRows);
    t->packedFractals = FractalsOfRow(args.format, args.inFeatures);
    t->widening =
        route < kQuantRouteNibblesToBytes ? 1 : FractalColumns(args.format) / OperandColumns(route);
    t->fractals = CeilDiv(args.inFeatures, OperandColumns(route));
    t->groupFractals = t->fractals / t->numSums;
}

// Largest first: the tile, then what of it L0 and L1 hold of the input.
void ChooseTiles(uint64_t route, const CoreLimits& limits, QuantMatmulTilingData* t) {
    const bool few = t->numTokens <= kFewTokens;
    t->tokensPerTile = std::max(1u, std::min(t->numTokens, t->numSums > 1 ? 64u : kManyTokens));
    const uint32_t share = std::max(1u, CeilDiv(t->numStripes, limits.numCores));
    // Narrow tiles read the tokens again and again, and those of half cost the more; a sum of one
    // group is short, so it is given many columns.
    uint32_t stripes = few && !TakesHalf(route) ? kFewStripes : kManyStripes;
    if (few && t->numSums > 1) stripes = kGroupStripes;
    t->stripesPerTile = std::min(stripes, share);
    // Where sums are cut must not follow from how many cores there are: their last bits show it.
    const uint32_t rows = PaddedRows(*t, route), cols = stripes * kFractalRows;
    const uint32_t l0 = std::min(limits.l0aBytes / rows, limits.l0bBytes / cols) / 2;
    t->stepFractals = Clamp(l0 / kBlockBytes, 1u, 63u);
    const uint32_t l1 = limits.l1Bytes / 2 / ((rows + cols) * kBlockBytes);
    const uint32_t most = std::min(few ? kFewChunkFractals : kManyChunkFractals, l1);
    if (t->numSums == 1) {
        t->chunkFractals = std::max(most / t->widening, 1u) * t->widening;
        t->groupsPerPart = 1;
    } else {
        // Whole groups, and whole packed fractals.
        const uint32_t unit = std::max(t->groupFractals, t->widening);
        const uint32_t units =
            std::max(1u, std::min(most, kMaxGroupsPerPart * t->groupFractals) / unit);
        t->chunkFractals = units * unit;
        t->groupsPerPart = t->chunkFractals / t->groupFractals;
    }
}

void SplitWork(const QuantMatmulArgs& args, const CoreLimits& limits, QuantMatmulTilingData* t) {
    const uint32_t tiles = CeilDiv(t->numStripes, t->stripesPerTile);
    // Rows that end inside 32 bytes share them with the next: one AIV writes all of out.
    t->serialOutput = uint64_t{args.outFeatures} * SizeOf(args.type) % kBlockBytes != 0 ? 1 : 0;
    t->tilesPerCore = t->serialOutput != 0 ? tiles : CeilDiv(tiles, limits.numCores);
    t->numCores = CeilDiv(tiles, t->tilesPerCore);
    t->partSlots = limits.overlap ? 2 : 1;
    t->tileSlots = limits.overlap ? 2 : 1;
    t->tilesAhead = limits.overlap ? 1 : 0;
    t->sharedTokens = t->numCores > 1 && t->numTokens > kOwnTokens ? 1 : 0;
}

void ChoosePasses(uint64_t route, QuantMatmulTilingData* t) {
    t->piece = std::min(kMaxPiece, AlignUp(t->inFeatures, 64));
    t->packedPiece = std::min(t->packedFractals, route == kQuantRouteGroupsToHalf ? 8u : 16u);
    const uint32_t ofAiv = t->serialOutput != 0 ? t->tokensPerTile : CeilDiv(t->tokensPerTile, 2);
    t->outputRows = std::min(kMaxOutputRows, ofAiv);
    t->totalRows = t->numSums > 1 ? ofAiv : t->outputRows;
}

void PlaceWorkspace(uint64_t route, DataType type, QuantMatmulTilingData* t) {
    const bool inX = TakesHalf(route) && type == DataType::kFloat16;
    const uint64_t rowsOfPart = uint64_t{t->tokensPerTile} * RowsPerToken(route);
    const uint64_t cols = uint64_t{t->stripesPerTile} * kFractalRows;
    t->tokenRowBytes = uint64_t{t->fractals} * kBlockBytes * RowsPerToken(route);
    const uint64_t rows = inX ? 0 : Aligned(t->numTokens * t->tokenRowBytes);
    const uint64_t scales = TakesHalf(route) ? 0 : Aligned(t->numTokens * uint64_t{kBlockBytes});
    t->coreTokens = 0;
    t->coreScales = rows;
    t->workspaceShared = 0;
    t->workspaceCore = t->sharedTokens != 0 ? rows + scales : 0;
    t->coreTiles = t->sharedTokens != 0 ? 0 : rows + scales;
    const uint64_t stripe = uint64_t{AlignUp(t->fractals, t->widening)} * kPackedFractalBytes;
    t->tileBytes = route < kQuantRouteNibblesToBytes ? 0 : Aligned(t->stripesPerTile * stripe);
    t->coreParts = t->coreTiles + t->tileSlots * t->tileBytes;
    t->partBytes = Aligned(t->groupsPerPart * rowsOfPart * cols * 4);
    t->coreBytes = t->coreParts + t->partSlots * t->partBytes;
    t->workspaceTotal = t->workspaceCore + t->numCores * t->coreBytes;
}

}  // namespace

uint64_t QuantMatmulRoute(const QuantMatmulArgs& args) {
    if (args.format == WeightFormat::kFloat16) return kQuantRouteHalf;
    if (args.activationBits == 16) {
        if (args.format == WeightFormat::kInt8) return kQuantRouteBytesToHalf;
        return args.groupSize == 0 ? kQuantRouteNibblesToHalf : kQuantRouteGroupsToHalf;
    }
    if (args.format == WeightFormat::kInt8) return kQuantRouteBytes;
    // A group of 32 is half a fractal of int4.
    const bool digits = args.numTokens <= kFewTokens && args.groupSize != 32;
    return digits ? kQuantRouteDigits : kQuantRouteNibblesToBytes;
}

uint64_t QuantMatmulTilingKey(const QuantMatmulArgs& args) {
    const uint64_t type =
        args.type == DataType::kFloat16 ? 0 : (args.type == DataType::kBfloat16 ? 1 : 2);
    return 3 * QuantMatmulRoute(args) + type;
}

QuantMatmulBytes QuantMatmulBytesOf(const QuantMatmulTilingData& t, uint64_t route, DataType type) {
    const uint64_t rows = PaddedRows(t, route), cols = uint64_t{t.stripesPerTile} * kFractalRows;
    QuantMatmulBytes bytes;
    bytes.tokensUb = TokensBytes(t, route, type);
    bytes.widenUb = WidenBytes(t, route);
    bytes.outputUb = OutputBytes(t, route, type);
    bytes.l1 = 2 * (rows + cols) * t.chunkFractals * kBlockBytes;
    bytes.l0a = 2 * rows * t.stepFractals * kBlockBytes;
    bytes.l0b = 2 * cols * t.stepFractals * kBlockBytes;
    bytes.l0c = 2 * rows * cols * 4;
    return bytes;
}

Status ComputeQuantMatmulTiling(const QuantMatmulArgs& args, const CoreLimits& limits,
                                QuantMatmulTilingData* tiling) {
    const Status served = CheckShape(args);
    if (!served.ok()) return served;
    const uint64_t route = QuantMatmulRoute(args);
    QuantMatmulTilingData t = {};
    DescribeProblem(args, route, &t);
    ChooseTiles(route, limits, &t);
    SplitWork(args, limits, &t);
    ChoosePasses(route, &t);
    PlaceWorkspace(route, args.type, &t);
    const QuantMatmulBytes bytes = QuantMatmulBytesOf(t, route, args.type);
    const uint64_t ub = std::max(bytes.tokensUb, bytes.widenUb + bytes.outputUb);
    if (ub > limits.ubBytes || bytes.l1 > limits.l1Bytes || bytes.l0a > limits.l0aBytes ||
        bytes.l0b > limits.l0bBytes || bytes.l0c > limits.l0cBytes) {
        return Status::Error(
            StatusCode::kNoFit,
            "tiles need " + std::to_string(ub) + " bytes of UB, " + std::to_string(bytes.l1) +
                " of L1 and " + std::to_string(bytes.l0c) + " of L0C, but they hold " +
                std::to_string(limits.ubBytes) + ", " + std::to_string(limits.l1Bytes) + " and " +
                std::to_string(limits.l0cBytes));
    }
    *tiling = t;
    return Status::Ok();
}

}  // namespace ascend_ops
