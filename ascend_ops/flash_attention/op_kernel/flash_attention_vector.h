// The AIV side of FlashAttention: the online softmax, and the accumulation of O.
#ifndef ASCEND_OPS_FLASH_ATTENTION_VECTOR_H_
#define ASCEND_OPS_FLASH_ATTENTION_VECTOR_H_

#include "common/op_kernel/online_softmax.h"
#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/token_rows.h"
#include "common/op_kernel/ub_space.h"
#include "flash_attention/op_kernel/flash_attention_cube.h"
#include "flash_attention/op_kernel/flash_attention_mask.h"
#include "flash_attention/op_kernel/flash_attention_output.h"
#include "flash_attention/op_kernel/flash_attention_tasks.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Q: element type of q and o. T: of the K/V cache and of P. Each of the two AIVs of a core takes
// half of a Q tile's rows.
template <typename Q, typename T>
class FlashAttentionVector {
  public:
    // parts: where those of all cores lie. workspace: of this core.
    __aicore__ inline void Init(const FlashAttentionTilingData* tiling, __gm__ Q* q, __gm__ Q* o,
                                __gm__ float* lse, GM_ADDR parts, GM_ADDR workspace) {
        tiling_ = tiling;
        result_.Init(tiling, o, lse);
        mask_.Init(tiling);
        q_.SetGlobalBuffer(q);
        partAcc_.SetGlobalBuffer((__gm__ float*)(parts + tiling->workspacePartAcc));
        partMax_.SetGlobalBuffer((__gm__ float*)(parts + tiling->workspacePartMax));
        partSum_.SetGlobalBuffer((__gm__ float*)(parts + tiling->workspacePartSum));
        castQ_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceQ));
        scores_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceS));
        probs_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceP));
        output_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceO));

        const uint32_t rows = tiling->blockM / 2;
        const uint32_t passElems = tiling->vecRows * MaxOf(tiling->blockN, tiling->headDim);
        UbSpace ub;
        accUb_ = ub.Take<float>(rows * tiling->headDim);
        tileUb_ = ub.Take<float>(passElems);
        probsUb_ = ub.Take<T>(passElems);
        foldUb_ = ub.Take<float>(tiling->vecRows * kFloatsPerRepeat);
        blocksUb_ = ub.Take<float>(tiling->vecRows * kFloatsPerBlock);
        newMaxUb_ = ub.Take<float>(rows);
        for (uint32_t i = 0; i < tiling->taskSlots; ++i) {
            rowMaxUb_[i] = ub.Take<float>(rows);
            rowSumUb_[i] = ub.Take<float>(rows);
            alphaUb_[i] = ub.Take<float>(rows);
        }
    }

    __aicore__ inline void Begin() {
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kEventTile);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kEventTile);
    }

    __aicore__ inline void End() {
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kEventTile);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kEventTile);
    }

    // V1: P of the task to its slot, and the running maximum and sum of its rows.
    __aicore__ inline void StageOne(const AttentionTask& task) {
        TakeRows(task);
        if constexpr (!IsSame<Q, T>::kValue) {
            if (task.first) CastQuery(task);
        }
        if (task.first) StartRows(task);
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kFlagScores);
        if (task.kvRows > 0) {
            for (uint32_t row = 0; row < rows_; row += tiling_->vecRows) {
                SoftmaxPass(task, row, MinOf(tiling_->vecRows, rows_ - row));
            }
        }
        AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kFlagProbs);
    }

    // V2: acc = acc * alpha + P V; after the last tile, o = acc / row_sum, or the part's acc.
    __aicore__ inline void StageTwo(const AttentionTask& task) {
        TakeRows(task);
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kFlagOutput);
        for (uint32_t row = 0; row < rows_; row += tiling_->vecRows) {
            const uint32_t count = MinOf(tiling_->vecRows, rows_ - row);
            if (task.first) {
                AscendC::Duplicate<float>(accUb_[row * tiling_->headDim], 0.0f,
                                          count * tiling_->headDim);
                AscendC::PipeBarrier<PIPE_V>();
            }
            if (task.kvRows > 0) AccumulatePass(task, row, count);
            if (!task.last) continue;
            if (task.whole) {
                FinishPass(task, row, count);
            } else {
                StorePart(task, row, count);
            }
        }
    }

  private:
    static constexpr int32_t kEventTile = 0;  // tileUb (MTE2) and probsUb (MTE3)
    static constexpr int32_t kEventOut = 1;   // a part's acc and statistics (MTE3); also of result_

    // This AIV's rows [rowBegin_, rowBegin_ + rows_) of the Q tile.
    __aicore__ inline void TakeRows(const AttentionTask& task) {
        const uint32_t firstHalf = AlignUp(CeilDiv(task.rows, 2), kFloatsPerBlock);
        const uint32_t half = MinOf(firstHalf, task.rows);
        rowBegin_ = AscendC::GetSubBlockIdx() == 0 ? 0 : half;
        rows_ = AscendC::GetSubBlockIdx() == 0 ? half : task.rows - half;
        state_ = task.item % tiling_->taskSlots;
    }

    __aicore__ inline void StartRows(const AttentionTask& task) {
        AscendC::Duplicate<float>(rowMaxUb_[task.item % tiling_->taskSlots], kLowestMax,
                                  tiling_->blockM / 2);
        AscendC::Duplicate<float>(rowSumUb_[task.item % tiling_->taskSlots], 0.0f,
                                  tiling_->blockM / 2);
        AscendC::PipeBarrier<PIPE_V>();
    }

    // GM q of this AIV's rows -> UB, rounded to T -> GM workspace
    __aicore__ inline void CastQuery(const AttentionTask& task) {
        const uint32_t d = tiling_->headDim;
        const RowLayout layout = {tiling_->numHeads, tiling_->groupSize, d};
        for (uint32_t row = 0; row < rows_; row += tiling_->vecRows) {
            const uint32_t count = MinOf(tiling_->vecRows, rows_ - row);
            AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kEventTile);
            CopyRowsIn(tileUb_, q_, layout, task.token, task.group, rowBegin_ + row, count);
            AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kEventTile);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kEventTile);
            AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kEventTile);
            AscendC::Cast(probsUb_, tileUb_, AscendC::RoundMode::CAST_RINT, count * d);
            AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kEventTile);
            AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kEventTile);
            AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kEventTile);
            AscendC::DataCopy(castQ_[(rowBegin_ + row) * d], probsUb_, count * d);
            AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kEventTile);
        }
        AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kFlagQuery);
    }

    __aicore__ inline void SoftmaxPass(const AttentionTask& task, uint32_t row, uint32_t count) {
        const uint32_t cols = AlignUp(task.kvRows, kFloatsPerRepeat);
        const uint64_t slot =
            task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->blockN) +
            (rowBegin_ + row) * cols;
        // GM scores[row : row + count, :] -> UB tile
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kEventTile);
        AscendC::DataCopy(tileUb_, scores_[slot], count * cols);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kEventTile);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kEventTile);
        AscendC::Muls(tileUb_, tileUb_, tiling_->scale, count * cols);
        AscendC::PipeBarrier<PIPE_V>();
        mask_.Hide(task, tileUb_, rowBegin_ + row, count, cols);
        UpdateMax(task, row, count, cols);
        SubRows(tileUb_, blocksUb_, count, cols);

        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kEventTile);
        if constexpr (IsSame<T, float>::kValue) {
            AscendC::Exp(probsUb_, tileUb_, count * cols);
            AscendC::PipeBarrier<PIPE_V>();
            UpdateSum(task, probsUb_, row, count, cols);
        } else {
            AscendC::Exp(tileUb_, tileUb_, count * cols);
            AscendC::PipeBarrier<PIPE_V>();
            AscendC::Cast(probsUb_, tileUb_, AscendC::RoundMode::CAST_RINT, count * cols);
            UpdateSum(task, tileUb_, row, count, cols);
        }
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kEventTile);
        // UB probs -> GM probs[row : row + count, :]
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kEventTile);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kEventTile);
        AscendC::DataCopy(probs_[slot], probsUb_, count * cols);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kEventTile);
    }

    // blocks = the new maximum of each row, alpha = exp(old - new)
    __aicore__ inline void UpdateMax(const AttentionTask& task, uint32_t row, uint32_t count,
                                     uint32_t cols) {
        const AscendC::LocalTensor<float> rowMax = rowMaxUb_[state_][row];
        const AscendC::LocalTensor<float> alpha = alphaUb_[task.index % tiling_->taskSlots][row];
        const AscendC::LocalTensor<float> newMax = newMaxUb_[row];
        RowMax(newMax, tileUb_, foldUb_, count, cols);
        AscendC::Max(newMax, newMax, rowMax, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Sub(alpha, rowMax, newMax, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Exp(alpha, alpha, count);
        AscendC::Adds(rowMax, newMax, 0.0f, count);
        SpreadRows(blocksUb_, newMax, count);
    }

    // row_sum = row_sum * alpha + sum of the tile's row
    __aicore__ inline void UpdateSum(const AttentionTask& task,
                                     const AscendC::LocalTensor<float>& tile, uint32_t row,
                                     uint32_t count, uint32_t cols) {
        const AscendC::LocalTensor<float> rowSum = rowSumUb_[state_][row];
        RowSum(newMaxUb_[row], tile, foldUb_, count, cols);
        AscendC::Mul(rowSum, rowSum, alphaUb_[task.index % tiling_->taskSlots][row], count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Add(rowSum, rowSum, newMaxUb_[row], count);
        AscendC::PipeBarrier<PIPE_V>();
    }

    __aicore__ inline void AccumulatePass(const AttentionTask& task, uint32_t row, uint32_t count) {
        const uint32_t d = tiling_->headDim;
        const AscendC::LocalTensor<float> acc = accUb_[row * d];
        // GM output[row : row + count, :] -> UB tile
        const uint64_t slot = task.index % tiling_->taskSlots * (tiling_->blockM * d);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kEventTile);
        AscendC::DataCopy(tileUb_, output_[slot + (rowBegin_ + row) * d], count * d);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kEventTile);
        if (!task.first) {
            SpreadRows(blocksUb_, alphaUb_[task.index % tiling_->taskSlots][row], count);
            MulRows(acc, blocksUb_, count, d);
        }
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kEventTile);
        AscendC::Add(acc, acc, tileUb_, count * d);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kEventTile);
    }

    // UB acc / row_sum -> GM o; UB row_max + ln(row_sum) -> GM lse
    __aicore__ inline void FinishPass(const AttentionTask& task, uint32_t row, uint32_t count) {
        // probsUb is free once its last P has left; it takes o in q's type.
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kEventTile);
        result_.Write(
            {task.token, task.group, rowBegin_ + row, count, accUb_[row * tiling_->headDim],
             rowMaxUb_[state_][row], rowSumUb_[state_][row]},
            {newMaxUb_[row], blocksUb_, foldUb_, probsUb_.template ReinterpretCast<Q>()});
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kEventTile);
    }

    // UB acc, row_max and row_sum -> GM, this part's rows. Of the last eight statistics some may
    // belong to no row; nothing else lies there.
    __aicore__ inline void StorePart(const AttentionTask& task, uint32_t row, uint32_t count) {
        const uint32_t d = tiling_->headDim;
        const uint64_t partRow = task.partRow + rowBegin_ + row;
        const uint32_t padded = AlignUp(count, kFloatsPerBlock);
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kEventOut);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kEventOut);
        AscendC::DataCopy(partAcc_[partRow * d], accUb_[row * d], count * d);
        AscendC::DataCopy(partMax_[partRow], rowMaxUb_[state_][row], padded);
        AscendC::DataCopy(partSum_[partRow], rowSumUb_[state_][row], padded);
        // V writes them next: MTE3 must have read them.
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kEventOut);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kEventOut);
    }

    const FlashAttentionTilingData* tiling_ = nullptr;
    FlashAttentionOutput<Q> result_;
    AttentionMask mask_;
    AscendC::GlobalTensor<Q> q_;
    AscendC::GlobalTensor<float> partAcc_;
    AscendC::GlobalTensor<float> partMax_;
    AscendC::GlobalTensor<float> partSum_;
    AscendC::GlobalTensor<T> castQ_;
    AscendC::GlobalTensor<float> scores_;
    AscendC::GlobalTensor<T> probs_;
    AscendC::GlobalTensor<float> output_;
    AscendC::LocalTensor<float> accUb_;     // (rows, headDim)
    AscendC::LocalTensor<float> tileUb_;    // (vecRows, max(blockN, headDim))
    AscendC::LocalTensor<T> probsUb_;       // the same
    AscendC::LocalTensor<float> foldUb_;    // (vecRows, 64)
    AscendC::LocalTensor<float> blocksUb_;  // (vecRows, 8)
    AscendC::LocalTensor<float> newMaxUb_;  // (rows)
    // Running state of the items in flight, and alpha of the tasks in flight.
    AscendC::LocalTensor<float> rowMaxUb_[kMaxTaskSlots];
    AscendC::LocalTensor<float> rowSumUb_[kMaxTaskSlots];
    AscendC::LocalTensor<float> alphaUb_[kMaxTaskSlots];
    uint32_t rowBegin_ = 0;
    uint32_t rows_ = 0;
    uint32_t state_ = 0;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_VECTOR_H_
