// The last step on the AIVs: sums times scales, plus bias and residual, rounded once.
#ifndef ASCEND_OPS_QUANT_MATMUL_OUTPUT_H_
#define ASCEND_OPS_QUANT_MATMUL_OUTPUT_H_

#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "kernel_operator.h"
#include "quant_matmul/op_kernel/quant_matmul_layout.h"
#include "quant_matmul/op_kernel/quant_matmul_tiling_data.h"

namespace ascend_ops {

// X: element type of residual and out. A pass takes some tokens of a tile, of all its columns.
template <uint64_t kRoute, typename X, typename Sum>
class QuantMatmulOutput {
  public:
    __aicore__ inline void Init(const QuantMatmulTilingData* tiling, const QuantMatmulGm& gm,
                                const QuantLayout& layout, UbSpace* ub) {
        tiling_ = tiling;
        layout_ = layout;
        scale_.SetGlobalBuffer((__gm__ float*)gm.scale);
        tokenScales_.SetGlobalBuffer((__gm__ float*)layout.Scales());
        bias_.SetGlobalBuffer((__gm__ float*)gm.bias);
        residual_.SetGlobalBuffer((__gm__ X*)gm.residual);
        out_.SetGlobalBuffer((__gm__ X*)gm.out);
        const uint32_t cols = tiling->stripesPerTile * kFractalRows;
        const uint32_t elems = tiling->outputRows * cols;
        sumsUb_ = ub->Take<float>(elems * Route::kRowsPerToken);
        totalUb_ = ub->Take<float>(tiling->totalRows * cols);
        xUb_ = ub->Take<X>(elems);
        scaleUb_ = ub->Take<float>(cols);
        biasUb_ = ub->Take<float>(cols);
        tokenScaleUb_ = ub->Take<float>(tiling->outputRows * kFloatsPerBlock);
        if (tiling->numSums > 1) {
            groupScaleUb_ = ub->Take<float>(cols * GroupPitch());
            offsetsUb_ = ub->Take<uint32_t>(cols);
        }
    }

