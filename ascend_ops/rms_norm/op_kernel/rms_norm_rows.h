// The arithmetic of rms_norm on a tile of rows in UB.
#ifndef ASCEND_OPS_RMS_NORM_ROWS_H_
#define ASCEND_OPS_RMS_NORM_ROWS_H_

#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "kernel_operator.h"
#include "rms_norm/op_kernel/rms_norm_tiling_data.h"

namespace ascend_ops {

// T: element type of x. Rows lie `pitch` floats apart.
template <typename T>
class RmsNormRows {
  public:
    __aicore__ inline void Init(const RmsNormTilingData* tiling, UbSpace* ub) {
        tiling_ = tiling;
        const uint32_t rows = AlignUp(tiling->rowsPerTile, kFloatsPerBlock);
        workUb_ = ub->Take<float>(tiling->rowsPerTile * tiling->pitch);
        weightUb_ = ub->Take<float>(tiling->pitch);
        foldUb_ = ub->Take<float>(rows * kFloatsPerRepeat);
        blocksUb_ = ub->Take<float>(rows * kFloatsPerBlock);
        rmsUb_ = ub->Take<float>(rows);
        countUb_ = ub->Take<float>(rows);
        onesUb_ = ub->Take<float>(rows);
    }

    __aicore__ inline void FillConstants() {
        const uint32_t rows = AlignUp(tiling_->rowsPerTile, kFloatsPerBlock);
        AscendC::Duplicate(rmsUb_, 1.0f, static_cast<int32_t>(rows));
        AscendC::Duplicate(countUb_, static_cast<float>(tiling_->hiddenSize),
                           static_cast<int32_t>(rows));
        AscendC::Duplicate(onesUb_, 1.0f, static_cast<int32_t>(rows));
        AscendC::PipeBarrier<PIPE_V>();
    }

    // work = h / sqrt(mean(h^2) + eps), row by row. h is not the work buffer.
    __aicore__ inline void Normalize(const AscendC::LocalTensor<float>& h, uint32_t rows) {
        AscendC::Mul(workUb_, h, h, static_cast<int32_t>(rows * tiling_->pitch));
        AscendC::Duplicate(foldUb_, 0.0f, static_cast<int32_t>(rows * kFloatsPerRepeat));
        AscendC::PipeBarrier<PIPE_V>();
        FoldRows(rows);
        RootMeanSquares(rows);
        DivideByRms(h, rows);
    }

