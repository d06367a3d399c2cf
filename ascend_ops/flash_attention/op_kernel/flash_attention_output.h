// The way out of FlashAttention: rows of a Q tile, divided and rounded, to o and lse.
#ifndef ASCEND_OPS_FLASH_ATTENTION_OUTPUT_H_
#define ASCEND_OPS_FLASH_ATTENTION_OUTPUT_H_

#include "common/op_kernel/online_softmax.h"
#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/token_rows.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Q: element type of o.
template <typename Q>
class FlashAttentionOutput {
  public:
    // The state of `count` rows, from row `tileRow` of a Q tile on. acc is divided in place.
    struct Rows {
        uint32_t token;  // first of the tile
        uint32_t group;
        uint32_t tileRow;
        uint32_t count;
        AscendC::LocalTensor<float> acc;     // (count, headDim)
        AscendC::LocalTensor<float> rowMax;  // (count), like rowSum
        AscendC::LocalTensor<float> rowSum;
    };

    struct Scratch {
        AscendC::LocalTensor<float> values;  // (count)
        AscendC::LocalTensor<float> blocks;  // (count, 8)
        AscendC::LocalTensor<float> lse;     // (count, 8)
        AscendC::LocalTensor<Q> out;         // (count, headDim); not used where Q is float
    };

    __aicore__ inline void Init(const FlashAttentionTilingData* tiling, __gm__ Q* o,
                                __gm__ float* lse) {
        tiling_ = tiling;
        layout_ = {tiling->numHeads, tiling->groupSize, tiling->headDim};
        o_.SetGlobalBuffer(o);
        lse_.SetGlobalBuffer(lse);
    }

    // UB acc / row_sum -> GM o; UB row_max + ln(row_sum) -> GM lse. MTE3 has read everything when
    // it returns: V may write the rows and the scratch next.
    __aicore__ inline void Write(const Rows& rows, const Scratch& scratch) {
        const uint32_t d = tiling_->headDim;
        // A row that saw a key has row_sum >= 1, one that saw none has acc = 0.
        AscendC::Maxs(scratch.values, rows.rowSum, 1.0e-30f, rows.count);
        AscendC::PipeBarrier<PIPE_V>();
        SpreadRows(scratch.blocks, scratch.values, rows.count);
        DivRows(rows.acc, scratch.blocks, rows.count, d);
        if (tiling_->returnLse != 0) SpreadLse(rows, scratch);
        if constexpr (IsSame<Q, float>::kValue) {
            CopyOut(rows, rows.acc, scratch.lse);
        } else {
            AscendC::Cast(scratch.out, rows.acc, AscendC::RoundMode::CAST_RINT, rows.count * d);
            CopyOut(rows, scratch.out, scratch.lse);
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE3_V>(kEventOut);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_V>(kEventOut);
    }

  private:
    static constexpr int32_t kEventOut = 1;

    // lse (count, 8) = row_max + ln(row_sum), each eight times: one block a row, as DataCopyPad
    // wants it.
    __aicore__ inline void SpreadLse(const Rows& rows, const Scratch& scratch) {
        AscendC::Ln(scratch.values, rows.rowSum, rows.count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Add(scratch.values, scratch.values, rows.rowMax, rows.count);
        AscendC::PipeBarrier<PIPE_V>();
        SpreadRows(scratch.lse, scratch.values, rows.count);
    }

    // UB src (count, headDim) -> GM o, and UB lse -> GM lse
    __aicore__ inline void CopyOut(const Rows& rows, const AscendC::LocalTensor<Q>& src,
                                   const AscendC::LocalTensor<float>& lse) {
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kEventOut);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kEventOut);
        CopyRowsOut(o_, src, layout_, rows.token, rows.group, rows.tileRow, rows.count);
        if (tiling_->returnLse == 0) return;
        for (uint32_t done = 0; done < rows.count;) {
            const RowRun run =
                RowRunAt(layout_, rows.token, rows.group, rows.tileRow + done, rows.count - done);
            CopyOutLse(run, lse[done * kFloatsPerBlock]);
            done += run.rows;
        }
    }

    // The same rows of lse: each a float in a block of its own.
    __aicore__ inline void CopyOutLse(const RowRun& run, const AscendC::LocalTensor<float>& lse) {
        AscendC::DataCopyExtParams params;
        params.blockCount = run.heads;
        params.blockLen = sizeof(float);
        params.srcStride = 0;
        params.dstStride = 0;
        for (uint32_t token = 0; token < run.tokens; ++token) {
            AscendC::DataCopyPad(lse_[run.offset / tiling_->headDim + token * tiling_->numHeads],
                                 lse[token * run.heads * kFloatsPerBlock], params);
        }
    }

    const FlashAttentionTilingData* tiling_ = nullptr;
    RowLayout layout_ = {};
    AscendC::GlobalTensor<Q> o_;
    AscendC::GlobalTensor<float> lse_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_OUTPUT_H_