    __aicore__ inline void Begin() {
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kIn);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kOut);
        if (!HasGroups()) return;
        for (uint32_t i = 0; i < tiling_->stripesPerTile * kFractalRows; ++i) {
            offsetsUb_.SetValue(i, i * GroupPitch() * static_cast<uint32_t>(sizeof(float)));
        }
        AscendC::SetFlag<AscendC::HardEvent::S_V>(kIn);
        AscendC::WaitFlag<AscendC::HardEvent::S_V>(kIn);
    }

    __aicore__ inline void End() {
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kIn);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kOut);
    }

    // This AIV's tokens of a tile, as the AIC's parts of it come in.
    __aicore__ inline void Finish(const QuantTile& tile) {
        uint32_t half = CeilDiv(tile.tokens, 2);
        if (tiling_->serialOutput != 0) half = tile.tokens;
        const uint32_t begin = AscendC::GetSubBlockIdx() == 0 ? 0 : half;
        const uint32_t end = AscendC::GetSubBlockIdx() == 0 ? half : tile.tokens;
        const uint32_t cols = tile.stripes * kFractalRows;
        live_ = MinOf(cols, tiling_->outFeatures - tile.stripe * kFractalRows);
        if (begin < end) CopyInColumns(tile);
        for (uint32_t group = 0; group < tiling_->numSums; group += tiling_->groupsPerPart) {
            AscendC::CrossCoreWaitFlag(kFlagPart);
            const uint32_t groups = MinOf(tiling_->groupsPerPart, tiling_->numSums - group);
            if (begin < end && HasGroups()) CopyInGroupScales(tile, group, groups);
            for (uint32_t token = begin; token < end; token += tiling_->outputRows) {
                const uint32_t count = MinOf(tiling_->outputRows, end - token);
                // Sums of one part are done with at once.
                const auto total = totalUb_[HasGroups() ? (token - begin) * cols : 0];
                for (uint32_t i = 0; i < groups; ++i) {
                    AddSums(tile, i, token, count, total, group + i == 0);
                }
                if (group + groups == tiling_->numSums) CopyOut(tile, token, count, total);
            }
            AscendC::CrossCoreSetFlag<2, PIPE_MTE2>(kFlagFree);
            ++parts_;
        }
    }

  private:
    using Route = QuantRoute<kRoute>;
    static constexpr int32_t kIn = 0;
    static constexpr int32_t kOut = 1;
    static constexpr int32_t kColumns = 2;

    __aicore__ inline bool HasGroups() { return tiling_->numSums > 1; }

    // Floats from one row's group scales to the next row's in UB.
    __aicore__ inline uint32_t GroupPitch() {
        return AlignUp(tiling_->groupsPerPart, kFloatsPerBlock);
    }

    // GM scale and bias of the tile's columns -> UB
    __aicore__ inline void CopyInColumns(const QuantTile& tile) {
        const uint32_t column = tile.stripe * kFractalRows;
        AscendC::DataCopyExtParams params;
        params.blockCount = 1;
        params.blockLen = live_ * static_cast<uint32_t>(sizeof(float));
        AscendC::DataCopyPadExtParams<float> pad;
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kColumns);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kColumns);
        if (!HasGroups() && !Route::kGroupsInWeight) {
            AscendC::DataCopyPad(scaleUb_, scale_[column], params, pad);
        }
        if (tiling_->hasBias != 0) AscendC::DataCopyPad(biasUb_, bias_[column], params, pad);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kColumns);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kColumns);
    }

    // GM scale[columns of the tile, groups of the part] -> UB, a pitch a row
    __aicore__ inline void CopyInGroupScales(const QuantTile& tile, uint32_t group,
                                             uint32_t groups) {
        const uint64_t row = static_cast<uint64_t>(tile.stripe) * kFractalRows;
        const uint32_t bytes = static_cast<uint32_t>(sizeof(float));
        AscendC::DataCopyExtParams params;
        params.blockCount = live_;
        params.blockLen = groups * bytes;
        params.srcStride = (tiling_->numSums - groups) * bytes;
        params.dstStride = (GroupPitch() - AlignUp(groups, kFloatsPerBlock)) / kFloatsPerBlock;
        AscendC::DataCopyPadExtParams<float> pad;
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kColumns);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kColumns);
        AscendC::DataCopyPad(groupScaleUb_, scale_[row * tiling_->numSums + group], params, pad);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kColumns);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kColumns);
    }

    // total (count, cols) = or += sums of group `index` of the part, times its scales
    __aicore__ inline void AddSums(const QuantTile& tile, uint32_t index, uint32_t token,
                                   uint32_t count, const AscendC::LocalTensor<float>& total,
                                   bool fresh) {
        const uint32_t cols = tile.stripes * kFractalRows;
        const uint32_t elems = count * cols;
        CopyInSums(tile, index, token, count);
        AscendC::LocalTensor<float> sums = sumsUb_;
        if constexpr (Route::kDigits) {
            // 16 high + low: integers below 2^24, exact in float.
            for (uint32_t i = 0; i < count; ++i) {
                const auto high = sumsUb_[2 * i * cols];
                AscendC::Muls(high, high, 16.0f, static_cast<int32_t>(cols));
                AscendC::PipeBarrier<PIPE_V>();
                AscendC::Add(sumsUb_[i * cols], high, sumsUb_[(2 * i + 1) * cols],
                             static_cast<int32_t>(cols));
                AscendC::PipeBarrier<PIPE_V>();
            }
        }
        if (HasGroups()) {
            AscendC::Gather(scaleUb_, groupScaleUb_, offsetsUb_,
                            index * static_cast<uint32_t>(sizeof(float)), cols);
            AscendC::PipeBarrier<PIPE_V>();
        }
        if constexpr (!Route::kGroupsInWeight) MulColumns(sums, scaleUb_, count, cols);
        if (fresh) {
            AscendC::Adds(total, sums, 0.0f, static_cast<int32_t>(elems));
        } else {
            AscendC::Add(total, total, sums, static_cast<int32_t>(elems));
        }
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kIn);
    }

    // GM part (rows of the tile, cols) -> UB float
    __aicore__ inline void CopyInSums(const QuantTile& tile, uint32_t index, uint32_t token,
                                      uint32_t count) {
        const uint32_t cols = tile.stripes * kFractalRows;
        const uint32_t elems = count * Route::kRowsPerToken * cols;
        const uint32_t row = (index * tile.tokens + token) * Route::kRowsPerToken;
        AscendC::GlobalTensor<Sum> part;
        part.SetGlobalBuffer((__gm__ Sum*)layout_.Part(parts_));
        const auto sums = sumsUb_.template ReinterpretCast<Sum>();
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kIn);
        AscendC::DataCopy(sums, part[row * cols], elems);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kIn);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kIn);
        if constexpr (!IsSame<Sum, float>::kValue) {
            AscendC::Cast(sumsUb_, sums, AscendC::RoundMode::CAST_RINT, elems);
            AscendC::PipeBarrier<PIPE_V>();
        }
    }

    // tile[row, :] *= columns
    __aicore__ inline void MulColumns(const AscendC::LocalTensor<float>& tile,
                                      const AscendC::LocalTensor<float>& columns, uint32_t rows,
                                      uint32_t cols) {
        const uint8_t pitch = cols / kFloatsPerBlock;
        for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
            const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
            AscendC::Mul(tile[col], tile[col], columns[col], mask, rows,
                         {1, 1, 1, pitch, pitch, 0});
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

    // tile[row, :] += columns
    __aicore__ inline void AddColumns(const AscendC::LocalTensor<float>& tile,
                                      const AscendC::LocalTensor<float>& columns, uint32_t rows,
                                      uint32_t cols) {
        const uint8_t pitch = cols / kFloatsPerBlock;
        for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
            const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
            AscendC::Add(tile[col], tile[col], columns[col], mask, rows,
                         {1, 1, 1, pitch, pitch, 0});
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

    // GM token scales -> UB; total[row, :] *= its token's
    __aicore__ inline void MulTokens(const QuantTile& tile, uint32_t token, uint32_t count,
                                     const AscendC::LocalTensor<float>& total) {
        const uint32_t cols = tile.stripes * kFractalRows;
        const uint64_t first = static_cast<uint64_t>(tile.token) + token;
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kIn);
        AscendC::DataCopy(tokenScaleUb_, tokenScales_[first * kFloatsPerBlock],
                          count * kFloatsPerBlock);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kIn);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kIn);
        const uint8_t pitch = cols / kFloatsPerBlock;
        for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
            const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
            AscendC::Mul(total[col], total[col], tokenScaleUb_, mask, count,
                         {1, 1, 0, pitch, pitch, 1});
        }
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kIn);
    }

    // total * token scale + bias + residual -> GM out
    __aicore__ inline void CopyOut(const QuantTile& tile, uint32_t token, uint32_t count,
                                   const AscendC::LocalTensor<float>& total) {
        const uint32_t cols = tile.stripes * kFractalRows;
        const uint32_t elems = count * cols;
        if constexpr (!Route::kHalf) MulTokens(tile, token, count, total);
        if (tiling_->hasBias != 0) AddColumns(total, biasUb_, count, cols);
        const uint64_t to = (static_cast<uint64_t>(tile.token) + token) * tiling_->outFeatures +
                            tile.stripe * kFractalRows;
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kOut);
        if (tiling_->hasResidual != 0) AddResidual(to, count, cols, total);
        if constexpr (IsSame<X, float>::kValue) {
            AscendC::Adds(xUb_, total, 0.0f, static_cast<int32_t>(elems));
        } else {
            AscendC::Cast(xUb_, total, AscendC::RoundMode::CAST_RINT, elems);
        }
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kOut);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kOut);
        const uint32_t bytes = static_cast<uint32_t>(sizeof(X));
        AscendC::DataCopyExtParams params;
        params.blockCount = count;
        params.blockLen = live_ * bytes;
        params.srcStride = (cols * bytes - AlignUp(live_ * bytes, kBlockBytes)) / kBlockBytes;
        params.dstStride = (tiling_->outFeatures - live_) * bytes;
        AscendC::DataCopyPad(out_[to], xUb_, params);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kOut);
    }

    // GM residual -> UB; total += residual
    __aicore__ inline void AddResidual(uint64_t from, uint32_t count, uint32_t cols,
                                       const AscendC::LocalTensor<float>& total) {
        const uint32_t bytes = static_cast<uint32_t>(sizeof(X));
        AscendC::DataCopyExtParams params;
        params.blockCount = count;
        params.blockLen = live_ * bytes;
        params.srcStride = (tiling_->outFeatures - live_) * bytes;
        params.dstStride = (cols * bytes - AlignUp(live_ * bytes, kBlockBytes)) / kBlockBytes;
        AscendC::DataCopyPadExtParams<X> pad;
        // xUb was read by MTE3 before, and V waited for that.
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kIn);
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kColumns);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kColumns);
        AscendC::DataCopyPad(xUb_, residual_[from], params, pad);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kIn);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kIn);
        const int32_t elems = static_cast<int32_t>(count * cols);
        if constexpr (IsSame<X, float>::kValue) {
            AscendC::Add(total, total, xUb_, elems);
        } else {
            AscendC::Cast(sumsUb_, xUb_, AscendC::RoundMode::CAST_NONE, count * cols);
            AscendC::PipeBarrier<PIPE_V>();
            AscendC::Add(total, total, sumsUb_, elems);
        }
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kIn);
    }

    const QuantMatmulTilingData* tiling_ = nullptr;
    QuantLayout layout_;
    uint32_t parts_ = 0;
    uint32_t live_ = 0;  // columns of the tile that out has
    AscendC::GlobalTensor<float> scale_;
    AscendC::GlobalTensor<float> tokenScales_;
    AscendC::GlobalTensor<float> bias_;
    AscendC::GlobalTensor<X> residual_;
    AscendC::GlobalTensor<X> out_;
    AscendC::LocalTensor<float> sumsUb_;        // (outputRows, cols); twice that of digits
    AscendC::LocalTensor<float> totalUb_;       // (totalRows, cols)
    AscendC::LocalTensor<X> xUb_;               // (outputRows, cols)
    AscendC::LocalTensor<float> scaleUb_;       // (cols)
    AscendC::LocalTensor<float> biasUb_;        // (cols)
    AscendC::LocalTensor<float> tokenScaleUb_;  // (outputRows, 8)
    AscendC::LocalTensor<float> groupScaleUb_;  // (cols, GroupPitch)
    AscendC::LocalTensor<uint32_t> offsetsUb_;  // (cols)
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_QUANT_MATMUL_OUTPUT_H_
