// The AIC side of FlashAttention: S = Q K^T and O = P V, tile by tile, through the GM workspace.
#ifndef ASCEND_OPS_FLASH_ATTENTION_CUBE_H_
#define ASCEND_OPS_FLASH_ATTENTION_CUBE_H_

#include "common/op_kernel/cube_unit.h"
#include "common/op_kernel/tile_math.h"
#include "flash_attention/op_kernel/flash_attention_tasks.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Cross-core flags, all in mode 2 (AIC and its two AIVs).
constexpr uint16_t kFlagScores = 1;  // AIC -> AIV: S of a task is in its slot
constexpr uint16_t kFlagProbs = 2;   // AIV -> AIC: P of a task is in its slot
constexpr uint16_t kFlagOutput = 3;  // AIC -> AIV: P V of a task is in its slot
constexpr uint16_t kFlagQuery = 4;   // AIV -> AIC: the Q tile of an item is cast

// T: element type of the K/V cache and of both matrix products. kCastQ: q has another type, so AIV
// rounds each Q tile to T in the workspace.
template <typename T, bool kCastQ>
class FlashAttentionCube {
  public:
    __aicore__ inline void Init(const FlashAttentionTilingData* tiling, __gm__ T* q,
                                __gm__ T* kCache, __gm__ T* vCache, __gm__ int32_t* blockTable,
                                GM_ADDR workspace) {
        tiling_ = tiling;
        const uint32_t d = tiling->headDim;
        q_.SetGlobalBuffer(q);
        k_.SetGlobalBuffer(kCache);
        v_.SetGlobalBuffer(vCache);
        blockTable_.SetGlobalBuffer(blockTable);
        castQ_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceQ));
        scores_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceS));
        probs_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceP));
        output_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceO));

        using AscendC::LocalTensor;
        using AscendC::TPosition;
        const uint32_t qElems = tiling->blockM * d;
        const uint32_t kvElems = tiling->blockN * d;
        const uint32_t pElems = tiling->blockM * tiling->blockN;
        uint32_t address = 0;
        qL1_ = LocalTensor<T>(TPosition::A1, address, qElems);
        address += qElems * sizeof(T);
        for (uint32_t i = 0; i < 2; ++i) {
            kL1_[i] = LocalTensor<T>(TPosition::B1, address, kvElems);
            address += kvElems * sizeof(T);
            vL1_[i] = LocalTensor<T>(TPosition::B1, address, kvElems);
            address += kvElems * sizeof(T);
            pL1_[i] = LocalTensor<T>(TPosition::A1, address, pElems);
            address += pElems * sizeof(T);
        }
        const uint32_t aElems = tiling->blockM * tiling->l0BlockK;
        const uint32_t bElems = tiling->l0BlockN * tiling->l0BlockK;
        const uint32_t cElems = tiling->blockM * tiling->l0BlockN;
        unit_.Init(aElems, bElems, cElems);
    }

    // Hands every buffer to the pipe that fills it.
    __aicore__ inline void Begin() {
        AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQ);
        for (int32_t i = 0; i < 2; ++i) {
            AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventK + i);
            AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventPV + i);
        }
        unit_.Begin();
    }

    // Takes back what Begin and the last tasks handed out, so that no flag outlives the kernel.
    __aicore__ inline void End() {
        AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQ);
        for (int32_t i = 0; i < 2; ++i) {
            AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventK + i);
            AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventPV + i);
        }
        unit_.End();
    }

    // C1: S (rows, kvRows) = Q K^T to the task's slot, row pitch = kvRows rounded up to 64.
    __aicore__ inline void StageOne(const AttentionTask& task) {
        if (task.first) {
            if constexpr (kCastQ) AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kFlagQuery);
            if (task.kvRows > 0) CopyInQ(task);
        }
        if (task.kvRows > 0) {
            const int32_t buffer = static_cast<int32_t>(task.index % 2);
            CopyInK(task, buffer);
            if (task.first) AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQ);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventK + buffer);
            const uint32_t pitch = AlignUp(task.kvRows, kFloatsPerRepeat);
            const uint64_t slot =
                task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->blockN);
            for (uint32_t n = 0; n < task.kvRows; n += tiling_->l0BlockN) {
                const uint32_t cols = MinOf(tiling_->l0BlockN, task.kvRows - n);
                MultiplyQK(task.rows, n, cols, buffer);
                unit_.CopyOut(scores_[slot + n], task.rows, cols, pitch);
            }
            AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventK + buffer);
            if (task.last) AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQ);
        }
        AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kFlagScores);
    }

    // C2: O (rows, headDim) = P V to the task's slot.
    __aicore__ inline void StageTwo(const AttentionTask& task) {
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kFlagProbs);
        if (task.kvRows > 0) {
            const int32_t buffer = static_cast<int32_t>(task.index % 2);
            CopyInPV(task, buffer);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventPV + buffer);
            const uint64_t slot =
                task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->headDim);
            for (uint32_t n = 0; n < tiling_->headDim; n += tiling_->l0BlockN) {
                const uint32_t cols = MinOf(tiling_->l0BlockN, tiling_->headDim - n);
                MultiplyPV(task.rows, task.kvRows, n, cols, buffer);
                unit_.CopyOut(output_[slot + n], task.rows, cols, tiling_->headDim);
            }
            AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventPV + buffer);
        }
        AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kFlagOutput);
    }

  private:
    static constexpr uint32_t kC0 = kBlockBytes / sizeof(T);  // columns of a fractal
    static constexpr uint32_t kFractalElems = kFractalBytes / sizeof(T);
    static constexpr bool kFloat = IsSame<T, float>::kValue;
    // MTE2 <-> MTE1 event ids; K and P+V have two buffers each.
    static constexpr int32_t kEventK = 0;
    static constexpr int32_t kEventPV = 2;
    static constexpr int32_t kEventQ = 4;

    // Consecutive rows of a K/V tile that lie in one page, or all of them where there are no pages.
    struct PageRun {
        uint64_t offset;  // element of the cache
        uint32_t rows;
    };

    // GM q (token x head of one group, headDim) -> L1 qL1 NZ
    __aicore__ inline void CopyInQ(const AttentionTask& task) {
        const uint32_t d = tiling_->headDim;
        const uint32_t rowsPadded = AlignUp(task.rows, kFractalRows);
        AscendC::Nd2NzParams params;
        params.dValue = d;
        params.srcDValue = d;
        params.dstNzC0Stride = rowsPadded;
        params.dstNzNStride = 1;
        AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQ);
        if constexpr (kCastQ) {
            params.ndNum = 1;
            params.nValue = task.rows;
            params.srcNdMatrixStride = 0;
            params.dstNzMatrixStride = 0;
            AscendC::DataCopy(qL1_, castQ_, params);
        } else {
            const uint32_t rowElems = tiling_->numHeads * d;
            params.ndNum = task.rows / tiling_->groupSize;
            params.nValue = tiling_->groupSize;
            params.srcNdMatrixStride = rowElems;
            params.dstNzMatrixStride = tiling_->groupSize * kC0;
            const uint64_t start =
                static_cast<uint64_t>(task.token) * rowElems + task.group * tiling_->groupSize * d;
            AscendC::DataCopy(qL1_, q_[start], params);
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQ);
    }

    // GM k[kvStart : kvStart + kvRows] of one group, page by page -> L1 kL1 NZ
    __aicore__ inline void CopyInK(const AttentionTask& task, int32_t buffer) {
        AscendC::Nd2NzParams params;
        params.ndNum = 1;
        params.dValue = tiling_->headDim;
        params.srcNdMatrixStride = 0;
        params.srcDValue = tiling_->kvRowPitch;
        params.dstNzC0Stride = tiling_->blockN;
        params.dstNzNStride = 1;
        params.dstNzMatrixStride = 0;
        AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventK + buffer);
        for (uint32_t row = 0; row < task.kvRows;) {
            const PageRun run = RunAt(task, row);
            params.nValue = run.rows;
            AscendC::DataCopy(kL1_[buffer][row * kC0], k_[run.offset], params);
            row += run.rows;
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventK + buffer);
    }

    // GM v like k, and GM probs of the task's slot -> L1 vL1 and pL1 NZ
    __aicore__ inline void CopyInPV(const AttentionTask& task, int32_t buffer) {
        AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventPV + buffer);
        for (uint32_t row = 0; row < task.kvRows;) {
            const PageRun run = RunAt(task, row);
            CopyInVRun(row, run, buffer);
            row += run.rows;
        }
        AscendC::Nd2NzParams params;
        const uint32_t pitch = AlignUp(task.kvRows, kFloatsPerRepeat);
        params.ndNum = 1;
        params.nValue = task.rows;
        params.dValue = AlignUp(task.kvRows, kC0);
        params.srcNdMatrixStride = 0;
        params.srcDValue = pitch;
        params.dstNzC0Stride = AlignUp(task.rows, kFractalRows);
        params.dstNzNStride = 1;
        params.dstNzMatrixStride = 0;
        const uint64_t slot = task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->blockN);
        AscendC::DataCopy(pL1_[buffer], probs_[slot], params);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventPV + buffer);
    }

    // half: one NZ matrix of blockN rows. float: NZ matrices of 16 rows one after the other, for
    // LoadDataWithTranspose wants the two fractals of a 16 x 16 square side by side.
    __aicore__ inline void CopyInVRun(uint32_t row, const PageRun& run, int32_t buffer) {
        const uint32_t d = tiling_->headDim;
        const uint32_t pitch = tiling_->kvRowPitch;
        AscendC::Nd2NzParams params;
        params.ndNum = 1;
        params.nValue = run.rows;
        params.dValue = d;
        params.srcNdMatrixStride = 0;
        params.srcDValue = pitch;
        params.dstNzC0Stride = tiling_->blockN;
        params.dstNzNStride = 1;
        params.dstNzMatrixStride = 0;
        if constexpr (!kFloat) {
            AscendC::DataCopy(vL1_[buffer][row * kC0], v_[run.offset], params);
            return;
        }
        params.dstNzC0Stride = kFractalRows;
        const uint32_t whole = run.rows / kFractalRows;
        if (whole > 0) {
            params.ndNum = whole;
            params.nValue = kFractalRows;
            params.srcNdMatrixStride = kFractalRows * pitch;
            params.dstNzMatrixStride = kFractalRows * d;
            AscendC::DataCopy(vL1_[buffer][row * d], v_[run.offset], params);
        }
        const uint32_t rest = run.rows % kFractalRows;
        if (rest > 0) {
            const uint32_t done = whole * kFractalRows;
            params.ndNum = 1;
            params.nValue = rest;
            AscendC::DataCopy(vL1_[buffer][(row + done) * d], v_[run.offset + done * pitch],
                              params);
        }
    }

    // l0c (rows, cols) = Q (rows, headDim) K[n : n + cols]^T
    __aicore__ inline void MultiplyQK(uint32_t rows, uint32_t n, uint32_t cols, int32_t buffer) {
        unit_.OpenSum();
        for (uint32_t k = 0; k < tiling_->headDim; k += tiling_->l0BlockK) {
            const uint32_t depth = MinOf(tiling_->l0BlockK, tiling_->headDim - k);
            unit_.OpenOperands();
            LoadA(qL1_, rows, k, depth);
            LoadBFromK(n, cols, k, depth, buffer);
            unit_.MultiplyStep(rows, cols, depth, k == 0);
        }
        unit_.CloseSum();
    }

    // l0c (rows, cols) = P (rows, kvRows) V[:, n : n + cols]
    __aicore__ inline void MultiplyPV(uint32_t rows, uint32_t kvRows, uint32_t n, uint32_t cols,
                                      int32_t buffer) {
        unit_.OpenSum();
        for (uint32_t k = 0; k < kvRows; k += tiling_->l0BlockK) {
            const uint32_t depth = MinOf(tiling_->l0BlockK, kvRows - k);
            unit_.OpenOperands();
            LoadA(pL1_[buffer], rows, k, depth);
            LoadBFromV(n, cols, k, depth, buffer);
            unit_.MultiplyStep(rows, cols, depth, k == 0);
        }
        unit_.CloseSum();
    }

    // L1 NZ (rows, :) columns [k, k + depth) -> L0A
    __aicore__ inline void LoadA(const AscendC::LocalTensor<T>& src, uint32_t rows, uint32_t k,
                                 uint32_t depth) {
        const uint32_t rowFractals = CeilDiv(rows, kFractalRows);
        const uint32_t depthFractals = CeilDiv(depth, kC0);
        AscendC::LoadData2DParams params;
        params.repeatTimes = depthFractals;
        params.srcStride = rowFractals;
        for (uint32_t r = 0; r < rowFractals; ++r) {
            const uint32_t source = (k / kC0 * rowFractals + r) * kFractalElems;
            AscendC::LoadData(unit_.A()[r * depthFractals * kFractalElems], src[source], params);
        }
    }

    // L1 kL1 NZ rows [n, n + cols), columns [k, k + depth) -> L0B as (depth, cols)
    __aicore__ inline void LoadBFromK(uint32_t n, uint32_t cols, uint32_t k, uint32_t depth,
                                      int32_t buffer) {
        const uint32_t colFractals = CeilDiv(cols, kFractalRows);
        const uint32_t kvFractals = tiling_->blockN / kFractalRows;
        AscendC::LoadData2DParams params;
        params.repeatTimes = colFractals;
        params.srcStride = 1;
        for (uint32_t c = 0; c < CeilDiv(depth, kC0); ++c) {
            const uint32_t source = ((k / kC0 + c) * kvFractals + n / kFractalRows) * kFractalElems;
            AscendC::LoadData(unit_.B()[c * colFractals * kFractalElems], kL1_[buffer][source],
                              params);
        }
    }

    // L1 vL1 rows [k, k + depth), columns [n, n + cols) -> L0B as (depth, cols)
    __aicore__ inline void LoadBFromV(uint32_t n, uint32_t cols, uint32_t k, uint32_t depth,
                                      int32_t buffer) {
        const uint32_t colFractals = cols / kFractalRows;
        if constexpr (kFloat) {
            AscendC::LoadData2dTransposeParams params;
            params.repeatTimes = colFractals;
            params.srcStride = 1;
            params.dstGap = 0;
            params.dstFracGap = colFractals - 1;
            for (uint32_t r = 0; r < CeilDiv(depth, kFractalRows); ++r) {
                const uint32_t source =
                    (k + r * kFractalRows) * tiling_->headDim + n * kFractalRows;
                AscendC::LoadDataWithTranspose(unit_.B()[2 * r * colFractals * kFractalElems],
                                               vL1_[buffer][source], params);
            }
        } else {
            const uint32_t kvFractals = tiling_->blockN / kFractalRows;
            AscendC::LoadData2DParams params;
            params.repeatTimes = colFractals;
            params.srcStride = kvFractals;
            params.ifTranspose = true;
            for (uint32_t r = 0; r < CeilDiv(depth, kFractalRows); ++r) {
                const uint32_t source =
                    (n / kC0 * kvFractals + k / kFractalRows + r) * kFractalElems;
                AscendC::LoadData(unit_.B()[r * colFractals * kFractalElems], vL1_[buffer][source],
                                  params);
            }
        }
    }

    // The run that starts at row `row` of the task's tile.
    __aicore__ inline PageRun RunAt(const AttentionTask& task, uint32_t row) {
        const uint32_t position = task.kvStart + row;
        PageRun run;
        if (tiling_->paged == 0) {
            const uint64_t token = static_cast<uint64_t>(blockTable_.GetValue(task.seq)) + position;
            run.rows = task.kvRows - row;
            run.offset = token * tiling_->kvRowPitch + task.group * tiling_->headDim;
            return run;
        }
        const uint32_t inPage = position % tiling_->pageSize;
        const uint64_t entry =
            static_cast<uint64_t>(task.seq) * tiling_->maxPages + position / tiling_->pageSize;
        const uint64_t page = static_cast<uint64_t>(blockTable_.GetValue(entry));
        run.rows = MinOf(tiling_->pageSize - inPage, task.kvRows - row);
        run.offset = ((page * tiling_->numKvHeads + task.group) * tiling_->pageSize + inPage) *
                     tiling_->headDim;
        return run;
    }

    const FlashAttentionTilingData* tiling_ = nullptr;
    AscendC::GlobalTensor<T> q_;
    AscendC::GlobalTensor<T> k_;
    AscendC::GlobalTensor<T> v_;
    AscendC::GlobalTensor<int32_t> blockTable_;
    AscendC::GlobalTensor<T> castQ_;
    AscendC::GlobalTensor<float> scores_;
    AscendC::GlobalTensor<T> probs_;
    AscendC::GlobalTensor<float> output_;
    AscendC::LocalTensor<T> qL1_;
    AscendC::LocalTensor<T> kL1_[2];
    AscendC::LocalTensor<T> vL1_[2];
    AscendC::LocalTensor<T> pL1_[2];
    CubeUnit<T> unit_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_CUBE_H_
