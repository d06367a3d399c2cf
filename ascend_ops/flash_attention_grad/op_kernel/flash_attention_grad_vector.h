// The AIV side of the gradient: P and dS from lse, and the sums of dV, dK and dQ.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_VECTOR_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_VECTOR_H_

#include "common/op_kernel/ub_space.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_buffers.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_gm.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_probs.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_rows.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_sums.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tasks.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Each of the two AIVs of a core takes half of the rows of a Q tile and of a K/V tile.
template <typename T>
class FlashAttentionGradVector {
  public:
    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling,
                                const FlashAttentionGradGm& gm, GM_ADDR workspace) {
        UbSpace ub;
        sums_.Init(tiling, gm, workspace, &ub, &buffers_);
        buffers_.Init(tiling, &ub);
        rows_.Init(tiling, gm, workspace, &buffers_);
        probs_.Init(tiling, workspace, &buffers_);
    }

    __aicore__ inline void Begin() {
        buffers_.Begin();
        sums_.Begin();
    }

    __aicore__ inline void End() {
        buffers_.End();
        sums_.End();
    }

    // V1: P and dS of the task to their slots; before an item's first task, lse and D of its rows.
    __aicore__ inline void StageOne(const GradTask& task) {
        if (task.firstOfItem) rows_.Prepare(task.item);
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kGradFlagScores);
        probs_.Compute(task);
        AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kGradFlagProbs);
    }

    // V2: the task's parts join dV, dK and dQ; a finished sum is rounded and leaves.
    __aicore__ inline void StageTwo(const GradTask& task) {
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(kGradFlagParts);
        sums_.AddKeyParts(task);
        if (task.rows > 0) sums_.AddQueryParts(task);
    }

  private:
    GradBuffers<T> buffers_;
    GradRows<T> rows_;
    GradProbs<T> probs_;
    GradSums<T> sums_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_VECTOR_H_
