// rms_norm on one vector core: its rows, tile by tile, MTE2 -> V -> MTE3 on two buffers.
#ifndef ASCEND_OPS_RMS_NORM_KERNEL_H_
#define ASCEND_OPS_RMS_NORM_KERNEL_H_

#include "common/op_kernel/tile_math.h"
#include "kernel_operator.h"
#include "rms_norm/op_kernel/rms_norm_tiling_data.h"

namespace ascend_ops {

struct RmsNormGm {
    GM_ADDR x;
    GM_ADDR weight;
    GM_ADDR residual;
    GM_ADDR y;
    GM_ADDR total;
};

// A tile is (rows, pitch). y leaves from the buffer that x came in, and x + residual from that of
// the residual, so a buffer is refilled once it was written out: flag MTE3_MTE2 of its index.
template <typename T, bool kResidual>
class RmsNormKernel {
  public:
    __aicore__ inline void Init(const RmsNormTilingData* tiling, const RmsNormGm& gm) {
        tiling_ = tiling;
        x_.SetGlobalBuffer((__gm__ T*)gm.x);
        weight_.SetGlobalBuffer((__gm__ T*)gm.weight);
        y_.SetGlobalBuffer((__gm__ T*)gm.y);
        if constexpr (kResidual) {
            residual_.SetGlobalBuffer((__gm__ T*)gm.residual);
            total_.SetGlobalBuffer((__gm__ T*)gm.total);
        }
        const uint32_t elems = tiling->rowsPerTile * tiling->pitch;
        const uint32_t rows = AlignUp(tiling->rowsPerTile, kFloatsPerBlock);
        for (uint32_t buffer = 0; buffer < tiling->numBuffers; ++buffer) {
            xUb_[buffer] = Take<T>(elems);
            if constexpr (kResidual) residualUb_[buffer] = Take<T>(elems);
        }
        if constexpr (!kIsFloat) wideUb_ = Take<float>(elems);
        workUb_ = Take<float>(elems);
        weightUb_ = Take<float>(tiling->pitch);
        foldUb_ = Take<float>(rows * kFloatsPerRepeat);
        blocksUb_ = Take<float>(rows * kFloatsPerBlock);
        rmsUb_ = Take<float>(rows);
        countUb_ = Take<float>(rows);
        onesUb_ = Take<float>(rows);
    }

    __aicore__ inline void Process() {
        const uint32_t core = static_cast<uint32_t>(AscendC::GetBlockIdx());
        const uint32_t begin = MinOf(core * tiling_->rowsPerCore, tiling_->numRows);
        const uint32_t end = MinOf(begin + tiling_->rowsPerCore, tiling_->numRows);
        const uint32_t tiles = CeilDiv(end - begin, tiling_->rowsPerTile);
        if (tiles == 0) return;
        FillConstants();
        LoadWeight();
        const uint32_t ahead = tiling_->numBuffers - 1;
        for (uint32_t buffer = 0; buffer <= ahead; ++buffer) {
            AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(EventOf(buffer));
        }
        for (uint32_t step = 0; step < tiles + ahead; ++step) {
            if (step < tiles) CopyIn(step, begin, end);
            if (step < ahead) continue;
            Compute(step - ahead, begin, end);
            CopyOut(step - ahead, begin, end);
        }
        for (uint32_t buffer = 0; buffer <= ahead; ++buffer) {
            AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(EventOf(buffer));
        }
    }

  private:
    static constexpr bool kIsFloat = IsSame<T, float>::kValue;
    static constexpr int32_t kWeightEvent = 2;

    template <typename E>
    __aicore__ inline AscendC::LocalTensor<E> Take(uint32_t elems) {
        const uint32_t address = ubBytes_;
        ubBytes_ += AlignUp(elems * static_cast<uint32_t>(sizeof(E)), kBlockBytes);
        return AscendC::LocalTensor<E>(AscendC::TPosition::VECCALC, address, elems);
    }

