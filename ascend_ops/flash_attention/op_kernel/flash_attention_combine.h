// The second step of split keys: each row's parts, added up in their order.
#ifndef ASCEND_OPS_FLASH_ATTENTION_COMBINE_H_
#define ASCEND_OPS_FLASH_ATTENTION_COMBINE_H_

#include "common/op_kernel/online_softmax.h"
#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "flash_attention/op_kernel/flash_attention_output.h"
#include "flash_attention/op_kernel/flash_attention_sequences.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Q: element type of o. Runs on the AIVs, once the parts of all cores lie in the workspace; eight
// rows of a Q tile at a time, dealt to the AIVs in turn.
template <typename Q>
class FlashAttentionCombine {
  public:
    __aicore__ inline void Init(const FlashAttentionTilingData* tiling, __gm__ Q* o,
                                __gm__ float* lse, GM_ADDR workspace) {
        tiling_ = tiling;
        result_.Init(tiling, o, lse);
        partAcc_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspacePartAcc));
        partMax_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspacePartMax));
        partSum_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspacePartSum));
        for (uint32_t i = 0; i < 2; ++i) {
            accUb_[i] = ub_.Take<float>(kRows * tiling->headDim);
            maxUb_[i] = ub_.Take<float>(kRows);
            sumUb_[i] = ub_.Take<float>(kRows);
        }
        totalUb_ = ub_.Take<float>(kRows * tiling->headDim);
        outUb_ = ub_.Take<Q>(kRows * tiling->headDim);
        blocksUb_ = ub_.Take<float>(kRows * kFloatsPerBlock);
        lseUb_ = ub_.Take<float>(kRows * kFloatsPerBlock);
        rowMaxUb_ = ub_.Take<float>(kRows);
        rowSumUb_ = ub_.Take<float>(kRows);
        newMaxUb_ = ub_.Take<float>(kRows);
        alphaUb_ = ub_.Take<float>(kRows);
    }

    __aicore__ inline void Process(SequenceWalk& walk) {
        // Neighbours go to different cores.
        const uint32_t index = static_cast<uint32_t>(AscendC::GetBlockIdx());
        const uint32_t mine = index % 2 * tiling_->numCores + index / 2;
        const uint32_t workers = 2 * tiling_->numCores;
        uint32_t dealt = 0;
        for (int32_t i = 0; i < 2; ++i) AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(i);
        for (; !walk.Done(); walk.Advance()) {
            if (walk.Current().parts == 1) continue;
            const uint32_t rows = walk.Current().tokens * tiling_->groupSize;
            for (uint32_t group = 0; group < tiling_->numKvHeads; ++group) {
                for (uint32_t row = 0; row < rows; row += kRows) {
                    if (dealt++ % workers == mine) {
                        CombineRows(walk, group, row, MinOf(kRows, rows - row));
                    }
                }
            }
        }
        for (int32_t i = 0; i < 2; ++i) AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(i);
    }

  private:
    static constexpr uint32_t kRows = kFloatsPerBlock;

    __aicore__ inline void CombineRows(const SequenceWalk& walk, uint32_t group, uint32_t row,
                                       uint32_t count) {
        const uint32_t parts = walk.Current().parts;
        AscendC::Duplicate<float>(rowMaxUb_, kLowestMax, kRows);
        AscendC::Duplicate<float>(rowSumUb_, 0.0f, kRows);
        AscendC::Duplicate<float>(totalUb_, 0.0f, count * tiling_->headDim);
        AscendC::PipeBarrier<PIPE_V>();
        CopyIn(walk.PartRow(0, group) + row, count, 0);
        for (uint32_t part = 0; part < parts; ++part) {
            const int32_t buffer = static_cast<int32_t>(part % 2);
            if (part + 1 < parts) CopyIn(walk.PartRow(part + 1, group) + row, count, 1 - buffer);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(buffer);
            AddPart(buffer, count);
            AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(buffer);
        }
        result_.Write(
            {walk.Current().tokenBegin, group, row, count, totalUb_, rowMaxUb_, rowSumUb_},
            {newMaxUb_, blocksUb_, lseUb_, outUb_});
    }

    // GM parts[row : row + count] -> UB acc, max and sum
    __aicore__ inline void CopyIn(uint32_t row, uint32_t count, int32_t buffer) {
        const uint64_t d = tiling_->headDim;
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(buffer);
        AscendC::DataCopy(accUb_[buffer], partAcc_[row * d], count * tiling_->headDim);
        AscendC::DataCopy(maxUb_[buffer], partMax_[row], kRows);
        AscendC::DataCopy(sumUb_[buffer], partSum_[row], kRows);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(buffer);
    }

    // total = total * exp(old - new) + acc * exp(max - new), and the row sum likewise. A part in
    // which a row saw nothing has max = kLowestMax, sum = 0 and acc = 0: it changes no bit.
    __aicore__ inline void AddPart(int32_t buffer, uint32_t count) {
        const uint32_t d = tiling_->headDim;
        const AscendC::LocalTensor<float> beta = maxUb_[buffer];
        AscendC::Max(newMaxUb_, rowMaxUb_, maxUb_[buffer], kRows);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Sub(alphaUb_, rowMaxUb_, newMaxUb_, kRows);
        AscendC::Sub(beta, maxUb_[buffer], newMaxUb_, kRows);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Exp(alphaUb_, alphaUb_, kRows);
        AscendC::Exp(beta, beta, kRows);
        AscendC::Adds(rowMaxUb_, newMaxUb_, 0.0f, kRows);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Mul(rowSumUb_, rowSumUb_, alphaUb_, kRows);
        AscendC::Mul(sumUb_[buffer], sumUb_[buffer], beta, kRows);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Add(rowSumUb_, rowSumUb_, sumUb_[buffer], kRows);
        SpreadRows(blocksUb_, alphaUb_, kRows);
        MulRows(totalUb_, blocksUb_, count, d);
        SpreadRows(blocksUb_, beta, kRows);
        MulRows(accUb_[buffer], blocksUb_, count, d);
        AscendC::Add(totalUb_, totalUb_, accUb_[buffer], count * d);
        AscendC::PipeBarrier<PIPE_V>();
    }

    const FlashAttentionTilingData* tiling_ = nullptr;
    FlashAttentionOutput<Q> result_;
    AscendC::GlobalTensor<float> partAcc_;
    AscendC::GlobalTensor<float> partMax_;
    AscendC::GlobalTensor<float> partSum_;
    // One part in use, one on its way.
    AscendC::LocalTensor<float> accUb_[2];  // (8, headDim)
    AscendC::LocalTensor<float> maxUb_[2];  // (8), like sumUb
    AscendC::LocalTensor<float> sumUb_[2];
    // What the parts so far add up to, and scratch.
    AscendC::LocalTensor<float> totalUb_;   // (8, headDim)
    AscendC::LocalTensor<Q> outUb_;         // (8, headDim)
    AscendC::LocalTensor<float> blocksUb_;  // (8, 8), like lseUb
    AscendC::LocalTensor<float> lseUb_;
    AscendC::LocalTensor<float> rowMaxUb_;  // (8), like what follows
    AscendC::LocalTensor<float> rowSumUb_;
    AscendC::LocalTensor<float> newMaxUb_;
    AscendC::LocalTensor<float> alphaUb_;
    UbSpace ub_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_COMBINE_H_
