// P and dS of a task, from S, dP, lse and D.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_PROBS_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_PROBS_H_

#include "common/op_kernel/online_softmax.h"
#include "common/op_kernel/tile_math.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_buffers.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tasks.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

template <typename T>
class GradProbs {
  public:
    using Buffers = GradBuffers<T>;

    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling, GM_ADDR workspace,
                                Buffers* buffers) {
        tiling_ = tiling;
        buffers_ = buffers;
        scores_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceS));
        dProbs_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDp));
        probs_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceP));
        dScores_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceDs));
        rowLse_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceLse));
        rowDelta_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDelta));
    }

    // Of this AIV's rows of the Q tile.
    __aicore__ inline void Compute(const GradTask& task) {
        const RowSpan rows = OwnRows(task.rows);
        for (uint32_t row = 0; row < rows.count; row += tiling_->vecRows) {
            ProbsPass(task, rows.begin + row, MinOf(tiling_->vecRows, rows.count - row));
        }
    }

  private:
    // P = exp(scale S - lse) and dS = scale P (dP - D) of rows [row, row + count) of the Q tile
    __aicore__ inline void ProbsPass(const GradTask& task, uint32_t row, uint32_t count) {
        const uint32_t cols = AlignUp(task.kvRows, kFloatsPerRepeat);
        const uint64_t slot =
            task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->blockN) + row * cols;
        const uint64_t place = PlaceOf(tiling_, task.tile, task.rows, row);
        const uint32_t padded = AlignUp(count, kFloatsPerBlock);
        const AscendC::LocalTensor<float> probs = buffers_->One();
        const AscendC::LocalTensor<float> dScores = buffers_->Two();
        buffers_->Open();
        AscendC::DataCopy(probs, scores_[slot], count * cols);
        AscendC::DataCopy(dScores, dProbs_[slot], count * cols);
        AscendC::DataCopy(buffers_->Lse(), rowLse_[place], padded);
        AscendC::DataCopy(buffers_->Delta(), rowDelta_[place], padded);
        buffers_->Ready();
        AscendC::Muls(probs, probs, tiling_->scale, count * cols);
        AscendC::PipeBarrier<PIPE_V>();
        if (Hides(task)) MaskTile(task, row, count, cols);
        SpreadRows(buffers_->Blocks(), buffers_->Lse(), count);
        SubRows(probs, buffers_->Blocks(), count, cols);
        AscendC::Exp(probs, probs, count * cols);
        SpreadRows(buffers_->Blocks(), buffers_->Delta(), count);
        SubRows(dScores, buffers_->Blocks(), count, cols);
        AscendC::Mul(dScores, dScores, probs, count * cols);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Muls(dScores, dScores, tiling_->scale, count * cols);
        AscendC::PipeBarrier<PIPE_V>();
        const AscendC::LocalTensor<T> outProbs = buffers_->RoundOne(count * cols);
        const AscendC::LocalTensor<T> outDScores = buffers_->RoundTwo(count * cols);
        buffers_->HandOver();
        AscendC::DataCopy(probs_[slot], outProbs, count * cols);
        AscendC::DataCopy(dScores_[slot], outDScores, count * cols);
        buffers_->Close();
    }

    // Whether some row of the Q tile does not see some key of the K/V tile. Columns past the
    // sequence need no mask: no product reads them.
    __aicore__ inline bool Hides(const GradTask& task) {
        const uint32_t begin = task.tile * tiling_->blockM;
        const int32_t first = PositionOf(tiling_, task.item, begin);
        const int32_t last = PositionOf(tiling_, task.item, begin + task.rows - 1);
        const int32_t kvBegin = static_cast<int32_t>(task.kvStart);
        const int32_t kvEnd = kvBegin + static_cast<int32_t>(task.kvRows);
        if (kvEnd <= static_cast<int32_t>(task.item.prefixLen)) return false;
        return kvEnd > VisibleFrom(tiling_, task.item, first, first).hi ||
               kvBegin < VisibleFrom(tiling_, task.item, last, last).lo;
    }

    // The query of a row sees [0, prefix) and [lo, hi); everything else of the tile becomes -inf.
    __aicore__ inline void MaskTile(const GradTask& task, uint32_t row, uint32_t count,
                                    uint32_t cols) {
        for (uint32_t done = 0; done < count;) {
            const uint32_t itemRow = task.tile * tiling_->blockM + row + done;
            const uint32_t live =
                MinOf(tiling_->groupSize - itemRow % tiling_->groupSize, count - done);
            const int32_t position = PositionOf(tiling_, task.item, itemRow);
            const VisibleKeys keys = VisibleFrom(tiling_, task.item, position, position);
            Hide(task, MaxOf(keys.prefix, keys.hi), static_cast<int32_t>(task.kvStart + cols), done,
                 live, cols);
            if (keys.lo > keys.prefix) {
                // The two ranges may share a 32-byte block.
                AscendC::PipeBarrier<PIPE_V>();
                Hide(task, keys.prefix, keys.lo, done, live, cols);
            }
            done += live;
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

    // Keys [from, to) of the sequence, as far as they lie in the tile.
    __aicore__ inline void Hide(const GradTask& task, int32_t from, int32_t to, uint32_t row,
                                uint32_t live, uint32_t cols) {
        const int32_t start = static_cast<int32_t>(task.kvStart);
        const int32_t begin = MaxOf(from - start, 0);
        const int32_t end = MinOf(to - start, static_cast<int32_t>(cols));
        if (begin < end) {
            MaskColumns(buffers_->One(), row, live, cols, static_cast<uint32_t>(begin),
                        static_cast<uint32_t>(end));
        }
    }

    const FlashAttentionGradTilingData* tiling_ = nullptr;
    Buffers* buffers_ = nullptr;
    AscendC::GlobalTensor<float> scores_;
    AscendC::GlobalTensor<float> dProbs_;
    AscendC::GlobalTensor<T> probs_;
    AscendC::GlobalTensor<T> dScores_;
    AscendC::GlobalTensor<float> rowLse_;    // by place
    AscendC::GlobalTensor<float> rowDelta_;  // by place
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_PROBS_H_
