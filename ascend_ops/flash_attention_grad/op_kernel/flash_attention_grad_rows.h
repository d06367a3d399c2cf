// Before an item's first task: D = rowsum(do * o) and lse of its rows, and dq of rows that see
// nothing.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_ROWS_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_ROWS_H_

#include "common/op_kernel/online_softmax.h"
#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/token_rows.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_buffers.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_gm.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tasks.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

template <typename T>
class GradRows {
  public:
    using Buffers = GradBuffers<T>;

    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling,
                                const FlashAttentionGradGm& gm, GM_ADDR workspace,
                                Buffers* buffers) {
        tiling_ = tiling;
        buffers_ = buffers;
        layout_ = {tiling->numHeads, tiling->groupSize, tiling->headDim};
        dO_.SetGlobalBuffer((__gm__ T*)gm.dO);
        o_.SetGlobalBuffer((__gm__ T*)gm.o);
        lse_.SetGlobalBuffer((__gm__ float*)gm.lse);
        dQ_.SetGlobalBuffer((__gm__ T*)gm.dQ);
        rowLse_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceLse));
        rowDelta_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDelta));
    }

    // lse and D of the item's rows to the workspace; zeros to dq where a Q tile sees nothing.
    __aicore__ inline void Prepare(const GradItem& item) {
        bool stored = false;
        for (uint32_t tile = 0; tile < item.tiles; ++tile) {
            const uint32_t tileRows = MinOf(tiling_->blockM, item.rows - tile * tiling_->blockM);
            const bool blind = SeesNothing(VisibleToTile(tiling_, item, tile));
            const RowSpan rows = OwnRows(tileRows);
            for (uint32_t done = 0; done < rows.count; done += tiling_->vecRows) {
                const uint32_t row = rows.begin + done;
                const uint32_t count = MinOf(tiling_->vecRows, rows.count - done);
                const uint32_t itemRow = tile * tiling_->blockM + row;
                if (blind) {
                    ZeroPass(item, itemRow, count);
                } else {
                    DeltaPass(item, itemRow, PlaceOf(tiling_, tile, tileRows, row), count);
                    stored = true;
                }
            }
        }
        // V1 reads them back. With nothing stored, nothing would keep two sets of the flag apart.
        if (!stored) return;
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(Buffers::kEventRows);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(Buffers::kEventRows);
    }

  private:
    // GM do, o and lse of `count` rows -> D = rowsum(do * o) and lse, a float a row -> workspace
    __aicore__ inline void DeltaPass(const GradItem& item, uint32_t itemRow, uint64_t place,
                                     uint32_t count) {
        const uint32_t d = tiling_->headDim;
        const AscendC::LocalTensor<float> one = buffers_->One();
        const AscendC::LocalTensor<float> two = buffers_->Two();
        const AscendC::LocalTensor<float> lse = buffers_->Lse();
        buffers_->Open();
        // lse goes to Blocks(), which belongs to no set: V is done with it.
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(Buffers::kEventRows);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(Buffers::kEventRows);
        if constexpr (Buffers::kFloat) {
            CopyRowsIn(one, dO_, layout_, item.qToken, item.group, itemRow, count);
            CopyRowsIn(two, o_, layout_, item.qToken, item.group, itemRow, count);
        } else {
            CopyRowsIn(buffers_->RoundedOne(), dO_, layout_, item.qToken, item.group, itemRow,
                       count);
            CopyRowsIn(buffers_->RoundedTwo(), o_, layout_, item.qToken, item.group, itemRow,
                       count);
        }
        CopyInLse(item, itemRow, count);
        buffers_->Ready();
        if constexpr (!Buffers::kFloat) {
            AscendC::Cast(one, buffers_->RoundedOne(), AscendC::RoundMode::CAST_NONE, count * d);
            AscendC::Cast(two, buffers_->RoundedTwo(), AscendC::RoundMode::CAST_NONE, count * d);
            AscendC::PipeBarrier<PIPE_V>();
        }
        AscendC::Mul(one, one, two, count * d);
        AscendC::PipeBarrier<PIPE_V>();
        RowSumOf(buffers_->Delta(), one, buffers_->Fold(), count, d);
        // lse arrived in the first float of a block a row.
        ReduceBlocksSum(lse, buffers_->Blocks(), count, 1);
        AscendC::PipeBarrier<PIPE_V>();
        HideBlindRows(lse, count);
        buffers_->HandOver();
        const uint32_t padded = AlignUp(count, kFloatsPerBlock);
        AscendC::DataCopy(rowLse_[place], lse, padded);
        AscendC::DataCopy(rowDelta_[place], buffers_->Delta(), padded);
        buffers_->Close();
    }

    // lse = -inf becomes 2e37, below which every exp(scores - lse) is 0; others stay as they are.
    __aicore__ inline void HideBlindRows(const AscendC::LocalTensor<float>& lse, uint32_t count) {
        const AscendC::LocalTensor<float> scratch = buffers_->Fold();
        AscendC::Maxs(lse, lse, kLowestMax, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Adds(scratch, lse, 1.0e38f, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Mins(scratch, scratch, 0.0f, count);  // -2e38 where lse was -inf, else 0
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Muls(scratch, scratch, -1.6f, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Add(lse, lse, scratch, count);
        AscendC::PipeBarrier<PIPE_V>();
    }

    // dq of `count` rows = 0
    __aicore__ inline void ZeroPass(const GradItem& item, uint32_t itemRow, uint32_t count) {
        buffers_->Open();
        buffers_->Ready();
        AscendC::Duplicate<float>(buffers_->One(), 0.0f, count * tiling_->headDim);
        AscendC::PipeBarrier<PIPE_V>();
        const AscendC::LocalTensor<T> out = buffers_->RoundOne(count * tiling_->headDim);
        buffers_->HandOver();
        CopyRowsOut(dQ_, out, layout_, item.qToken, item.group, itemRow, count);
        buffers_->Close();
    }

    // GM lse of the same rows -> UB blocks (count, 8), a float in a block of its own
    __aicore__ inline void CopyInLse(const GradItem& item, uint32_t itemRow, uint32_t count) {
        for (uint32_t done = 0; done < count;) {
            const RowRun run =
                RowRunAt(layout_, item.qToken, item.group, itemRow + done, count - done);
            const bool single = tiling_->groupSize == 1;
            AscendC::DataCopyExtParams params;
            params.blockCount = single ? run.tokens : run.heads;
            params.blockLen = sizeof(float);
            params.srcStride = single ? (tiling_->numHeads - 1) * sizeof(float) : 0;
            params.dstStride = 0;
            AscendC::DataCopyPadExtParams<float> pad;
            for (uint32_t token = 0; token < (single ? 1 : run.tokens); ++token) {
                AscendC::DataCopyPad(
                    buffers_->Blocks()[(done + token * run.heads) * kFloatsPerBlock],
                    lse_[run.offset / tiling_->headDim + token * tiling_->numHeads], params, pad);
            }
            done += run.rows;
        }
    }

    const FlashAttentionGradTilingData* tiling_ = nullptr;
    Buffers* buffers_ = nullptr;
    RowLayout layout_ = {};
    AscendC::GlobalTensor<T> dO_;
    AscendC::GlobalTensor<T> o_;
    AscendC::GlobalTensor<float> lse_;
    AscendC::GlobalTensor<T> dQ_;
    AscendC::GlobalTensor<float> rowLse_;    // by place
    AscendC::GlobalTensor<float> rowDelta_;  // by place
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_ROWS_H_
