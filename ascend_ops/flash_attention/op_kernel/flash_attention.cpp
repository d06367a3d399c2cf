// Entry of the FlashAttention kernel: attention over a paged K/V cache, prefill and decode alike.
#include "flash_attention/op_kernel/flash_attention_kernel.h"

template <typename Q, typename T>
__aicore__ inline void RunFlashAttention(const ascend_ops::FlashAttentionTilingData* tiling,
                                         const ascend_ops::FlashAttentionGm& gm) {
    ascend_ops::FlashAttentionKernel<Q, T> kernel;
    kernel.Init(tiling, gm);
    kernel.Process();
}

extern "C" __global__ __aicore__ void glm2_flash_attention(GM_ADDR q, GM_ADDR kCache,
                                                           GM_ADDR vCache, GM_ADDR blockTable,
                                                           GM_ADDR cuSeqlensQ, GM_ADDR seqLenKv,
                                                           GM_ADDR prefixLen, GM_ADDR o,
                                                           GM_ADDR lse, GM_ADDR workspace,
                                                           GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    REGISTER_TILING_DEFAULT(ascend_ops::FlashAttentionTilingData);
    GET_TILING_DATA_WITH_STRUCT(ascend_ops::FlashAttentionTilingData, tilingData, tiling);
    AscendC::InitSocState();
    const ascend_ops::FlashAttentionGm gm = {q,        kCache,    vCache, blockTable, cuSeqlensQ,
                                             seqLenKv, prefixLen, o,      lse,        workspace};
    if (TILING_KEY_IS(0)) {
        RunFlashAttention<half, half>(&tilingData, gm);
    } else if (TILING_KEY_IS(1)) {
        RunFlashAttention<float, half>(&tilingData, gm);
    } else if (TILING_KEY_IS(2)) {
        RunFlashAttention<float, float>(&tilingData, gm);
    } else if (TILING_KEY_IS(3)) {
        RunFlashAttention<bfloat16_t, bfloat16_t>(&tilingData, gm);
    } else if (TILING_KEY_IS(4)) {
        RunFlashAttention<float, bfloat16_t>(&tilingData, gm);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
}
