// The first step on the AIVs: tokens as the cube takes them, in the workspace.
#ifndef ASCEND_OPS_QUANT_MATMUL_TOKENS_H_
#define ASCEND_OPS_QUANT_MATMUL_TOKENS_H_

#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "kernel_operator.h"
#include "quant_matmul/op_kernel/quant_matmul_layout.h"
#include "quant_matmul/op_kernel/quant_matmul_tiling_data.h"

namespace ascend_ops {

// X: element type of x. A token is read in pieces: for its largest value, then to be quantised;
// rounded to half it is read once.
template <uint64_t kRoute, typename X>
class QuantMatmulTokens {
  public:
    __aicore__ inline void Init(const QuantMatmulTilingData* tiling, const QuantMatmulGm& gm,
                                const QuantLayout& layout, UbSpace ub) {
        tiling_ = tiling;
        x_.SetGlobalBuffer((__gm__ X*)gm.x);
        rows_.SetGlobalBuffer((__gm__ int8_t*)layout.Tokens());
        halfRows_.SetGlobalBuffer((__gm__ half*)layout.Tokens());
        scales_.SetGlobalBuffer((__gm__ float*)layout.Scales());
        xUb_ = ub.Take<X>(tiling->piece);
        wideUb_ = ub.Take<float>(tiling->piece);
        digitUb_ = ub.Take<float>(tiling->piece);
        integerUb_ = ub.Take<int32_t>(tiling->piece);
        halfUb_ = ub.Take<half>(tiling->piece);
        bytesUb_ = ub.Take<int8_t>(tiling->piece);
        foldUb_ = ub.Take<float>(tiling->piece / kFloatsPerRepeat + kFloatsPerRepeat);
        scaleUb_ = ub.Take<float>(kFloatsPerBlock);
        divisorUb_ = ub.Take<float>(kFloatsPerBlock);
    }

    // This AIV's share of all tokens, or of all that its core needs.
    __aicore__ inline void Process() {
        uint32_t workers = 2;
        uint32_t index = static_cast<uint32_t>(AscendC::GetSubBlockIdx());
        if (tiling_->sharedTokens != 0) {
            workers = 2 * tiling_->numCores;
            index = static_cast<uint32_t>(AscendC::GetBlockIdx());
        }
        for (uint32_t token = index; token < tiling_->numTokens; token += workers) {
            if constexpr (Route::kHalf) {
                Round(token);
            } else {
                FindScale(token);
                Quantize(token);
            }
        }
    }

  private:
    using Route = QuantRoute<kRoute>;
    static constexpr int32_t kEvent = 0;

