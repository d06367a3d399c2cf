// The AIC side of the gradient: five products a task, tile by tile, through the GM workspace.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_CUBE_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_CUBE_H_

#include "common/op_kernel/tile_math.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_gm.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_product.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tasks.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiles.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

template <typename T>
class FlashAttentionGradCube {
  public:
    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling,
                                const FlashAttentionGradGm& gm, GM_ADDR workspace) {
        tiling_ = tiling;
        dO_.SetGlobalBuffer((__gm__ T*)gm.dO);
        q_.SetGlobalBuffer((__gm__ T*)gm.q);
        k_.SetGlobalBuffer((__gm__ T*)gm.k);
        v_.SetGlobalBuffer((__gm__ T*)gm.v);
        scores_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceS));
        dProbs_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDp));
        probs_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceP));
        dScores_.SetGlobalBuffer((__gm__ T*)(workspace + tiling->workspaceDs));
        dVPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDvPart));
        dKPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDkPart));
        dQPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDqPart));

        const uint32_t qElems = tiling->blockM * tiling->headDim;
        const uint32_t kvElems = tiling->blockN * tiling->headDim;
        const uint32_t squareElems = tiling->blockM * tiling->blockN;
        kOneL1_ = TakeL1(kvElems);
        vOneL1_ = TakeL1(kvElems);
        qOneL1_ = TakeL1(qElems);
        dOOneL1_ = TakeL1(qElems);
        // With one task in flight stage two finds the tiles of stage one in place.
        shared_ = tiling->taskSlots == 1;
        kTwoL1_ = shared_ ? kOneL1_ : TakeL1(kvElems);
        qTwoL1_ = shared_ ? qOneL1_ : TakeL1(qElems);
        dOTwoL1_ = shared_ ? dOOneL1_ : TakeL1(qElems);
        probsL1_ = TakeL1(squareElems);
        dScoresL1_ = TakeL1(squareElems);

        loader_.Init(tiling);
        product_.Init(MaxOf(tiling->blockM, tiling->blockN), tiling->l0BlockN, tiling->l0BlockK);
    }

    // Hands every buffer to the pipe that fills it.
    __aicore__ inline void Begin() {
        for (int32_t event = 0; event < kL1Events; ++event) {
            AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(event);
        }
        product_.Begin();
    }

    // Takes back what Begin and the last tasks handed out, so that no flag outlives the kernel.
    __aicore__ inline void End() {
        for (int32_t event = 0; event < kL1Events; ++event) {
            AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(event);
        }
        product_.End();
    }

    // C1: S = Q K^T and dP = dO V^T, (rows, kvRows), to the task's slots, row pitch = kvRows
    // rounded up to 64.
    __aicore__ inline void StageOne(const GradTask& task) {
        if (task.rows > 0) {
            if (task.firstOfKv) {
                AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventKvOne);
                loader_.CopyInKv(kOneL1_, k_, task);
                loader_.CopyInKv(vOneL1_, v_, task);
                AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventKvOne);
                AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventKvOne);
            }
            AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQOne);
            loader_.CopyInQ(qOneL1_, q_, task);
            loader_.CopyInQ(dOOneL1_, dO_, task);
            AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQOne);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQOne);
            const uint32_t d = tiling_->headDim;
            const uint32_t pitch = AlignUp(task.kvRows, kFloatsPerRepeat);
            const uint64_t slot =
                task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->blockN);
            product_.template Multiply<false, false>(scores_[slot], pitch, {qOneL1_, d, task.rows},
                                                     {kOneL1_, d, task.kvRows}, d);
            product_.template Multiply<false, false>(dProbs_[slot], pitch, {dOOneL1_, d, task.rows},
                                                     {vOneL1_, d, task.kvRows}, d);
            if (!shared_) ReleaseStageOne(task);
        }
        AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kGradFlagScores);
    }

    // C2: P^T dO and dS^T Q, (kvRows, headDim), and dS K, (rows, headDim), to the task's slots.
    __aicore__ inline void StageTwo(const GradTask& task) {
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kGradFlagProbs);
        if (task.rows > 0) {
            if (task.firstOfKv && !shared_) {
                AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventKTwo);
                loader_.CopyInKv(kTwoL1_, k_, task);
                AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventKTwo);
                AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventKTwo);
            }
            AscendC::WaitFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQTwo);
            if (!shared_) {
                loader_.CopyInQ(qTwoL1_, q_, task);
                loader_.CopyInQ(dOTwoL1_, dO_, task);
            }
            loader_.CopyInSquare(probsL1_, probs_, task);
            loader_.CopyInSquare(dScoresL1_, dScores_, task);
            AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQTwo);
            AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(kEventQTwo);
            const uint32_t d = tiling_->headDim;
            const uint32_t width = AlignUp(task.kvRows, kFractalRows);
            const uint64_t kvSlot = task.index % tiling_->taskSlots * (tiling_->blockN * d);
            const uint64_t qSlot = task.index % tiling_->taskSlots * (tiling_->blockM * d);
            product_.template Multiply<true, true>(
                dVPart_[kvSlot], d, {probsL1_, width, task.kvRows}, {dOTwoL1_, d, d}, task.rows);
            product_.template Multiply<true, true>(
                dKPart_[kvSlot], d, {dScoresL1_, width, task.kvRows}, {qTwoL1_, d, d}, task.rows);
            product_.template Multiply<false, true>(
                dQPart_[qSlot], d, {dScoresL1_, width, task.rows}, {kTwoL1_, d, d}, task.kvRows);
            AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQTwo);
            if (shared_) {
                ReleaseStageOne(task);
            } else if (task.lastOfKv) {
                AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventKTwo);
            }
        }
        AscendC::CrossCoreSetFlag<2, PIPE_FIX>(kGradFlagParts);
    }

  private:
    // MTE2 <-> MTE1 event ids, of the tiles of each stage.
    static constexpr int32_t kEventKvOne = 0;
    static constexpr int32_t kEventQOne = 1;
    static constexpr int32_t kEventKTwo = 2;
    static constexpr int32_t kEventQTwo = 3;
    static constexpr int32_t kL1Events = 4;

    __aicore__ inline AscendC::LocalTensor<T> TakeL1(uint32_t elems) {
        const uint32_t address = l1Bytes_;
        l1Bytes_ += elems * static_cast<uint32_t>(sizeof(T));
        return AscendC::LocalTensor<T>(AscendC::TPosition::A1, address, elems);
    }

    // Hands the tiles of stage one back to MTE2.
    __aicore__ inline void ReleaseStageOne(const GradTask& task) {
        AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventQOne);
        if (task.lastOfKv) AscendC::SetFlag<AscendC::HardEvent::MTE1_MTE2>(kEventKvOne);
    }

    const FlashAttentionGradTilingData* tiling_ = nullptr;
    GradTileLoader<T> loader_;
    GradProduct<T> product_;
    AscendC::GlobalTensor<T> dO_;
    AscendC::GlobalTensor<T> q_;
    AscendC::GlobalTensor<T> k_;
    AscendC::GlobalTensor<T> v_;
    AscendC::GlobalTensor<float> scores_;
    AscendC::GlobalTensor<float> dProbs_;
    AscendC::GlobalTensor<T> probs_;
    AscendC::GlobalTensor<T> dScores_;
    AscendC::GlobalTensor<float> dVPart_;
    AscendC::GlobalTensor<float> dKPart_;
    AscendC::GlobalTensor<float> dQPart_;
    // Tiles of stage one, and of stage two, which works two tasks behind.
    AscendC::LocalTensor<T> kOneL1_;     // (blockN, headDim)
    AscendC::LocalTensor<T> vOneL1_;     // the same
    AscendC::LocalTensor<T> qOneL1_;     // (blockM, headDim)
    AscendC::LocalTensor<T> dOOneL1_;    // the same
    AscendC::LocalTensor<T> kTwoL1_;     // (blockN, headDim)
    AscendC::LocalTensor<T> qTwoL1_;     // (blockM, headDim)
    AscendC::LocalTensor<T> dOTwoL1_;    // the same
    AscendC::LocalTensor<T> probsL1_;    // (blockM, blockN)
    AscendC::LocalTensor<T> dScoresL1_;  // the same
    uint32_t l1Bytes_ = 0;
    bool shared_ = false;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_CUBE_H_
