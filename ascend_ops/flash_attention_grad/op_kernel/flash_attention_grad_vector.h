// The AIV side of the gradient: P and dS from lse, and the sums of dV, dK and dQ.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_VECTOR_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_VECTOR_H_

#include "common/op_kernel/online_softmax.h"
#include "common/op_kernel/tile_math.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_cube.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tasks.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Each of the two AIVs of a core takes half of the rows of a Q tile and of a K/V tile. Work is cut
// into passes of vecRows rows; a pass owns one of two sets of buffers from its loads to its stores:
//   Open (MTE2 waits for the set), loads, Ready (V waits for them), vector calls,
//   HandOver (MTE3 waits for V), stores, Close (hands the set back).
// So MTE3 is behind every load and vector call of a closed pass, even of one that stores nothing.
template <typename T>
class FlashAttentionGradVector {
  public:
    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling,
                                const FlashAttentionGradGm& gm, GM_ADDR workspace) {
        tiling_ = tiling;
        dO_.SetGlobalBuffer((__gm__ T*)gm.dO);
        o_.SetGlobalBuffer((__gm__ T*)gm.o);
        lse_.SetGlobalBuffer((__gm__ float*)gm.lse);
        dQ_.SetGlobalBuffer((__gm__ T*)gm.dQ);
        dK_.SetGlobalBuffer((__gm__ T*)gm.dK);
        dV_.SetGlobalBuffer((__gm__ T*)gm.dV);
        scores_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceS));
        dProbs_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDp));
        probs_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceP));
        dScores_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceDs));
        dVPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDvPart));
        dKPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDkPart));
        dQPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDqPart));
        dQSum_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDq));
        rowLse_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceLse));
        rowDelta_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDelta));

        const uint32_t passElems = tiling->vecRows * MaxOf(tiling->blockN, tiling->headDim);
        const uint32_t accElems = tiling->blockN / 2 * tiling->headDim;
        dVUb_ = Take<float>(accElems);
        dKUb_ = Take<float>(accElems);
        for (uint32_t i = 0; i < 2; ++i) {
            oneUb_[i] = Take<float>(passElems);
            twoUb_[i] = Take<float>(passElems);
            if constexpr (!kFloat) {
                roundedOneUb_[i] = Take<T>(passElems);
                roundedTwoUb_[i] = Take<T>(passElems);
            }
            lseUb_[i] = Take<float>(tiling->vecRows);
            deltaUb_[i] = Take<float>(tiling->vecRows);
        }
        foldUb_ = Take<float>(tiling->vecRows * kFloatsPerRepeat);
        blocksUb_ = Take<float>(tiling->vecRows * kFloatsPerBlock);
    }

    __aicore__ inline void Begin() {
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(0);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(1);
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(kEventSum);
    }

    __aicore__ inline void End() {
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(0);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(1);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(kEventSum);
    }

    // V1: P and dS of the task to their slots; before an item's first task, lse and D of its rows.
    __aicore__ inline void StageOne(const GradTask& task) {
        if (task.firstOfItem) PrepareRows(task.item);
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kGradFlagScores);
        const Span rows = OwnRows(task.rows);
        for (uint32_t row = 0; row < rows.count; row += tiling_->vecRows) {
            ProbsPass(task, rows.begin + row, MinOf(tiling_->vecRows, rows.count - row));
        }
        AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kGradFlagProbs);
    }

    // V2: the task's parts join dV, dK and dQ; a finished sum is rounded and leaves.
    __aicore__ inline void StageTwo(const GradTask& task) {
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kGradFlagParts);
        const Span keys = OwnRows(task.kvRows);
        for (uint32_t row = 0; row < keys.count; row += tiling_->vecRows) {
            const Span pass = {row, MinOf(tiling_->vecRows, keys.count - row)};
            KeyPass(task, dVUb_, dVPart_, dV_, keys.begin, pass);
            KeyPass(task, dKUb_, dKPart_, dK_, keys.begin, pass);
        }
        if (task.rows == 0) return;
        // A sum of dQ is read only after the last one has arrived in GM.
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(kEventSum);
        const Span rows = OwnRows(task.rows);
        for (uint32_t row = 0; row < rows.count; row += tiling_->vecRows) {
            QueryPass(task, rows.begin + row, MinOf(tiling_->vecRows, rows.count - row));
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(kEventSum);
    }

  private:
    static constexpr bool kFloat = IsSame<T, float>::kValue;
    // Beside 0 and 1, the sets of buffers:
    static constexpr int32_t kEventSum = 2;   // MTE3_MTE2: dQ sums
    static constexpr int32_t kEventRows = 3;  // MTE3_MTE2: lse and D; V_MTE2: blocksUb

    struct Span {
        uint32_t begin;
        uint32_t count;
    };

    // Rows of an item that lie side by side in q, o, do and dq: the end of a token's heads, whole
    // tokens, or the beginning of a token's heads.
    struct RowRun {
        uint32_t rows;
        uint32_t heads;  // rows of one token
        uint32_t tokens;
        uint64_t offset;  // element of q
    };

    template <typename E>
    __aicore__ inline AscendC::LocalTensor<E> Take(uint32_t elems) {
        const uint32_t address = ubBytes_;
        ubBytes_ += AlignUp(elems * sizeof(E), kBlockBytes);
        return AscendC::LocalTensor<E>(AscendC::TPosition::VECCALC, address, elems);
    }

    // This AIV's half of a tile's rows.
    __aicore__ inline Span OwnRows(uint32_t rows) {
        const uint32_t half = MinOf(AlignUp(CeilDiv(rows, 2), kFloatsPerBlock), rows);
        if (AscendC::GetSubBlockIdx() == 0) return {0, half};
        return {half, rows - half};
    }

    // Where row `row` of a Q tile has its sums in the workspace. Each AIV has half of the tile's
    // places to itself whatever the number of rows, so that items may follow one another.
    __aicore__ inline uint64_t PlaceOf(uint32_t tile, uint32_t rows, uint32_t row) {
        const uint32_t own = row - OwnRows(rows).begin;
        const uint32_t half =
            static_cast<uint32_t>(AscendC::GetSubBlockIdx()) * tiling_->blockM / 2;
        return static_cast<uint64_t>(tile) * tiling_->blockM + half + own;
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
            return oneUb_[set_];
        } else {
            AscendC::Cast(roundedOneUb_[set_], oneUb_[set_], AscendC::RoundMode::CAST_RINT, elems);
            return roundedOneUb_[set_];
        }
    }

    __aicore__ inline AscendC::LocalTensor<T> RoundTwo(uint32_t elems) {
        if constexpr (kFloat) {
            return twoUb_[set_];
        } else {
            AscendC::Cast(roundedTwoUb_[set_], twoUb_[set_], AscendC::RoundMode::CAST_RINT, elems);
            return roundedTwoUb_[set_];
        }
    }

    // lse and D of the item's rows to the workspace; zeros to dq where a Q tile sees nothing.
    __aicore__ inline void PrepareRows(const GradItem& item) {
        for (uint32_t tile = 0; tile < item.tiles; ++tile) {
            const uint32_t tileRows = MinOf(tiling_->blockM, item.rows - tile * tiling_->blockM);
            const bool blind = SeesNothing(VisibleToTile(tiling_, item, tile));
            const Span rows = OwnRows(tileRows);
            for (uint32_t done = 0; done < rows.count; done += tiling_->vecRows) {
                const uint32_t row = rows.begin + done;
                const uint32_t count = MinOf(tiling_->vecRows, rows.count - done);
                const uint32_t itemRow = tile * tiling_->blockM + row;
                if (blind) {
                    ZeroPass(item, itemRow, count);
                } else {
                    DeltaPass(item, itemRow, PlaceOf(tile, tileRows, row), count);
                }
            }
        }
        // V1 reads them back.
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(kEventRows);
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(kEventRows);
    }

    // GM do, o and lse of `count` rows -> D = rowsum(do * o) and lse, a float a row -> workspace
    __aicore__ inline void DeltaPass(const GradItem& item, uint32_t itemRow, uint64_t place,
                                     uint32_t count) {
        const uint32_t d = tiling_->headDim;
        const AscendC::LocalTensor<float> one = oneUb_[set_];
        const AscendC::LocalTensor<float> two = twoUb_[set_];
        const AscendC::LocalTensor<float> lse = lseUb_[set_];
        Open();
        // lse goes to blocksUb, which belongs to no set: V is done with it.
        AscendC::SetFlag<AscendC::HardEvent::V_MTE2>(kEventRows);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE2>(kEventRows);
        if constexpr (kFloat) {
            CopyInRows(one, dO_, item, itemRow, count);
            CopyInRows(two, o_, item, itemRow, count);
        } else {
            CopyInRows(roundedOneUb_[set_], dO_, item, itemRow, count);
            CopyInRows(roundedTwoUb_[set_], o_, item, itemRow, count);
        }
        CopyInLse(item, itemRow, count);
        Ready();
        if constexpr (!kFloat) {
            AscendC::Cast(one, roundedOneUb_[set_], AscendC::RoundMode::CAST_NONE, count * d);
            AscendC::Cast(two, roundedTwoUb_[set_], AscendC::RoundMode::CAST_NONE, count * d);
            AscendC::PipeBarrier<PIPE_V>();
        }
        AscendC::Mul(one, one, two, count * d);
        AscendC::PipeBarrier<PIPE_V>();
        RowSumOf(deltaUb_[set_], one, foldUb_, count, d);
        // lse arrived in the first float of a block a row.
        ReduceBlocksSum(lse, blocksUb_, count, 1);
        AscendC::PipeBarrier<PIPE_V>();
        HideBlindRows(lse, count);
        HandOver();
        const uint32_t padded = AlignUp(count, kFloatsPerBlock);
        AscendC::DataCopy(rowLse_[place], lse, padded);
        AscendC::DataCopy(rowDelta_[place], deltaUb_[set_], padded);
        Close();
    }

    // lse = -inf becomes 2e37, below which every exp(scores - lse) is 0; others stay as they are.
    __aicore__ inline void HideBlindRows(const AscendC::LocalTensor<float>& lse, uint32_t count) {
        AscendC::Maxs(lse, lse, kLowestMax, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Adds(foldUb_, lse, 1.0e38f, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Mins(foldUb_, foldUb_, 0.0f, count);  // -2e38 where lse was -inf, else 0
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Muls(foldUb_, foldUb_, -1.6f, count);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Add(lse, lse, foldUb_, count);
        AscendC::PipeBarrier<PIPE_V>();
    }

    // dq of `count` rows = 0
    __aicore__ inline void ZeroPass(const GradItem& item, uint32_t itemRow, uint32_t count) {
        Open();
        Ready();
        AscendC::Duplicate<float>(oneUb_[set_], 0.0f, count * tiling_->headDim);
        AscendC::PipeBarrier<PIPE_V>();
        const AscendC::LocalTensor<T> out = RoundOne(count * tiling_->headDim);
        HandOver();
        CopyOutRows(out, item, itemRow, count);
        Close();
    }

    // P = exp(scale S - lse) and dS = scale P (dP - D) of rows [row, row + count) of the Q tile
    __aicore__ inline void ProbsPass(const GradTask& task, uint32_t row, uint32_t count) {
        const uint32_t cols = AlignUp(task.kvRows, kFloatsPerRepeat);
        const uint64_t slot =
            task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->blockN) + row * cols;
        const uint64_t place = PlaceOf(task.tile, task.rows, row);
        const uint32_t padded = AlignUp(count, kFloatsPerBlock);
        const AscendC::LocalTensor<float> probs = oneUb_[set_];
        const AscendC::LocalTensor<float> dScores = twoUb_[set_];
        Open();
        AscendC::DataCopy(probs, scores_[slot], count * cols);
        AscendC::DataCopy(dScores, dProbs_[slot], count * cols);
        AscendC::DataCopy(lseUb_[set_], rowLse_[place], padded);
        AscendC::DataCopy(deltaUb_[set_], rowDelta_[place], padded);
        Ready();
        AscendC::Muls(probs, probs, tiling_->scale, count * cols);
        AscendC::PipeBarrier<PIPE_V>();
        if (Hides(task)) MaskTile(task, row, count, cols);
        SpreadRows(blocksUb_, lseUb_[set_], count);
        SubRows(probs, blocksUb_, count, cols);
        AscendC::Exp(probs, probs, count * cols);
        SpreadRows(blocksUb_, deltaUb_[set_], count);
        SubRows(dScores, blocksUb_, count, cols);
        AscendC::Mul(dScores, dScores, probs, count * cols);
        AscendC::PipeBarrier<PIPE_V>();
        AscendC::Muls(dScores, dScores, tiling_->scale, count * cols);
        AscendC::PipeBarrier<PIPE_V>();
        const AscendC::LocalTensor<T> outProbs = RoundOne(count * cols);
        const AscendC::LocalTensor<T> outDScores = RoundTwo(count * cols);
        HandOver();
        AscendC::DataCopy(probs_[slot], outProbs, count * cols);
        AscendC::DataCopy(dScores_[slot], outDScores, count * cols);
        Close();
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
            MaskColumns(oneUb_[set_], row, live, cols, static_cast<uint32_t>(begin),
                        static_cast<uint32_t>(end));
        }
    }

    // sum (+)= part of this AIV's keys `pass`; after the last task of the K/V tile, sum -> GM out
    __aicore__ inline void KeyPass(const GradTask& task, const AscendC::LocalTensor<float>& sums,
                                   const AscendC::GlobalTensor<float>& part,
                                   const AscendC::GlobalTensor<T>& out, uint32_t firstKey,
                                   const Span& pass) {
        const uint32_t d = tiling_->headDim;
        const uint32_t elems = pass.count * d;
        const uint64_t slot = task.index % tiling_->taskSlots * (tiling_->blockN * d);
        const AscendC::LocalTensor<float> sum = sums[pass.begin * d];
        const AscendC::LocalTensor<float> one = oneUb_[set_];
        Open();
        if (task.rows > 0) AscendC::DataCopy(one, part[slot + (firstKey + pass.begin) * d], elems);
        Ready();
        if (task.rows == 0) {
            AscendC::Duplicate<float>(one, 0.0f, elems);
        } else if (!task.lastOfKv) {
            if (task.firstOfKv) {
                AscendC::Adds(sum, one, 0.0f, elems);
            } else {
                AscendC::Add(sum, sum, one, elems);
            }
        } else if (!task.firstOfKv) {
            AscendC::Add(one, sum, one, elems);
        }
        AscendC::PipeBarrier<PIPE_V>();
        if (task.lastOfKv) {
            const AscendC::LocalTensor<T> rounded = RoundOne(elems);
            HandOver();
            CopyOutKeys(out, rounded, task, firstKey + pass.begin, pass.count);
        } else {
            HandOver();
        }
        Close();
    }

    // dQ sum (+)= part of rows [row, row + count) of the Q tile; the last sum -> GM dq
    __aicore__ inline void QueryPass(const GradTask& task, uint32_t row, uint32_t count) {
        const uint32_t d = tiling_->headDim;
        const uint64_t slot = task.index % tiling_->taskSlots * (tiling_->blockM * d);
        const uint64_t place = PlaceOf(task.tile, task.rows, row) * d;
        const AscendC::LocalTensor<float> one = oneUb_[set_];
        Open();
        AscendC::DataCopy(one, dQPart_[slot + row * d], count * d);
        if (!task.firstOfQ) AscendC::DataCopy(twoUb_[set_], dQSum_[place], count * d);
        Ready();
        if (!task.firstOfQ) {
            AscendC::Add(one, twoUb_[set_], one, count * d);
            AscendC::PipeBarrier<PIPE_V>();
        }
        if (task.lastOfQ) {
            const AscendC::LocalTensor<T> rounded = RoundOne(count * d);
            HandOver();
            CopyOutRows(rounded, task.item, task.tile * tiling_->blockM + row, count);
        } else {
            HandOver();
            AscendC::DataCopy(dQSum_[place], one, count * d);
        }
        Close();
    }

    // UB (count, headDim) -> GM dk or dv, keys from `row` of the K/V tile on
    __aicore__ inline void CopyOutKeys(const AscendC::GlobalTensor<T>& dst,
                                       const AscendC::LocalTensor<T>& src, const GradTask& task,
                                       uint32_t row, uint32_t count) {
        const uint32_t d = tiling_->headDim;
        const uint64_t token = static_cast<uint64_t>(task.item.kvToken) + task.kvStart + row;
        AscendC::DataCopyExtParams params;
        params.blockCount = count;
        params.blockLen = d * sizeof(T);
        params.srcStride = 0;
        params.dstStride = (tiling_->numKvHeads - 1) * d * sizeof(T);
        AscendC::DataCopyPad(dst[(token * tiling_->numKvHeads + task.item.group) * d], src, params);
    }

    // GM rows [itemRow, itemRow + count) of the item -> UB (count, headDim)
    __aicore__ inline void CopyInRows(const AscendC::LocalTensor<T>& dst,
                                      const AscendC::GlobalTensor<T>& src, const GradItem& item,
                                      uint32_t itemRow, uint32_t count) {
        const uint32_t d = tiling_->headDim;
        for (uint32_t done = 0; done < count;) {
            const RowRun run = RunAt(item, itemRow + done, count - done);
            AscendC::DataCopyExtParams params;
            params.blockCount = run.tokens;
            params.blockLen = run.heads * d * sizeof(T);
            params.srcStride = (tiling_->numHeads - tiling_->groupSize) * d * sizeof(T);
            params.dstStride = 0;
            AscendC::DataCopyPadExtParams<T> pad;
            AscendC::DataCopyPad(dst[done * d], src[run.offset], params, pad);
            done += run.rows;
        }
    }

    // UB src (count, headDim) -> GM dq, rows [itemRow, itemRow + count) of the item
    __aicore__ inline void CopyOutRows(const AscendC::LocalTensor<T>& src, const GradItem& item,
                                       uint32_t itemRow, uint32_t count) {
        const uint32_t d = tiling_->headDim;
        for (uint32_t done = 0; done < count;) {
            const RowRun run = RunAt(item, itemRow + done, count - done);
            AscendC::DataCopyExtParams params;
            params.blockCount = run.tokens;
            params.blockLen = run.heads * d * sizeof(T);
            params.srcStride = 0;
            params.dstStride = (tiling_->numHeads - tiling_->groupSize) * d * sizeof(T);
            AscendC::DataCopyPad(dQ_[run.offset], src[done * d], params);
            done += run.rows;
        }
    }

    // GM lse of the same rows -> UB blocks (count, 8), a float in a block of its own
    __aicore__ inline void CopyInLse(const GradItem& item, uint32_t itemRow, uint32_t count) {
        for (uint32_t done = 0; done < count;) {
            const RowRun run = RunAt(item, itemRow + done, count - done);
            const bool single = tiling_->groupSize == 1;
            AscendC::DataCopyExtParams params;
            params.blockCount = single ? run.tokens : run.heads;
            params.blockLen = sizeof(float);
            params.srcStride = single ? (tiling_->numHeads - 1) * sizeof(float) : 0;
            params.dstStride = 0;
            AscendC::DataCopyPadExtParams<float> pad;
            for (uint32_t token = 0; token < (single ? 1 : run.tokens); ++token) {
                AscendC::DataCopyPad(
                    blocksUb_[(done + token * run.heads) * kFloatsPerBlock],
                    lse_[run.offset / tiling_->headDim + token * tiling_->numHeads], params, pad);
            }
            done += run.rows;
        }
    }

    // The run that starts at the item's row `row`, at most `count` rows long.
    __aicore__ inline RowRun RunAt(const GradItem& item, uint32_t row, uint32_t count) {
        const uint32_t group = tiling_->groupSize;
        const uint32_t head = row % group;
        const uint64_t token = static_cast<uint64_t>(item.qToken) + row / group;
        const bool whole = head == 0 && count >= group;
        RowRun run;
        run.heads = whole ? group : MinOf(group - head, count);
        run.tokens = whole ? count / group : 1;
        run.rows = run.heads * run.tokens;
        run.offset = (token * tiling_->numHeads + item.group * group + head) * tiling_->headDim;
        return run;
    }

    const FlashAttentionGradTilingData* tiling_ = nullptr;
    AscendC::GlobalTensor<T> dO_;
    AscendC::GlobalTensor<T> o_;
    AscendC::GlobalTensor<float> lse_;
    AscendC::GlobalTensor<T> dQ_;
    AscendC::GlobalTensor<T> dK_;
    AscendC::GlobalTensor<T> dV_;
    AscendC::GlobalTensor<float> scores_;
    AscendC::GlobalTensor<float> dProbs_;
    AscendC::GlobalTensor<T> probs_;
    AscendC::GlobalTensor<T> dScores_;
    AscendC::GlobalTensor<float> dVPart_;
    AscendC::GlobalTensor<float> dKPart_;
    AscendC::GlobalTensor<float> dQPart_;
    AscendC::GlobalTensor<float> dQSum_;     // by place
    AscendC::GlobalTensor<float> rowLse_;    // by place
    AscendC::GlobalTensor<float> rowDelta_;  // by place
    AscendC::LocalTensor<float> dVUb_;       // (blockN / 2, headDim)
    AscendC::LocalTensor<float> dKUb_;       // the same
    // The two sets of buffers of passes.
    AscendC::LocalTensor<float> oneUb_[2];     // (vecRows, max(blockN, headDim))
    AscendC::LocalTensor<float> twoUb_[2];     // the same
    AscendC::LocalTensor<T> roundedOneUb_[2];  // the same; none for float
    AscendC::LocalTensor<T> roundedTwoUb_[2];
    AscendC::LocalTensor<float> lseUb_[2];    // (vecRows)
    AscendC::LocalTensor<float> deltaUb_[2];  // the same
    AscendC::LocalTensor<float> foldUb_;      // (vecRows, 64)
    AscendC::LocalTensor<float> blocksUb_;    // (vecRows, 8)
    uint32_t ubBytes_ = 0;
    int32_t set_ = 0;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_VECTOR_H_
