// Tile sizes of swiglu. The UB plan mirrors the kernel's Init function.
#include "swiglu/op_host/swiglu_tiling.h"

#include <algorithm>
#include <string>

#include "common/op_host/tiling_math.h"

namespace ascend_ops {
namespace {

constexpr uint32_t kBlockBytes = 32;
constexpr uint32_t kMaxBlockCount = 4095;    // rows that one DataCopyPad takes
constexpr uint32_t kBurstBytes = 16 * 1024;  // shorter transfers waste the bandwidth of GM
constexpr uint32_t kColUnit = 256;           // 512 bytes of half: what GM likes its rows cut at
constexpr uint32_t kMinElems = 2048;         // a smaller tile is not worth another core

uint32_t AlignDown(uint32_t value, uint32_t unit) { return value / unit * unit; }

template <typename U>
U CeilDiv(U value, U divisor) {
    return (value + divisor - 1) / divisor;
}

template <typename U>
U AlignUp(U value, U unit) {
    return CeilDiv(value, unit) * unit;
}

// Two buffers each of gate and value; gate, value and work in float, for float work alone.
uint32_t UbBytesPerElem(DataType type) {
    return 4 * SizeOf(type) + (type == DataType::kFloat32 ? 4 : 12);
}

// Elements of a tile, or 0 where UB does not hold the smallest.
uint32_t TileElems(const SwigluArgs& args, const CoreLimits& limits) {
    const uint32_t fits = AlignDown(limits.ubBytes / UbBytesPerElem(args.type), kColUnit);
    const uint32_t most = std::min(kBurstBytes / SizeOf(args.type), fits);
    if (most == 0) return 0;
    const uint64_t elems = static_cast<uint64_t>(args.numRows) * args.width;
    const uint64_t share = AlignUp<uint64_t>(CeilDiv<uint64_t>(elems, limits.numCores), kColUnit);
    return static_cast<uint32_t>(Clamp<uint64_t>(share, std::min(kMinElems, most), most));
}

void CutTiles(const SwigluArgs& args, uint32_t elems, SwigluTilingData* t) {
    const uint32_t pitch = AlignUp(args.width, kBlockBytes / SizeOf(args.type));
    if (pitch <= elems) {
        t->tileCols = args.width;
        t->tileRows = Clamp(elems / pitch, 1u, kMaxBlockCount);
    } else {
        t->tileCols = AlignUp(CeilDiv(args.width, CeilDiv(args.width, elems)), kColUnit);
        t->tileRows = 1;
    }
    t->tileRows = std::min(t->tileRows, std::max(1u, args.numRows));
    t->colTiles = CeilDiv(args.width, t->tileCols);
}

// Cores meet where a 32-byte granule of GM ends, `granule` rows apart at the least.
void DealTiles(const SwigluArgs& args, uint32_t cores, SwigluTilingData* t) {
    const uint32_t rowBytes = args.width % kBlockBytes * SizeOf(args.type);
    const uint32_t granule = kBlockBytes / Gcd(kBlockBytes, rowBytes);
    uint64_t step = 1;
    if (granule > 1) {
        if (t->tileRows >= granule) {
            t->tileRows = AlignDown(t->tileRows, granule);
        } else {
            while ((t->tileRows & (t->tileRows - 1)) != 0) t->tileRows &= t->tileRows - 1;
        }
        step = static_cast<uint64_t>(t->colTiles) * std::max(1u, granule / t->tileRows);
    }
    t->numTiles = CeilDiv<uint64_t>(args.numRows, t->tileRows) * t->colTiles;
    t->tilesPerCore = AlignUp(std::max<uint64_t>(1, CeilDiv<uint64_t>(t->numTiles, cores)), step);
    t->numCores = static_cast<uint32_t>(
        std::max<uint64_t>(1, CeilDiv<uint64_t>(t->numTiles, t->tilesPerCore)));
}

}  // namespace

uint64_t SwigluTilingKey(DataType type) {
    if (type == DataType::kBfloat16) return kSwigluKeyBfloat16;
    return type == DataType::kFloat16 ? kSwigluKeyHalf : kSwigluKeyFloat;
}

Status ComputeSwigluTiling(const SwigluArgs& args, const CoreLimits& limits,
                           SwigluTilingData* tiling) {
    if (args.width == 0) {
        return Status::Error(StatusCode::kInvalidShape, "width is 0; it must be positive");
    }
    const uint32_t elems = TileElems(args, limits);
    if (elems == 0) {
        return Status::Error(StatusCode::kNoFit,
                             "UB needs " + std::to_string(kColUnit * UbBytesPerElem(args.type)) +
                                 " bytes for the smallest tile, but holds " +
                                 std::to_string(limits.ubBytes));
    }
    SwigluTilingData t = {};
    t.numRows = args.numRows;
    t.width = args.width;
    CutTiles(args, elems, &t);
    DealTiles(args, limits.numCores, &t);
    t.tileElems = t.tileRows * AlignUp(t.tileCols, kBlockBytes / SizeOf(args.type));
    *tiling = t;
    return Status::Ok();
}

}  // namespace ascend_ops
