// What the host tells the rms_norm kernel: one plain structure, the same on both targets.
#ifndef ASCEND_OPS_RMS_NORM_TILING_DATA_H_
#define ASCEND_OPS_RMS_NORM_TILING_DATA_H_

#include <cstdint>

namespace ascend_ops {

// Tiling keys: the element type, and whether a residual is added first.
constexpr uint64_t kRmsNormKeyHalf = 0;
constexpr uint64_t kRmsNormKeyFloat = 1;
constexpr uint64_t kRmsNormKeyHalfResidual = 2;
constexpr uint64_t kRmsNormKeyFloatResidual = 3;
constexpr uint64_t kRmsNormKeyBfloat16 = 4;
constexpr uint64_t kRmsNormKeyBfloat16Residual = 5;

struct RmsNormTilingData {
    uint32_t numRows;
    uint32_t hiddenSize;
    uint32_t pitch;     // elements from row to row in UB: hiddenSize up to a multiple of 32 bytes
    uint32_t numCores;  // vector cores
    uint32_t rowsPerCore;  // no two cores write into the same 32 bytes of GM
    uint32_t rowsPerTile;  // at most 255
    uint32_t numBuffers;  // 2: the next tile comes in while this one is computed; 1: no room for it
    uint32_t acrossRows;  // 1: one repeat an instruction takes of each row; 0: all repeats of a row
    float eps;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_RMS_NORM_TILING_DATA_H_
