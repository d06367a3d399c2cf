// Entry of the swiglu kernel: silu of the first half of each row times the second half.
#include "swiglu/op_kernel/swiglu_kernel.h"

template <typename T>
__aicore__ inline void RunSwiglu(const ascend_ops::SwigluTilingData* tiling, GM_ADDR x,
                                 GM_ADDR out) {
    ascend_ops::SwigluKernel<T> kernel;
    kernel.Init(tiling, x, out);
    kernel.Process();
}

extern "C" __global__ __aicore__ void glm2_swiglu(GM_ADDR x, GM_ADDR out, GM_ADDR /*workspace*/,
                                                  GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    REGISTER_TILING_DEFAULT(ascend_ops::SwigluTilingData);
    GET_TILING_DATA_WITH_STRUCT(ascend_ops::SwigluTilingData, tilingData, tiling);
    AscendC::InitSocState();
    if (TILING_KEY_IS(0)) {
        RunSwiglu<half>(&tilingData, x, out);
    } else if (TILING_KEY_IS(1)) {
        RunSwiglu<float>(&tilingData, x, out);
    } else if (TILING_KEY_IS(2)) {
        RunSwiglu<bfloat16_t>(&tilingData, x, out);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
}
