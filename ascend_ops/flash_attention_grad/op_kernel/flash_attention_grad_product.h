// Products of tiles in L1, turned or not, as the gradient needs them.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_PRODUCT_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_PRODUCT_H_

#include "common/op_kernel/cube_unit.h"
#include "common/op_kernel/tile_math.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Tiles lie in L1 as flash_attention_grad_tiles.h says.
template <typename T>
class GradProduct {
  public:
    // An operand in L1: a tile, its columns, and its extent along the product's rows or columns.
    struct Operand {
        AscendC::LocalTensor<T> tile;
        uint32_t width;
        uint32_t extent;
    };

    // At most `maxRows` rows of A; one Mmad is (maxRows, blockK) x (blockK, blockN).
    __aicore__ inline void Init(uint32_t maxRows, uint32_t blockN, uint32_t blockK) {
        blockN_ = blockN;
        blockK_ = blockK;
        unit_.Init(maxRows * blockK, blockN * blockK, maxRows * blockN);
    }

    __aicore__ inline void Begin() { unit_.Begin(); }
    __aicore__ inline void End() { unit_.End(); }

    // GM dst (a.extent, b.extent) = A B over `depth`. kTurnA: A's tile holds A^T, (depth, extent).
    // kTurnB: B's tile holds B, (depth, extent), and else B^T, for the cube takes B by columns.
    template <bool kTurnA, bool kTurnB>
    __aicore__ inline void Multiply(const AscendC::GlobalTensor<float>& dst, uint32_t pitch,
                                    const Operand& a, const Operand& b, uint32_t depth) {
        for (uint32_t n = 0; n < b.extent; n += blockN_) {
            const uint32_t cols = MinOf(blockN_, b.extent - n);
            unit_.OpenSum();
            for (uint32_t k = 0; k < depth;) {
                const uint32_t step = DepthOfStep<kTurnA>(depth - k);
                unit_.OpenOperands();
                if constexpr (kTurnA) {
                    LoadATurned(a, k, step);
                } else {
                    LoadA(a, k, step);
                }
                if constexpr (kTurnB) {
                    LoadBTurned(b, n, cols, k, step);
                } else {
                    LoadB(b, n, cols, k, step);
                }
                unit_.MultiplyStep(a.extent, cols, step, k == 0);
                k += step;
            }
            unit_.CloseSum();
            unit_.CopyOut(dst[n], a.extent, cols, pitch);
        }
    }

  private:
    static constexpr uint32_t kC0 = kBlockBytes / sizeof(T);  // columns of a fractal
    static constexpr uint32_t kFractalElems = kFractalBytes / sizeof(T);
    static constexpr bool kFloat = IsSame<T, float>::kValue;

    // Depth of the next Mmad. A turned float A arrives in squares of 16, of which the cube's layout
    // has no room for the second half if eight or less of the depth are left: these go alone.
    template <bool kTurnA>
    __aicore__ inline uint32_t DepthOfStep(uint32_t left) {
        const uint32_t depth = MinOf(blockK_, left);
        const uint32_t odd = depth % kFractalRows;
        const bool split = kTurnA && kFloat && depth > kFractalRows && odd > 0 && odd <= kC0;
        return split ? depth - odd : depth;
    }

    // L1 rows [0, extent), columns [k, k + depth) -> L0A
    __aicore__ inline void LoadA(const Operand& a, uint32_t k, uint32_t depth) {
        const uint32_t depthFractals = CeilDiv(depth, kC0);
        AscendC::LoadData2DParams params;
        params.repeatTimes = depthFractals;
        params.srcStride = 1;
        for (uint32_t r = 0; r < CeilDiv(a.extent, kFractalRows); ++r) {
            const uint32_t source = (r * (a.width / kC0) + k / kC0) * kFractalElems;
            AscendC::LoadData(unit_.A()[r * depthFractals * kFractalElems], a.tile[source], params);
        }
    }

    // L1 rows [k, k + depth), columns [0, extent) -> L0A as (extent, depth)
    __aicore__ inline void LoadATurned(const Operand& a, uint32_t k, uint32_t depth) {
        const uint32_t rowFractals = CeilDiv(a.extent, kFractalRows);
        const uint32_t depthFractals = CeilDiv(depth, kC0);
        for (uint32_t r = 0; r < CeilDiv(depth, kFractalRows); ++r) {
            const uint32_t source = (k / kFractalRows + r) * kFractalRows * a.width;
            if constexpr (kFloat) {
                AscendC::LoadData2dTransposeParams params;
                params.repeatTimes = rowFractals;
                params.srcStride = 1;
                params.dstGap = depthFractals - 1;
                // A depth of eight or less: the second halves go behind the operand, unused.
                params.dstFracGap = depthFractals == 1 ? rowFractals - 1 : 0;
                AscendC::LoadDataWithTranspose(unit_.A()[2 * r * kFractalElems], a.tile[source],
                                               params);
            } else {
                AscendC::LoadData2DParams params;
                params.repeatTimes = rowFractals;
                params.srcStride = 1;
                params.dstGap = depthFractals - 1;
                params.ifTranspose = true;
                AscendC::LoadData(unit_.A()[r * kFractalElems], a.tile[source], params);
            }
        }
    }

    // L1 rows [n, n + cols), columns [k, k + depth) -> L0B as (depth, cols)
    __aicore__ inline void LoadB(const Operand& b, uint32_t n, uint32_t cols, uint32_t k,
                                 uint32_t depth) {
        const uint32_t colFractals = CeilDiv(cols, kFractalRows);
        AscendC::LoadData2DParams params;
        params.repeatTimes = colFractals;
        params.srcStride = b.width / kC0;
        for (uint32_t c = 0; c < CeilDiv(depth, kC0); ++c) {
            const uint32_t source = n * b.width + (k / kC0 + c) * kFractalElems;
            AscendC::LoadData(unit_.B()[c * colFractals * kFractalElems], b.tile[source], params);
        }
    }

    // L1 rows [k, k + depth), columns [n, n + cols) -> L0B as (depth, cols)
    __aicore__ inline void LoadBTurned(const Operand& b, uint32_t n, uint32_t cols, uint32_t k,
                                       uint32_t depth) {
        const uint32_t colFractals = cols / kFractalRows;
        for (uint32_t r = 0; r < CeilDiv(depth, kFractalRows); ++r) {
            const uint32_t source = (k + r * kFractalRows) * b.width + n * kFractalRows;
            if constexpr (kFloat) {
                AscendC::LoadData2dTransposeParams params;
                params.repeatTimes = colFractals;
                params.srcStride = 1;
                params.dstGap = 0;
                params.dstFracGap = colFractals - 1;
                AscendC::LoadDataWithTranspose(unit_.B()[2 * r * colFractals * kFractalElems],
                                               b.tile[source], params);
            } else {
                AscendC::LoadData2DParams params;
                params.repeatTimes = colFractals;
                params.srcStride = 1;
                params.ifTranspose = true;
                AscendC::LoadData(unit_.B()[r * colFractals * kFractalElems], b.tile[source],
                                  params);
            }
        }
    }

    CubeUnit<T> unit_;
    uint32_t blockN_ = 0;
    uint32_t blockK_ = 0;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_PRODUCT_H_
