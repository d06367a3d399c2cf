// swiglu on one vector core: its tiles one after the other, MTE2 -> V -> MTE3 on two buffers.
#ifndef ASCEND_OPS_SWIGLU_KERNEL_H_
#define ASCEND_OPS_SWIGLU_KERNEL_H_

#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "kernel_operator.h"
#include "swiglu/op_kernel/swiglu_tiling_data.h"

namespace ascend_ops {

// The output leaves from the buffer that the gate came in, so a buffer is refilled once it was
// written out: flag MTE3_MTE2 of its index.
template <typename T>
class SwigluKernel {
  public:
    __aicore__ inline void Init(const SwigluTilingData* tiling, GM_ADDR x, GM_ADDR out) {
        tiling_ = tiling;
        x_.SetGlobalBuffer((__gm__ T*)x);
        out_.SetGlobalBuffer((__gm__ T*)out);
        for (uint32_t buffer = 0; buffer < kBuffers; ++buffer) {
            gateUb_[buffer] = ub_.Take<T>(tiling->tileElems);
            valueUb_[buffer] = ub_.Take<T>(tiling->tileElems);
        }
        if constexpr (!kIsFloat) {
            wideGateUb_ = ub_.Take<float>(tiling->tileElems);
            wideValueUb_ = ub_.Take<float>(tiling->tileElems);
        }
        workUb_ = ub_.Take<float>(tiling->tileElems);
    }

    __aicore__ inline void Process() {
        const uint64_t core = static_cast<uint64_t>(AscendC::GetBlockIdx());
        const uint64_t begin = MinOf(core * tiling_->tilesPerCore, tiling_->numTiles);
        const uint64_t end = MinOf(begin + tiling_->tilesPerCore, tiling_->numTiles);
        if (begin == end) return;
        for (uint32_t buffer = 0; buffer < kBuffers; ++buffer) {
            AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(EventOf(buffer));
        }
        CopyIn(begin);
        for (uint64_t tile = begin; tile < end; ++tile) {
            if (tile + 1 < end) CopyIn(tile + 1);
            Compute(tile);
            CopyOut(tile);
        }
        for (uint32_t buffer = 0; buffer < kBuffers; ++buffer) {
            AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(EventOf(buffer));
        }
    }

  private:
    static constexpr bool kIsFloat = IsSame<T, float>::kValue;
    static constexpr uint32_t kBuffers = 2;
    static constexpr uint32_t kElemBytes = sizeof(T);

    // Where a tile lies: rows x cols of the output, from (row, col) on; pitch is that of UB.
    struct Tile {
        uint32_t row;
        uint32_t col;
        uint32_t rows;
        uint32_t cols;
        uint32_t pitch;
    };

    __aicore__ inline int32_t EventOf(uint64_t tile) {
        return static_cast<int32_t>(tile % kBuffers);
    }

    __aicore__ inline Tile TileOf(uint64_t index) {
        Tile tile;
        tile.row = static_cast<uint32_t>(index / tiling_->colTiles) * tiling_->tileRows;
        tile.col = static_cast<uint32_t>(index % tiling_->colTiles) * tiling_->tileCols;
        tile.rows = MinOf(tiling_->tileRows, tiling_->numRows - tile.row);
        tile.cols = MinOf(tiling_->tileCols, tiling_->width - tile.col);
        tile.pitch = AlignUp(tile.cols, kBlockBytes / kElemBytes);
        return tile;
    }

    // GM x[row : row + rows, col : col + cols] and as much of the second half -> UB (rows, pitch)
    __aicore__ inline void CopyIn(uint64_t index) {
        const Tile tile = TileOf(index);
        const uint64_t width = tiling_->width;
        const uint64_t offset = tile.row * 2 * width + tile.col;
        AscendC::DataCopyExtParams params;
        params.blockCount = tile.rows;
        params.blockLen = tile.cols * kElemBytes;
        params.srcStride = tiling_->width * kElemBytes;  // tiles of several rows hold whole ones
        AscendC::DataCopyPadExtParams<T> pad;
        pad.isPad = tile.pitch != tile.cols;
        pad.rightPadding = tile.pitch - tile.cols;
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(EventOf(index));
        AscendC::DataCopyPad(gateUb_[EventOf(index)], x_[offset], params, pad);
        AscendC::DataCopyPad(valueUb_[EventOf(index)], x_[offset + width], params, pad);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(EventOf(index));
    }

    // gate = gate / (1 + exp(-gate)) * value; exp may overflow: the quotient is then -0
    __aicore__ inline void Compute(uint64_t index) {
        const Tile tile = TileOf(index);
        const uint32_t elems = tile.rows * tile.pitch;
        const int32_t count = static_cast<int32_t>(elems);
        const AscendC::LocalTensor<T>& gateIn = gateUb_[EventOf(index)];
        const AscendC::LocalTensor<T>& valueIn = valueUb_[EventOf(index)];
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(EventOf(index));
        if constexpr (kIsFloat) {
            Silu(gateIn, count);
            AscendC::Mul(gateIn, workUb_, valueIn, count);
            AscendC::PipeBarrier<PIPE_V>();  // the next tile writes work first
        } else {
            AscendC::Cast(wideGateUb_, gateIn, AscendC::RoundMode::CAST_NONE, elems);
            AscendC::Cast(wideValueUb_, valueIn, AscendC::RoundMode::CAST_NONE, elems);
            AscendC::PipeBarrier<PIPE_V>();
            Silu(wideGateUb_, count);
            AscendC::Mul(workUb_, workUb_, wideValueUb_, count);
            AscendC::PipeBarrier<PIPE_V>();
            AscendC::Cast(gateIn, workUb_, AscendC::RoundMode::CAST_RINT, elems);
        }
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(EventOf(index));
    }

    // work = gate / (1 + exp(-gate))
    __aicore__ inline void Silu(const AscendC::LocalTensor<float>& gate, int32_t count) {
        AscendC::Muls(workUb_, gate, -1.0f, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Exp(workUb_, workUb_, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Adds(workUb_, workUb_, 1.0f, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Div(workUb_, gate, workUb_, count);
        AscendC::PipeBarrier<PIPE_V>();
    }

    // UB (rows, pitch) -> GM out[row : row + rows, col : col + cols]
    __aicore__ inline void CopyOut(uint64_t index) {
        const Tile tile = TileOf(index);
        AscendC::DataCopyExtParams params;
        params.blockCount = tile.rows;
        params.blockLen = tile.cols * kElemBytes;
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(EventOf(index));
        AscendC::DataCopyPad(out_[static_cast<uint64_t>(tile.row) * tiling_->width + tile.col],
                             gateUb_[EventOf(index)], params);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(EventOf(index));
    }

    const SwigluTilingData* tiling_ = nullptr;
    AscendC::GlobalTensor<T> x_;
    AscendC::GlobalTensor<T> out_;
    AscendC::LocalTensor<T> gateUb_[kBuffers];   // (tileElems,): the gate comes, the output goes
    AscendC::LocalTensor<T> valueUb_[kBuffers];  // the same
    AscendC::LocalTensor<float> wideGateUb_;     // both in float, where T is half
    AscendC::LocalTensor<float> wideValueUb_;
    AscendC::LocalTensor<float> workUb_;
    UbSpace ub_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_SWIGLU_KERNEL_H_
