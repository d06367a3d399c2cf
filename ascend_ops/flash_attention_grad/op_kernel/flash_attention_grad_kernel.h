// The gradient of attention on one core: AIC and its two AIVs work off the same stream of tasks.
//
// AIC for task t: C1(t) = S, dP; then C2(t-2) = parts of dV, dK, dQ. AIV for task t: V1(t) = P, dS;
// then V2(t-2) = sums. AIC is two tasks ahead, so three workspace slots a core are enough (with
// one slot, where AIC and AIV take turns, read t-2 as t and t+3 as t+1):
// - S, dP(t+3) are written after AIC waited for P(t), which each AIV set after it had read its rows
//   of S, dP(t): the set is on MTE3, which waits for the vector calls that follow those loads;
// - P, dS(t+3) are written after AIV waited for S(t+3), set on FIX after the Fixpipes of C2(t),
//   whose products had read P, dS(t);
// - the parts (t+3) are written after AIC waited for P(t+3), which each AIV set after V2(t): the
//   set is on MTE3, and every pass of V2(t), one without stores too, made MTE3 wait for its loads.
// The sums of dQ, lse and D in the workspace belong to one AIV a place (PlaceOf), for all items.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_KERNEL_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_KERNEL_H_

#include "flash_attention_grad/op_kernel/flash_attention_grad_cube.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_gm.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tasks.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_vector.h"
#include "kernel_operator.h"

namespace ascend_ops {

// T: element type of every tensor but lse.
template <typename T>
class FlashAttentionGradKernel {
  public:
    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling,
                                const FlashAttentionGradGm& gm) {
        uint32_t core = static_cast<uint32_t>(AscendC::GetBlockIdx());
        if ASCEND_IS_AIV {
            core /= 2;
        }
        taskSlots_ = tiling->taskSlots;
        GM_ADDR workspace = gm.workspace + core * tiling->workspaceBytes;
        stream_.Init(tiling, (__gm__ int32_t*)gm.cuSeqlensQ, (__gm__ int32_t*)gm.cuSeqlensKv,
                     (__gm__ int32_t*)gm.prefixLen, core);
        if ASCEND_IS_AIC {
            cube_.Init(tiling, gm, workspace);
        }
        if ASCEND_IS_AIV {
            vector_.Init(tiling, gm, workspace);
        }
    }

    __aicore__ inline void Process() {
        if ASCEND_IS_AIC {
            cube_.Begin();
            Pipeline(cube_);
            cube_.End();
        }
        if ASCEND_IS_AIV {
            vector_.Begin();
            Pipeline(vector_);
            vector_.End();
        }
    }

  private:
    // Stage one of task t, then stage two of task t - 2; at the end stage two of the last two.
    template <typename Side>
    __aicore__ inline void Pipeline(Side& side) {
        GradTask ring[kMaxGradSlots];
        uint32_t opened = 0;
        uint32_t closed = 0;
        while (stream_.Next(&ring[opened % kMaxGradSlots])) {
            side.StageOne(ring[opened % kMaxGradSlots]);
            ++opened;
            if (opened - closed == taskSlots_) side.StageTwo(ring[closed++ % kMaxGradSlots]);
        }
        while (closed < opened) side.StageTwo(ring[closed++ % kMaxGradSlots]);
    }

    uint32_t taskSlots_ = kMaxGradSlots;
    GradTaskStream stream_;
    FlashAttentionGradCube<T> cube_;
    FlashAttentionGradVector<T> vector_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_KERNEL_H_
