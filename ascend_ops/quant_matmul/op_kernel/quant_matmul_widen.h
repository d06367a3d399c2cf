// Packed weights as wider operands, a tile ahead of the AIC: int4 to int8, int4 or int8 to half,
// and int4 times its groups' scales to half.
#ifndef ASCEND_OPS_QUANT_MATMUL_WIDEN_H_
#define ASCEND_OPS_QUANT_MATMUL_WIDEN_H_

#include "common/op_kernel/online_softmax.h"
#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "kernel_operator.h"
#include "quant_matmul/op_kernel/quant_matmul_layout.h"
#include "quant_matmul/op_kernel/quant_matmul_tiling_data.h"

namespace ascend_ops {

// A piece is some fractals of a stripe. Values keep their order: 16 rows of a packed fractal's
// width.
template <uint64_t kRoute>
class QuantMatmulWiden {
  public:
    __aicore__ inline void Init(const QuantMatmulTilingData* tiling, const QuantMatmulGm& gm,
                                const QuantLayout& layout, UbSpace* ub) {
        tiling_ = tiling;
        layout_ = layout;
        weight_.SetGlobalBuffer((__gm__ int8_t*)gm.weight);
        scale_.SetGlobalBuffer((__gm__ float*)gm.scale);
        const uint32_t values = tiling->packedPiece * kFractalRows * kWidth;
        for (uint32_t i = 0; i < 2; ++i) {
            packedUb_[i] = ub->Take<int8_t>(tiling->packedPiece * kFractalBytes);
        }
        halfUb_ = ub->Take<half>(values);
        if constexpr (kToBytes) bytesUb_ = ub->Take<int8_t>(values);
        if constexpr (Route::kGroupsInWeight) {
            const uint32_t rows = tiling->packedPiece * kFractalRows;
            wideUb_ = ub->Take<float>(values);
            stripeScaleUb_ = ub->Take<float>(AlignUp(kFractalRows * tiling->numGroups, 8));
            rowScaleUb_ = ub->Take<float>(rows);
            blocksUb_ = ub->Take<float>(rows * kFloatsPerBlock);
            offsetsUb_ = ub->Take<uint32_t>(rows);
        }
    }

    __aicore__ inline void Begin() {
        for (int32_t i = 0; i < 2; ++i) AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(i);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kOut);
        if constexpr (Route::kGroupsInWeight) FillOffsets();
    }