    // dst[row, :] = work[row, :] * weight
    __aicore__ inline void MulByWeight(const AscendC::LocalTensor<float>& dst, uint32_t rows) {
        const uint32_t cols = tiling_->hiddenSize;
        if (tiling_->acrossRows != 0) {
            const uint8_t step = tiling_->pitch / kFloatsPerBlock;
            for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
                const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
                AscendC::Mul(dst[col], workUb_[col], weightUb_[col], mask, rows,
                             {1, 1, 1, step, step, 0});
            }
        } else {
            for (uint32_t row = 0; row < rows; ++row) {
                const uint32_t at = row * tiling_->pitch;
                AscendC::Mul(dst[at], workUb_[at], weightUb_, static_cast<int32_t>(cols));
            }
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

    // (rowsPerTile, pitch): squares, then h / rms. Scratch between tiles.
    __aicore__ inline const AscendC::LocalTensor<float>& Work() { return workUb_; }
    // (pitch,)
    __aicore__ inline const AscendC::LocalTensor<float>& Weight() { return weightUb_; }

  private:
    static constexpr bool kIsFloat = IsSame<T, float>::kValue;

    // fold[row, :] = sums of work[row, :] by lane, 64 a row
    __aicore__ inline void FoldRows(uint32_t rows) {
        const uint32_t pitch = tiling_->pitch;
        uint32_t cols = tiling_->hiddenSize;
        if (tiling_->acrossRows != 0) {
            const uint8_t step = pitch / kFloatsPerBlock;
            for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
                const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
                AscendC::Add(foldUb_, foldUb_, workUb_[col], mask, rows, {1, 1, 1, 8, 8, step});
                AscendC::PipeBarrier<PIPE_V>();
            }
            return;
        }
        // Halves of each row onto one another: a tree of additions.
        while (cols > kFloatsPerRepeat) {
            const uint32_t keep = AlignUp(CeilDiv(cols, 2), kFloatsPerRepeat);
            for (uint32_t row = 0; row < rows; ++row) {
                const auto first = workUb_[row * pitch];
                AscendC::Add(first, first, workUb_[row * pitch + keep],
                             static_cast<int32_t>(cols - keep));
            }
            AscendC::PipeBarrier<PIPE_V>();
            cols = keep;
        }
        for (uint32_t row = 0; row < rows; ++row) {
            const auto fold = foldUb_[row * kFloatsPerRepeat];
            AscendC::Add(fold, fold, workUb_[row * pitch], static_cast<int32_t>(cols));
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

    // blocks[row] = sqrt(mean + eps), eight times; its inverse for half
    __aicore__ inline void RootMeanSquares(uint32_t rows) {
        const int32_t count = static_cast<int32_t>(rows);
        ReduceRepeatSum(rmsUb_, foldUb_, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Div(rmsUb_, rmsUb_, countUb_, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Adds(rmsUb_, rmsUb_, tiling_->eps, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Sqrt(rmsUb_, rmsUb_, count);
        AscendC::PipeBarrier<PIPE_V>();
        if constexpr (!kIsFloat) {
            AscendC::Div(rmsUb_, onesUb_, rmsUb_, count);
            AscendC::PipeBarrier<PIPE_V>();
        }
        AscendC::Brcb(blocksUb_, rmsUb_, CeilDiv(rows, kFloatsPerBlock), {1, 8});
        AscendC::PipeBarrier<PIPE_V>();
    }

    // work[row, :] = h[row, :] / rms[row]
    __aicore__ inline void DivideByRms(const AscendC::LocalTensor<float>& h, uint32_t rows) {
        const uint32_t cols = tiling_->hiddenSize;
        if (tiling_->acrossRows != 0) {
            const uint8_t step = tiling_->pitch / kFloatsPerBlock;
            for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
                const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
                Scale(col, h, blocksUb_, mask, rows, {1, 1, 0, step, step, 1});
            }
        } else {
            const uint32_t repeats = cols / kFloatsPerRepeat;
            const uint32_t tail = cols % kFloatsPerRepeat;
            for (uint32_t row = 0; row < rows; ++row) {
                const auto block = blocksUb_[row * kFloatsPerBlock];
                const uint32_t at = row * tiling_->pitch;
                if (repeats > 0) {
                    Scale(at, h, block, kFloatsPerRepeat, repeats, {1, 1, 0, 8, 8, 0});
                }
                if (tail > 0) Scale(at + cols - tail, h, block, tail, 1, {1, 1, 0, 8, 8, 0});
            }
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

    // Half multiplies by the inverse: cheaper, and what it loses vanishes when y is rounded.
    __aicore__ inline void Scale(uint32_t at, const AscendC::LocalTensor<float>& h,
                                 const AscendC::LocalTensor<float>& blocks, uint64_t mask,
                                 uint8_t repeats, const AscendC::BinaryRepeatParams& params) {
        if constexpr (kIsFloat) {
            AscendC::Div(workUb_[at], h[at], blocks, mask, repeats, params);
        } else {
            AscendC::Mul(workUb_[at], h[at], blocks, mask, repeats, params);
        }
    }

    const RmsNormTilingData* tiling_ = nullptr;
    AscendC::LocalTensor<float> workUb_;
    AscendC::LocalTensor<float> weightUb_;
    AscendC::LocalTensor<float> foldUb_;    // (rowsPerTile, 64)
    AscendC::LocalTensor<float> blocksUb_;  // (rowsPerTile, 8)
    AscendC::LocalTensor<float> rmsUb_;     // (rowsPerTile,), as are the next two
    AscendC::LocalTensor<float> countUb_;   // hiddenSize
    AscendC::LocalTensor<float> onesUb_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_RMS_NORM_ROWS_H_