    // GM x[token, column : column + piece] -> UB wide, with zeros up to a whole repeat; their count
    __aicore__ inline uint32_t CopyIn(uint32_t token, uint32_t column) {
        const uint32_t count = MinOf(tiling_->piece, tiling_->inFeatures - column);
        const uint32_t padded = AlignUp(count, kFloatsPerRepeat);
        const uint64_t from = static_cast<uint64_t>(token) * tiling_->inFeatures + column;
        AscendC::DataCopyExtParams params;
        params.blockCount = 1;
        params.blockLen = count * static_cast<uint32_t>(sizeof(X));
        AscendC::DataCopyPadExtParams<X> pad;
        pad.isPad = true;  // what fills up the last block is 0
        pad.rightPadding = AlignUp(count, kBlockBytes / static_cast<uint32_t>(sizeof(X))) - count;
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kEvent);
        if constexpr (IsSame<X, float>::kValue) {
            AscendC::Duplicate<float>(wideUb_[padded - kFloatsPerRepeat], 0.0f, kFloatsPerRepeat);
            AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kEvent);
            AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kEvent);
            AscendC::DataCopyPad(wideUb_, x_[from], params, pad);
            AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kEvent);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kEvent);
        } else {
            AscendC::DataCopyPad(xUb_, x_[from], params, pad);
            AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kEvent);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kEvent);
            AscendC::Duplicate<float>(wideUb_[padded - kFloatsPerRepeat], 0.0f, kFloatsPerRepeat);
            AscendC::PipeBarrier<PIPE_V>();
            AscendC::Cast(wideUb_, xUb_, AscendC::RoundMode::CAST_NONE, count);
            AscendC::PipeBarrier<PIPE_V>();
        }
        return count;
    }

    // scale = max |x| / largest, and a divisor that is 1 for a token of zeros
    __aicore__ inline void FindScale(uint32_t token) {
        AscendC::Duplicate<float>(foldUb_, 0.0f, kFloatsPerRepeat);
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t column = 0; column < tiling_->inFeatures; column += tiling_->piece) {
            const uint32_t padded = AlignUp(CopyIn(token, column), kFloatsPerRepeat);
            AscendC::Abs(wideUb_, wideUb_, static_cast<int32_t>(padded));
            AscendC::PipeBarrier<PIPE_V>();
            const auto maxima = foldUb_[kFloatsPerRepeat];
            const int32_t repeats = static_cast<int32_t>(padded / kFloatsPerRepeat);
            ReduceRepeatMax(maxima, wideUb_, repeats);
            AscendC::PipeBarrier<PIPE_V>();
            AscendC::Max(foldUb_, foldUb_, maxima, repeats);
            AscendC::PipeBarrier<PIPE_V>();
        }
        ReduceRepeatMax(divisorUb_, foldUb_, 1);
        AscendC::SetFlag<AscendC::HardEvent::V_S>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::V_S>(kEvent);
        const float scale = divisorUb_.GetValue(0) / tiling_->largest;
        AscendC::SetFlag<AscendC::HardEvent::S_V>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::S_V>(kEvent);
        AscendC::Duplicate<float>(scaleUb_, scale, kFloatsPerBlock);
        AscendC::Duplicate<float>(divisorUb_, scale == 0.0f ? 1.0f : scale, kFloatsPerBlock);
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kEvent);
        AscendC::DataCopy(scales_[static_cast<uint64_t>(token) * kFloatsPerBlock], scaleUb_,
                          kFloatsPerBlock);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kEvent);
    }

    // Rows of integers, piece by piece; columns past the last one are 0.
    __aicore__ inline void Quantize(uint32_t token) {
        const uint32_t width = tiling_->fractals * (Route::kDigits ? 64 : 32);  // of a row
        for (uint32_t column = 0; column < width; column += tiling_->piece) {
            const uint32_t count = MinOf(tiling_->piece, width - column);
            const uint32_t padded = AlignUp(count, kFloatsPerRepeat);
            CopyIn(token, column);
            AscendC::Div(wideUb_, wideUb_, divisorUb_, kFloatsPerRepeat, padded / kFloatsPerRepeat,
                         {1, 1, 0, 8, 8, 0});
            AscendC::PipeBarrier<PIPE_V>();
            RoundToIntegers(wideUb_, padded);
            const uint64_t row = static_cast<uint64_t>(token) * tiling_->tokenRowBytes;
            if constexpr (Route::kDigits) {
                // x = 16 high + low, with low -8 to 7: a quarter more keeps ties from going astray.
                AscendC::Adds(digitUb_, wideUb_, 0.25f, static_cast<int32_t>(padded));
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Muls(digitUb_, digitUb_, 0.0625f, static_cast<int32_t>(padded));
                AscendC::PipeBarrier<PIPE_V>();
                RoundToIntegers(digitUb_, padded);
                CopyOutDigits(row + column / 2, digitUb_, count);
                AscendC::Muls(digitUb_, digitUb_, -16.0f, static_cast<int32_t>(padded));
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Add(wideUb_, wideUb_, digitUb_, static_cast<int32_t>(padded));
                AscendC::PipeBarrier<PIPE_V>();
                CopyOutDigits(row + tiling_->tokenRowBytes / 2 + column / 2, wideUb_, count);
            } else {
                AscendC::Cast(halfUb_, wideUb_, AscendC::RoundMode::CAST_RINT, padded);
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Cast(bytesUb_, halfUb_, AscendC::RoundMode::CAST_RINT, padded);
                CopyOut(row + column, count);
            }
        }
    }

    __aicore__ inline void RoundToIntegers(const AscendC::LocalTensor<float>& values,
                                           uint32_t count) {
        AscendC::Cast(integerUb_, values, AscendC::RoundMode::CAST_RINT, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Cast(values, integerUb_, AscendC::RoundMode::CAST_NONE, count);
        AscendC::PipeBarrier<PIPE_V>();
    }

    // UB digits -> UB int4b_t -> GM, at byte `to`; `count` of them
    __aicore__ inline void CopyOutDigits(uint64_t to, const AscendC::LocalTensor<float>& digits,
                                         uint32_t count) {
        AscendC::Cast(halfUb_, digits, AscendC::RoundMode::CAST_RINT, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Cast(bytesUb_.template ReinterpretCast<AscendC::int4b_t>(), halfUb_,
                      AscendC::RoundMode::CAST_RINT, count);
        CopyOut(to, count / 2);
    }

    // UB bytes -> GM, at byte `to`
    __aicore__ inline void CopyOut(uint64_t to, uint32_t count) {
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kEvent);
        AscendC::DataCopy(rows_[to], bytesUb_, count);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kEvent);
    }

    // A row of half, piece by piece; columns past the last one are 0.
    __aicore__ inline void Round(uint32_t token) {
        const uint32_t width = tiling_->fractals * kFractalRows;
        const uint64_t row = static_cast<uint64_t>(token) * width;
        for (uint32_t column = 0; column < width; column += tiling_->piece) {
            const uint32_t count = MinOf(tiling_->piece, width - column);
            CopyIn(token, column);
            AscendC::Cast(halfUb_, wideUb_, AscendC::RoundMode::CAST_RINT, count);
            AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kEvent);
            AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kEvent);
            AscendC::DataCopy(halfRows_[row + column], halfUb_, count);
            AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kEvent);
            AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kEvent);
        }
    }

    const QuantMatmulTilingData* tiling_ = nullptr;
    AscendC::GlobalTensor<X> x_;
    AscendC::GlobalTensor<int8_t> rows_;
    AscendC::GlobalTensor<half> halfRows_;
    AscendC::GlobalTensor<float> scales_;
    AscendC::LocalTensor<X> xUb_;
    AscendC::LocalTensor<float> wideUb_;
    AscendC::LocalTensor<float> digitUb_;
    AscendC::LocalTensor<int32_t> integerUb_;
    AscendC::LocalTensor<half> halfUb_;
    AscendC::LocalTensor<int8_t> bytesUb_;
    AscendC::LocalTensor<float> foldUb_;   // 64 maxima, then those of each repeat
    AscendC::LocalTensor<float> scaleUb_;  // eight times, like divisorUb
    AscendC::LocalTensor<float> divisorUb_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_QUANT_MATMUL_TOKENS_H_