    __aicore__ inline int32_t EventOf(uint32_t buffer) { return static_cast<int32_t>(buffer); }

    __aicore__ inline uint32_t BufferOf(uint32_t tile) { return tile % tiling_->numBuffers; }

    __aicore__ inline uint32_t RowsOf(uint32_t tile, uint32_t begin, uint32_t end) {
        return MinOf(tiling_->rowsPerTile, end - begin - tile * tiling_->rowsPerTile);
    }

    __aicore__ inline uint64_t OffsetOf(uint32_t tile, uint32_t begin) {
        return static_cast<uint64_t>(begin + tile * tiling_->rowsPerTile) * tiling_->hiddenSize;
    }

    __aicore__ inline void FillConstants() {
        const uint32_t rows = AlignUp(tiling_->rowsPerTile, kFloatsPerBlock);
        AscendC::Duplicate(rmsUb_, 1.0f, static_cast<int32_t>(rows));
        AscendC::Duplicate(countUb_, static_cast<float>(tiling_->hiddenSize),
                           static_cast<int32_t>(rows));
        AscendC::Duplicate(onesUb_, 1.0f, static_cast<int32_t>(rows));
        AscendC::PipeBarrier<PIPE_V>();
    }

    // GM src (rows, hiddenSize) -> UB dst (rows, pitch), zeros behind each row
    __aicore__ inline void CopyRowsIn(const AscendC::LocalTensor<T>& dst,
                                      const AscendC::GlobalTensor<T>& src, uint32_t rows) {
        AscendC::DataCopyExtParams params;
        params.blockCount = rows;
        params.blockLen = tiling_->hiddenSize * static_cast<uint32_t>(sizeof(T));
        AscendC::DataCopyPadExtParams<T> pad;
        pad.isPad = tiling_->pitch != tiling_->hiddenSize;
        pad.rightPadding = tiling_->pitch - tiling_->hiddenSize;
        AscendC::DataCopyPad(dst, src, params, pad);
    }

    // UB src (rows, pitch) -> GM dst (rows, hiddenSize)
    __aicore__ inline void CopyRowsOut(const AscendC::GlobalTensor<T>& dst,
                                       const AscendC::LocalTensor<T>& src, uint32_t rows) {
        AscendC::DataCopyExtParams params;
        params.blockCount = rows;
        params.blockLen = tiling_->hiddenSize * static_cast<uint32_t>(sizeof(T));
        AscendC::DataCopyPad(dst, src, params);
    }

    // GM weight (hiddenSize,) -> UB weight in float, by way of the work buffer
    __aicore__ inline void LoadWeight() {
        const auto raw = workUb_.template ReinterpretCast<T>();
        if constexpr (kIsFloat) {
            CopyRowsIn(weightUb_, weight_, 1);
        } else {
            CopyRowsIn(raw, weight_, 1);
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kWeightEvent);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kWeightEvent);
        if constexpr (!kIsFloat) {
            AscendC::Cast(weightUb_, raw, AscendC::RoundMode::CAST_NONE, tiling_->pitch);
            AscendC::PipeBarrier<PIPE_V>();
        }
    }

