// Entry of the rope_append kernel: rotary embedding and K/V cache append in one pass over qkv.
#include "rope_append/op_kernel/rope_append_kernel.h"

template <typename Q, typename T>
__aicore__ inline void RunRopeAppend(const ascend_ops::RopeAppendTilingData* tiling,
                                     const ascend_ops::RopeAppendGm& gm) {
    ascend_ops::RopeAppendKernel<Q, T> kernel;
    kernel.Init(tiling, gm);
    kernel.Process();
}

// kCacheRef and vCacheRef are kCache and vCache once more, as outputs: CANN passes what is written
// in place twice.
extern "C" __global__ __aicore__ void glm2_rope_append(GM_ADDR qkv, GM_ADDR cos, GM_ADDR sin,
                                                       GM_ADDR kCache, GM_ADDR vCache,
                                                       GM_ADDR blockTable, GM_ADDR cuSeqlensQ,
                                                       GM_ADDR seqLenKv, GM_ADDR q,
                                                       GM_ADDR /*kCacheRef*/, GM_ADDR /*vCacheRef*/,
                                                       GM_ADDR /*workspace*/, GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    REGISTER_TILING_DEFAULT(ascend_ops::RopeAppendTilingData);
    GET_TILING_DATA_WITH_STRUCT(ascend_ops::RopeAppendTilingData, tilingData, tiling);
    AscendC::InitSocState();
    const ascend_ops::RopeAppendGm gm = {qkv,        cos,        sin,      kCache, vCache,
                                         blockTable, cuSeqlensQ, seqLenKv, q};
    if (TILING_KEY_IS(0)) {
        RunRopeAppend<half, half>(&tilingData, gm);
    } else if (TILING_KEY_IS(1)) {
        RunRopeAppend<float, half>(&tilingData, gm);
    } else if (TILING_KEY_IS(2)) {
        RunRopeAppend<float, float>(&tilingData, gm);
    } else if (TILING_KEY_IS(3)) {
        RunRopeAppend<bfloat16_t, bfloat16_t>(&tilingData, gm);
    } else if (TILING_KEY_IS(4)) {
        RunRopeAppend<float, bfloat16_t>(&tilingData, gm);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
}