    __aicore__ inline void End() {
        for (int32_t i = 0; i < 2; ++i) AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(i);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kOut);
    }

    // This AIV's half of the stripes of tile `index`; then a flag to the AIC.
    __aicore__ inline void Widen(uint32_t index) {
        const QuantTile tile = layout_.Tile(index, 0);
        wide_ = layout_.WideTile(index);
        const uint32_t half = CeilDiv(tile.stripes, 2);
        const uint32_t begin = AscendC::GetSubBlockIdx() == 0 ? 0 : half;
        const uint32_t end = AscendC::GetSubBlockIdx() == 0 ? half : tile.stripes;
        for (uint32_t i = begin; i < end; ++i) WidenStripe(tile.stripe + i, i);
        AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kFlagTile);
    }

  private:
    using Route = QuantRoute<kRoute>;
    static constexpr bool kToBytes = kRoute == kQuantRouteNibblesToBytes;
    static constexpr bool kFromBytes = kRoute == kQuantRouteBytesToHalf;
    static constexpr uint32_t kWidth = kFromBytes ? 32 : 64;  // values of a packed fractal's row
    static constexpr int32_t kOut = 2;
    static constexpr int32_t kScale = 3;

    __aicore__ inline void WidenStripe(uint32_t stripe, uint32_t inTile) {
        if constexpr (Route::kGroupsInWeight) CopyInScales(stripe);
        const uint64_t from = static_cast<uint64_t>(stripe) * tiling_->packedFractals;
        const uint64_t to = static_cast<uint64_t>(inTile) * tiling_->packedFractals;
        for (uint32_t first = 0; first < tiling_->packedFractals; first += tiling_->packedPiece) {
            const uint32_t count = MinOf(tiling_->packedPiece, tiling_->packedFractals - first);
            const uint32_t bytes = count * kFractalBytes;
            const uint32_t values = count * kFractalRows * kWidth;
            const AscendC::LocalTensor<int8_t> packed = packedUb_[buffer_];
            AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(buffer_);
            AscendC::DataCopy(packed, weight_[(from + first) * kFractalBytes], bytes);
            AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(buffer_);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(buffer_);
            AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kOut);
            if constexpr (kFromBytes) {
                AscendC::Cast(halfUb_, packed, AscendC::RoundMode::CAST_NONE, values);
            } else {
                AscendC::Cast(halfUb_, packed.template ReinterpretCast<AscendC::int4b_t>(),
                              AscendC::RoundMode::CAST_NONE, values);
            }
            AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(buffer_);
            buffer_ ^= 1;
            AscendC::PipeBarrier<PIPE_V>();
            if constexpr (Route::kGroupsInWeight) MultiplyByScales(first, count);
            if constexpr (kToBytes) {
                AscendC::Cast(bytesUb_, halfUb_, AscendC::RoundMode::CAST_RINT, values);
                CopyOut(bytesUb_, (to + first) * kFractalRows * kWidth, values);
            } else {
                CopyOut(halfUb_, (to + first) * kFractalRows * kWidth, values);
            }
        }
    }

    // UB values -> GM, the tile's
    template <typename T>
    __aicore__ inline void CopyOut(const AscendC::LocalTensor<T>& values, uint64_t to,
                                   uint32_t count) {
        AscendC::GlobalTensor<T> wide;
        wide.SetGlobalBuffer((__gm__ T*)wide_);
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kOut);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kOut);
        AscendC::DataCopy(wide[to], values, count);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kOut);
    }

    // Where the scale of row r of a piece's fractals lies among those of a stripe, in bytes, but
    // for its group's distance from the piece's first.
    __aicore__ inline void FillOffsets() {
        const uint32_t fractalsPerGroup = MaxOf(1u, tiling_->groupSize / kWidth);
        const uint32_t groupsPerFractal = MaxOf(1u, kWidth / tiling_->groupSize);
        for (uint32_t f = 0; f < tiling_->packedPiece; ++f) {
            const uint32_t group = f / fractalsPerGroup * groupsPerFractal;
            for (uint32_t row = 0; row < kFractalRows; ++row) {
                const uint32_t at = row * tiling_->numGroups + group;
                offsetsUb_.SetValue(f * kFractalRows + row,
                                    at * static_cast<uint32_t>(sizeof(float)));
            }
        }
        AscendC::SetFlag<AscendC::HardEvent::S_V>(kScale);
        AscendC::WaitFlag<AscendC::HardEvent::S_V>(kScale);
    }

    // GM scale[rows of the stripe, :] -> UB; of rows past the last one 0
    __aicore__ inline void CopyInScales(uint32_t stripe) {
        const uint32_t row = stripe * kFractalRows;
        const uint32_t count = MinOf(kFractalRows, tiling_->outFeatures - row) * tiling_->numGroups;
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Duplicate<float>(stripeScaleUb_, 0.0f,
                                  AlignUp(kFractalRows * tiling_->numGroups, kFloatsPerBlock));
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kScale);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kScale);
        AscendC::DataCopyExtParams params;
        params.blockCount = 1;
        params.blockLen = count * static_cast<uint32_t>(sizeof(float));
        AscendC::DataCopyPadExtParams<float> pad;
        AscendC::DataCopyPad(stripeScaleUb_,
                             scale_[static_cast<uint64_t>(row) * tiling_->numGroups], params, pad);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kScale);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kScale);
    }

    // half = round(half * scale), a scale a group of a row
    __aicore__ inline void MultiplyByScales(uint32_t first, uint32_t count) {
        const uint32_t rows = count * kFractalRows;
        AscendC::Cast(wideUb_, halfUb_, AscendC::RoundMode::CAST_NONE, rows * kWidth);
        const uint32_t groups = MaxOf(1u, kWidth / tiling_->groupSize);  // of a packed fractal
        const uint32_t columns = kWidth / groups;
        for (uint32_t i = 0; i < groups; ++i) {
            const uint32_t group = first * kWidth / tiling_->groupSize + i;
            // A row that ends inside a packed fractal has no scale there, and no weights.
            if (group >= tiling_->numGroups) continue;
            AscendC::PipeBarrier<PIPE_V>();
            AscendC::Gather(rowScaleUb_, stripeScaleUb_, offsetsUb_,
                            group * static_cast<uint32_t>(sizeof(float)), rows);
            AscendC::PipeBarrier<PIPE_V>();
            SpreadRows(blocksUb_, rowScaleUb_, rows);
            const auto part = wideUb_[i * columns];
            AscendC::Mul(part, part, blocksUb_, columns, rows, {1, 1, 0, 8, 8, 1});
        }
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Cast(halfUb_, wideUb_, AscendC::RoundMode::CAST_RINT, rows * kWidth);
        AscendC::PipeBarrier<PIPE_V>();
    }

    const QuantMatmulTilingData* tiling_ = nullptr;
    QuantLayout layout_;
    AscendC::GlobalTensor<int8_t> weight_;
    AscendC::GlobalTensor<float> scale_;
    GM_ADDR wide_ = nullptr;
    int32_t buffer_ = 0;
    AscendC::LocalTensor<int8_t> packedUb_[2];
    AscendC::LocalTensor<half> halfUb_;
    AscendC::LocalTensor<int8_t> bytesUb_;
    // Of groups.
    AscendC::LocalTensor<float> wideUb_;
    AscendC::LocalTensor<float> stripeScaleUb_;  // (16, numGroups)
    AscendC::LocalTensor<float> rowScaleUb_;     // (16 a fractal)
    AscendC::LocalTensor<float> blocksUb_;       // the same, eight times each
    AscendC::LocalTensor<uint32_t> offsetsUb_;   // the same
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_QUANT_MATMUL_WIDEN_H_
