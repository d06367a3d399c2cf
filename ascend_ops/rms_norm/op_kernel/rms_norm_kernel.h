// rms_norm on one vector core: its rows, tile by tile, MTE2 -> V -> MTE3 on two buffers.
#ifndef ASCEND_OPS_RMS_NORM_KERNEL_H_
#define ASCEND_OPS_RMS_NORM_KERNEL_H_

#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "kernel_operator.h"
#include "rms_norm/op_kernel/rms_norm_rows.h"
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
        for (uint32_t buffer = 0; buffer < tiling->numBuffers; ++buffer) {
            xUb_[buffer] = ub_.Take<T>(elems);
            if constexpr (kResidual) residualUb_[buffer] = ub_.Take<T>(elems);
        }
        if constexpr (!kIsFloat) wideUb_ = ub_.Take<float>(elems);
        rows_.Init(tiling, &ub_);
    }

    __aicore__ inline void Process() {
        const uint32_t core = static_cast<uint32_t>(AscendC::GetBlockIdx());
        const uint32_t begin = MinOf(core * tiling_->rowsPerCore, tiling_->numRows);
        const uint32_t end = MinOf(begin + tiling_->rowsPerCore, tiling_->numRows);
        const uint32_t tiles = CeilDiv(end - begin, tiling_->rowsPerTile);
        if (tiles == 0) return;
        rows_.FillConstants();
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

    __aicore__ inline int32_t EventOf(uint32_t buffer) { return static_cast<int32_t>(buffer); }

    __aicore__ inline uint32_t BufferOf(uint32_t tile) { return tile % tiling_->numBuffers; }

    __aicore__ inline uint32_t RowsOf(uint32_t tile, uint32_t begin, uint32_t end) {
        return MinOf(tiling_->rowsPerTile, end - begin - tile * tiling_->rowsPerTile);
    }

    __aicore__ inline uint64_t OffsetOf(uint32_t tile, uint32_t begin) {
        return static_cast<uint64_t>(begin + tile * tiling_->rowsPerTile) * tiling_->hiddenSize;
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
        const auto raw = rows_.Work().template ReinterpretCast<T>();
        if constexpr (kIsFloat) {
            CopyRowsIn(rows_.Weight(), weight_, 1);
        } else {
            CopyRowsIn(raw, weight_, 1);
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kWeightEvent);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kWeightEvent);
        if constexpr (!kIsFloat) {
            AscendC::Cast(rows_.Weight(), raw, AscendC::RoundMode::CAST_NONE, tiling_->pitch);
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
        rows_.Normalize(h, rows);
        if constexpr (kIsFloat) {
            rows_.MulByWeight(xUb_[buffer], rows);
        } else {
            rows_.MulByWeight(rows_.Work(), rows);
            AscendC::Cast(xUb_[buffer], rows_.Work(), AscendC::RoundMode::CAST_RINT, elems);
            if constexpr (kResidual) AscendC::PipeBarrier<PIPE_V>();  // Widen writes work next
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
                const AscendC::LocalTensor<float> work = rows_.Work();
                AscendC::Cast(work, residualUb_[buffer], AscendC::RoundMode::CAST_NONE, elems);
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Add(wideUb_, wideUb_, work, static_cast<int32_t>(elems));
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Cast(residualUb_[buffer], wideUb_, AscendC::RoundMode::CAST_RINT, elems);
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Cast(wideUb_, residualUb_[buffer], AscendC::RoundMode::CAST_NONE, elems);
            }
            AscendC::PipeBarrier<PIPE_V>();
            return wideUb_;
        }
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
    RmsNormRows<T> rows_;
    UbSpace ub_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_RMS_NORM_KERNEL_H_
