// The AIC side of quant_matmul: tokens times stripes of the weight, a group's sum at a time.
#ifndef ASCEND_OPS_QUANT_MATMUL_CUBE_H_
#define ASCEND_OPS_QUANT_MATMUL_CUBE_H_

#include "common/op_kernel/cube_unit.h"
#include "common/op_kernel/tile_math.h"
#include "kernel_operator.h"
#include "quant_matmul/op_kernel/quant_matmul_layout.h"
#include "quant_matmul/op_kernel/quant_matmul_tiling_data.h"

namespace ascend_ops {

// T: type of the operands as they are copied; Sum: of products; Operand: as the cube takes T.
template <uint64_t kRoute, typename T, typename Sum, typename Operand>
class QuantMatmulCube {
  public:
    __aicore__ inline void Init(const QuantMatmulTilingData* tiling, const QuantMatmulGm& gm,
                                bool tokensInX) {
        tiling_ = tiling;
        tokensInX_ = tokensInX;
        layout_.Init(tiling, gm.workspace);
        tokens_.SetGlobalBuffer((__gm__ T*)(tokensInX ? gm.x : layout_.Tokens()));
        weight_.SetGlobalBuffer((__gm__ T*)gm.weight);
        rows_ = tiling->tokensPerTile * Route::kRowsPerToken;
        const uint32_t rows = AlignUp(MaxOf(2u, rows_), kFractalRows);
        const uint32_t cols = tiling->stripesPerTile * kFractalRows;
        const uint32_t chunk = tiling->chunkFractals * kCols;
        for (uint32_t i = 0; i < 2; ++i) {
            const uint32_t base = i * (rows + cols) * chunk * static_cast<uint32_t>(sizeof(T));
            l1a_[i] = AscendC::LocalTensor<T>(AscendC::TPosition::A1, base, rows * chunk);
            l1b_[i] = AscendC::LocalTensor<T>(
                AscendC::TPosition::B1, base + rows * chunk * static_cast<uint32_t>(sizeof(T)),
                cols * chunk);
        }
        const uint32_t step = tiling->stepFractals * kCols;
        cube_.Init(rows * step, cols * step, rows * cols);
    }

    __aicore__ inline void Process() {
        cube_.Begin();
        for (int32_t i = 0; i < 2; ++i) AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(i);
        if (!tokensInX_) AscendC::CrossCoreWaitFlag(kFlagTokens);
        for (uint32_t tile = 0; tile < layout_.NumTiles(); ++tile) {
            if constexpr (Route::kWidens) AscendC::CrossCoreWaitFlag(kFlagTile);
            for (uint32_t token = 0; token < tiling_->numTokens; token += tiling_->tokensPerTile) {
                Multiply(tile, layout_.Tile(tile, token));
            }
        }
        const uint32_t open = MinOf(parts_, tiling_->partSlots);
        for (uint32_t i = 0; i < open; ++i) AscendC::CrossCoreWaitFlag(kFlagFree);
        for (int32_t i = 0; i < 2; ++i) AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(i);
        cube_.End();
    }

  private:
    using Route = QuantRoute<kRoute>;
    static constexpr uint32_t kCols = kBlockBytes / sizeof(T);       // of a fractal, as T
    static constexpr uint32_t kElems = kFractalBytes / sizeof(T);    // of a fractal, as T
    static constexpr uint32_t kDepth = Route::kDigits ? 64 : kCols;  // of a fractal, as Operand

    // All groups of a tile, chunk by chunk.
    __aicore__ inline void Multiply(uint32_t index, const QuantTile& tile) {
        const uint32_t rows = tile.tokens * Route::kRowsPerToken;
        const uint32_t cols = tile.stripes * kFractalRows;
        for (uint32_t chunk = 0; chunk < tiling_->fractals; chunk += tiling_->chunkFractals) {
            const uint32_t end = MinOf(chunk + tiling_->chunkFractals, tiling_->fractals);
            AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(l1Buffer_);
            CopyTokens(tile, chunk, end - chunk);
            CopyWeight(index, tile, chunk, end - chunk);
            AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(l1Buffer_);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(l1Buffer_);
            for (uint32_t fractal = chunk; fractal < end;) {
                const uint32_t inGroup = fractal % tiling_->groupFractals;
                const uint32_t left = MinOf(tiling_->groupFractals - inGroup, end - fractal);
                const uint32_t depth = MinOf(tiling_->stepFractals, left);
                if (inGroup == 0) cube_.OpenSum();
                cube_.OpenOperands();
                LoadTokens(rows, fractal - chunk, depth);
                LoadWeight(tile.stripes, fractal - chunk, depth, StripePitch(end - chunk));
                cube_.MultiplyStep(rows, cols, depth * kDepth, inGroup == 0);
                fractal += depth;
                if (inGroup + depth == tiling_->groupFractals) {
                    CloseGroup(fractal / tiling_->groupFractals - 1, rows, cols);
                }
            }
            AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(l1Buffer_);
            l1Buffer_ ^= 1;
        }
    }

    // L0C (rows, cols) -> GM, group `group` of the current part
    __aicore__ inline void CloseGroup(uint32_t group, uint32_t rows, uint32_t cols) {
        const uint32_t inPart = group % tiling_->groupsPerPart;
        cube_.CloseSum();
        if (inPart == 0 && parts_ >= tiling_->partSlots) AscendC::CrossCoreWaitFlag(kFlagFree);
        AscendC::GlobalTensor<Sum> part;
        part.SetGlobalBuffer((__gm__ Sum*)layout_.Part(parts_));
        cube_.CopyOut(part[inPart * rows * cols], rows, cols, cols);
        if (inPart + 1 == tiling_->groupsPerPart || group + 1 == tiling_->numSums) {
            AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kFlagPart);
            ++parts_;
        }
    }

