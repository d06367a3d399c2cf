// What the host tells the swiglu kernel: one plain structure, the same on both targets.
#ifndef ASCEND_OPS_SWIGLU_TILING_DATA_H_
#define ASCEND_OPS_SWIGLU_TILING_DATA_H_

#include <cstdint>

namespace ascend_ops {

// Tiling keys: the element type.
constexpr uint64_t kSwigluKeyHalf = 0;
constexpr uint64_t kSwigluKeyFloat = 1;
constexpr uint64_t kSwigluKeyBfloat16 = 2;

// The output is cut into tiles of tileRows x tileCols, numbered row by row of tiles.
struct SwigluTilingData {
    uint64_t numTiles;
    uint64_t tilesPerCore;  // no two cores write into the same 32 bytes of GM
    uint32_t numRows;
    uint32_t width;     // columns of the output
    uint32_t numCores;  // vector cores
    uint32_t tileRows;  // at most 4095
    uint32_t tileCols;  // all columns, or a multiple of 256
    uint32_t colTiles;
    uint32_t tileElems;  // what a buffer in UB holds: tileRows rows, each padded to 32 bytes
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_SWIGLU_TILING_DATA_H_