    // GM x, residual [row : row + rows, :] -> UB of the tile's buffer
    __aicore__ inline void CopyIn(uint32_t tile, uint32_t begin, uint32_t end) {
        const uint32_t buffer = BufferOf(tile);
        const uint32_t rows = RowsOf(tile, begin, end);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(EventOf(buffer));
        CopyRowsIn(xUb_[buffer], x_[OffsetOf(tile, begin)], rows);
        if constexpr (kResidual) {
            CopyRowsIn(residualUb_[buffer], residual_[OffsetOf(tile, begin)], rows);
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(EventOf(buffer));
    }

    // UB of the tile's buffer -> GM y, total [row : row + rows, :]
    __aicore__ inline void CopyOut(uint32_t tile, uint32_t begin, uint32_t end) {
        const uint32_t buffer = BufferOf(tile);
        const uint32_t rows = RowsOf(tile, begin, end);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(EventOf(buffer));
        CopyRowsOut(y_[OffsetOf(tile, begin)], xUb_[buffer], rows);
        if constexpr (kResidual) {
            CopyRowsOut(total_[OffsetOf(tile, begin)], residualUb_[buffer], rows);
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(EventOf(buffer));
    }

    // y = weight * h / sqrt(mean(h^2) + eps)
    __aicore__ inline void Compute(uint32_t tile, uint32_t begin, uint32_t end) {
        const uint32_t buffer = BufferOf(tile);
        const uint32_t rows = RowsOf(tile, begin, end);
        const uint32_t elems = rows * tiling_->pitch;
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(EventOf(buffer));
        const AscendC::LocalTensor<float> h = Widen(buffer, elems);
        AscendC::Mul(workUb_, h, h, static_cast<int32_t>(elems));
        AscendC::Duplicate(foldUb_, 0.0f, static_cast<int32_t>(rows * kFloatsPerRepeat));
        AscendC::PipeBarrier<PIPE_V>();
        FoldRows(rows);
        RootMeanSquares(rows);
        DivideByRms(h, rows);
        if constexpr (kIsFloat) {
            MulByWeight(xUb_[buffer], rows);
        } else {
            MulByWeight(workUb_, rows);
            AscendC::Cast(xUb_[buffer], workUb_, AscendC::RoundMode::CAST_RINT, elems);
        }
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(EventOf(buffer));
    }

    // The tile in float: x, or x + residual as it is after rounding to T.
    __aicore__ inline AscendC::LocalTensor<float> Widen(uint32_t buffer, uint32_t elems) {
        if constexpr (kIsFloat && kResidual) {
            AscendC::Add(residualUb_[buffer], xUb_[buffer], residualUb_[buffer],
                         static_cast<int32_t>(elems));
            AscendC::PipeBarrier<PIPE_V>();
            return residualUb_[buffer];
        } else if constexpr (kIsFloat) {
            return xUb_[buffer];
        } else {
            AscendC::Cast(wideUb_, xUb_[buffer], AscendC::RoundMode::CAST_NONE, elems);
            if constexpr (kResidual) {
                AscendC::Cast(workUb_, residualUb_[buffer], AscendC::RoundMode::CAST_NONE, elems);
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Add(wideUb_, wideUb_, workUb_, static_cast<int32_t>(elems));
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Cast(residualUb_[buffer], wideUb_, AscendC::RoundMode::CAST_RINT, elems);
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Cast(wideUb_, residualUb_[buffer], AscendC::RoundMode::CAST_NONE, elems);
            }
            AscendC::PipeBarrier<PIPE_V>();
            return wideUb_;
        }
    }

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

    const RmsNormTilingData* tiling_ = nullptr;
    AscendC::GlobalTensor<T> x_;
    AscendC::GlobalTensor<T> weight_;
    AscendC::GlobalTensor<T> residual_;
    AscendC::GlobalTensor<T> y_;
    AscendC::GlobalTensor<T> total_;
    AscendC::LocalTensor<T> xUb_[2];         // (rowsPerTile, pitch): x comes, y goes
    AscendC::LocalTensor<T> residualUb_[2];  // the same: residual comes, x + residual goes
    AscendC::LocalTensor<float> wideUb_;     // x in float, where T is half
    AscendC::LocalTensor<float> workUb_;     // squares, then h / rms
    AscendC::LocalTensor<float> weightUb_;   // (pitch,)
    AscendC::LocalTensor<float> foldUb_;     // (rowsPerTile, 64)
    AscendC::LocalTensor<float> blocksUb_;   // (rowsPerTile, 8)
    AscendC::LocalTensor<float> rmsUb_;      // (rowsPerTile,), as are the next two
    AscendC::LocalTensor<float> countUb_;    // hiddenSize
    AscendC::LocalTensor<float> onesUb_;
    uint32_t ubBytes_ = 0;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_RMS_NORM_KERNEL_H_
