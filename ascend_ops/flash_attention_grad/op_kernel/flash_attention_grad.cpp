// Entry of the gradient kernel: dq, dk and dv of attention over contiguous ragged k and v.
#include "flash_attention_grad/op_kernel/flash_attention_grad_kernel.h"

template <typename T>
__aicore__ inline void RunFlashAttentionGrad(const ascend_ops::FlashAttentionGradTilingData* tiling,
                                             const ascend_ops::FlashAttentionGradGm& gm) {
    ascend_ops::FlashAttentionGradKernel<T> kernel;
    kernel.Init(tiling, gm);
    kernel.Process();
}

extern "C" __global__ __aicore__ void glm2_flash_attention_grad(
    GM_ADDR dO, GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR o, GM_ADDR lse, GM_ADDR cuSeqlensQ,
    GM_ADDR cuSeqlensKv, GM_ADDR prefixLen, GM_ADDR dQ, GM_ADDR dK, GM_ADDR dV, GM_ADDR workspace,
    GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    REGISTER_TILING_DEFAULT(ascend_ops::FlashAttentionGradTilingData);
    GET_TILING_DATA_WITH_STRUCT(ascend_ops::FlashAttentionGradTilingData, tilingData, tiling);
    AscendC::InitSocState();
    const ascend_ops::FlashAttentionGradGm gm = {
        dO, q, k, v, o, lse, cuSeqlensQ, cuSeqlensKv, prefixLen, dQ, dK, dV, workspace};
    if (TILING_KEY_IS(0)) {
        RunFlashAttentionGrad<half>(&tilingData, gm);
    } else if (TILING_KEY_IS(1)) {
        RunFlashAttentionGrad<float>(&tilingData, gm);
    } else if (TILING_KEY_IS(2)) {
        RunFlashAttentionGrad<bfloat16_t>(&tilingData, gm);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
}