    // GM tokens[rows of the tile, chunk] -> L1 NZ (rows, chunk)
    __aicore__ inline void CopyTokens(const QuantTile& tile, uint32_t chunk, uint32_t fractals) {
        const uint32_t rows = tile.tokens * Route::kRowsPerToken;
        const uint32_t pitch =
            tokensInX_ ? tiling_->inFeatures : tiling_->fractals * kCols;  // elements of T
        AscendC::Nd2NzParams params;
        params.ndNum = 1;
        params.nValue = rows;
        params.dValue = MinOf(fractals * kCols, pitch - chunk * kCols);
        params.srcNdMatrixStride = 0;
        params.srcDValue = pitch;
        params.dstNzC0Stride = AlignUp(MaxOf(2u, rows), kFractalRows);
        params.dstNzNStride = 1;
        params.dstNzMatrixStride = 0;
        const uint64_t row = static_cast<uint64_t>(tile.token) * Route::kRowsPerToken;
        AscendC::DataCopy(l1a_[l1Buffer_], tokens_[row * pitch + chunk * kCols], params);
    }

    // Fractals from one stripe of a chunk in L1 to the next: a packed fractal comes as a whole.
    __aicore__ inline uint32_t StripePitch(uint32_t fractals) {
        return AlignUp(fractals, tiling_->widening);
    }

    // GM weight, or its widened tile -> L1 (stripes, StripePitch) fractals
    __aicore__ inline void CopyWeight(uint32_t index, const QuantTile& tile, uint32_t chunk,
                                      uint32_t fractals) {
        const uint32_t elems = StripePitch(fractals) * kElems;
        if constexpr (!Route::kWidens) {
            for (uint32_t i = 0; i < tile.stripes; ++i) {
                const uint64_t from =
                    static_cast<uint64_t>(tile.stripe + i) * tiling_->packedFractals + chunk;
                AscendC::DataCopy(l1b_[l1Buffer_][i * elems], weight_[from * kElems], elems);
            }
        } else {
            AscendC::GlobalTensor<T> wide;
            wide.SetGlobalBuffer((__gm__ T*)layout_.WideTile(index));
            // A packed fractal's rows were widened where they stood: 16 rows of some fractals'
            // width.
            const uint32_t width = tiling_->widening * kCols;
            AscendC::Nd2NzParams params;
            params.ndNum = StripePitch(fractals) / tiling_->widening;
            params.nValue = kFractalRows;
            params.dValue = width;
            params.srcNdMatrixStride = kFractalRows * width;
            params.srcDValue = width;
            params.dstNzC0Stride = kFractalRows;
            params.dstNzNStride = 1;
            params.dstNzMatrixStride = kFractalRows * width;
            for (uint32_t i = 0; i < tile.stripes; ++i) {
                const uint64_t from =
                    static_cast<uint64_t>(i) * StripePitch(tiling_->fractals) + chunk;
                AscendC::DataCopy(l1b_[l1Buffer_][i * elems], wide[from * kElems], params);
            }
        }
    }

    // L1 NZ -> L0A ZZ (rows, depth): fractals from `first` on of the chunk
    __aicore__ inline void LoadTokens(uint32_t rows, uint32_t first, uint32_t depth) {
        const uint32_t rowFractals = CeilDiv(MaxOf(2u, rows), kFractalRows);
        AscendC::LoadData2DParams params;
        params.repeatTimes = depth;
        params.srcStride = rowFractals;
        params.dstGap = 0;
        params.ifTranspose = false;
        for (uint32_t row = 0; row < rowFractals; ++row) {
            params.startIndex = first * rowFractals + row;
            AscendC::LoadData(cube_.A()[row * depth * kElems], l1a_[l1Buffer_], params);
        }
    }

    // L1 (stripes, pitch) -> L0B ZN (depth, stripes): fractals from `first` on of the chunk
    __aicore__ inline void LoadWeight(uint32_t stripes, uint32_t first, uint32_t depth,
                                      uint32_t pitch) {
        AscendC::LoadData2DParams params;
        params.ifTranspose = false;
        if (depth < stripes) {
            params.repeatTimes = stripes;
            params.srcStride = pitch;
            params.dstGap = 0;
            for (uint32_t k = 0; k < depth; ++k) {
                params.startIndex = first + k;
                AscendC::LoadData(cube_.B()[k * stripes * kElems], l1b_[l1Buffer_], params);
            }
            return;
        }
        params.repeatTimes = depth;
        params.srcStride = 1;
        params.dstGap = stripes - 1;
        for (uint32_t i = 0; i < stripes; ++i) {
            params.startIndex = i * pitch + first;
            AscendC::LoadData(cube_.B()[i * kElems], l1b_[l1Buffer_], params);
        }
    }

    const QuantMatmulTilingData* tiling_ = nullptr;
    bool tokensInX_ = false;
    uint32_t rows_ = 0;
    uint32_t parts_ = 0;
    int32_t l1Buffer_ = 0;
    QuantLayout layout_;
    CubeUnit<T, Sum, Operand> cube_;
    AscendC::GlobalTensor<T> tokens_;
    AscendC::GlobalTensor<T> weight_;
    AscendC::LocalTensor<T> l1a_[2];  // NZ (rows, chunk)
    AscendC::LocalTensor<T> l1b_[2];  // (stripes, chunk) fractals
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_QUANT_MATMUL_CUBE_H_
