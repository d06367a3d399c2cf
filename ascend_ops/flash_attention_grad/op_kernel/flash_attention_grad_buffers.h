// UB of the gradient's AIVs: two sets of buffers that passes take turns with.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_BUFFERS_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_BUFFERS_H_

#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

struct RowSpan {
    uint32_t begin;
    uint32_t count;
};

// The half of a tile's rows that belongs to this AIV.
__aicore__ inline RowSpan OwnRows(uint32_t rows) {
    const uint32_t half = MinOf(AlignUp(CeilDiv(rows, 2), kFloatsPerBlock), rows);
    if (AscendC::GetSubBlockIdx() == 0) return {0, half};
    return {half, rows - half};
}

// Where row `row` of a Q tile of `rows` rows has its sums in the workspace. Each AIV has half of
// the tile's places to itself whatever the number of rows, so that items may follow one another.
__aicore__ inline uint64_t PlaceOf(const FlashAttentionGradTilingData* tiling, uint32_t tile,
                                   uint32_t rows, uint32_t row) {
    const uint32_t own = row - OwnRows(rows).begin;
    const uint32_t half = static_cast<uint32_t>(AscendC::GetSubBlockIdx()) * tiling->blockM / 2;
    return static_cast<uint64_t>(tile) * tiling->blockM + half + own;
}

// Work is cut into passes of vecRows rows; a pass owns one of the sets from its loads to its
// stores:
//   Open (MTE2 waits for the set), loads, Ready (V waits for them), vector calls,
//   HandOver (MTE3 waits for V), stores, Close (hands the set back).
// So MTE3 is behind every load and vector call of a closed pass, even of one that stores nothing.
template <typename T>
class GradBuffers {
  public:
    // MTE3_MTE2 events beside 0 and 1, the sets: sums of dQ; lse and D, which is also V_MTE2's of
    // Blocks().
    static constexpr int32_t kEventSum = 2;
    static constexpr int32_t kEventRows = 3;
    static constexpr bool kFloat = IsSame<T, float>::kValue;

    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling, UbSpace* ub) {
        const uint32_t passElems = tiling->vecRows * MaxOf(tiling->blockN, tiling->headDim);
        for (uint32_t i = 0; i < 2; ++i) {
            one_[i] = ub->Take<float>(passElems);
            two_[i] = ub->Take<float>(passElems);
            if constexpr (!kFloat) {
                roundedOne_[i] = ub->Take<T>(passElems);
                roundedTwo_[i] = ub->Take<T>(passElems);
            }
            lse_[i] = ub->Take<float>(tiling->vecRows);
            delta_[i] = ub->Take<float>(tiling->vecRows);
        }
        fold_ = ub->Take<float>(tiling->vecRows * kFloatsPerRepeat);
        blocks_ = ub->Take<float>(tiling->vecRows * kFloatsPerBlock);
    }

    __aicore__ inline void Begin() {
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(0);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(1);
    }

    __aicore__ inline void End() {
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(0);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(1);
    }

    __aicore__ inline void Open() { AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(set_); }

    __aicore__ inline void Ready() {
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(set_);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(set_);
    }

    __aicore__ inline void HandOver() {
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(set_);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(set_);
    }

    __aicore__ inline void Close() {
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(set_);
        set_ ^= 1;
    }

    // What leaves for GM: the float tile itself, or the tile rounded to half.
    __aicore__ inline AscendC::LocalTensor<T> RoundOne(uint32_t elems) {
        if constexpr (kFloat) {
            return One();
        } else {
            AscendC::Cast(RoundedOne(), One(), AscendC::RoundMode::CAST_RINT, elems);
            return RoundedOne();
        }
    }

    __aicore__ inline AscendC::LocalTensor<T> RoundTwo(uint32_t elems) {
        if constexpr (kFloat) {
            return Two();
        } else {
            AscendC::Cast(RoundedTwo(), Two(), AscendC::RoundMode::CAST_RINT, elems);
            return RoundedTwo();
        }
    }

    // Of the set in use: (vecRows, max(blockN, headDim)); the rounded ones not for float.
    __aicore__ inline const AscendC::LocalTensor<float>& One() { return one_[set_]; }
    __aicore__ inline const AscendC::LocalTensor<float>& Two() { return two_[set_]; }
    __aicore__ inline const AscendC::LocalTensor<T>& RoundedOne() { return roundedOne_[set_]; }
    __aicore__ inline const AscendC::LocalTensor<T>& RoundedTwo() { return roundedTwo_[set_]; }
    // (vecRows)
    __aicore__ inline const AscendC::LocalTensor<float>& Lse() { return lse_[set_]; }
    __aicore__ inline const AscendC::LocalTensor<float>& Delta() { return delta_[set_]; }
    // Scratch of vector calls, of no set: (vecRows, 64) and (vecRows, 8).
    __aicore__ inline const AscendC::LocalTensor<float>& Fold() { return fold_; }
    __aicore__ inline const AscendC::LocalTensor<float>& Blocks() { return blocks_; }

  private:
    AscendC::LocalTensor<float> one_[2];
    AscendC::LocalTensor<float> two_[2];
    AscendC::LocalTensor<T> roundedOne_[2];
    AscendC::LocalTensor<T> roundedTwo_[2];
    AscendC::LocalTensor<float> lse_[2];
    AscendC::LocalTensor<float> delta_[2];
    AscendC::LocalTensor<float> fold_;
    AscendC::LocalTensor<float> blocks_;
    int32_t set_ = 0;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_BUFFERS_H_
