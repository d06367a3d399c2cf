// Entry of the rms_norm kernel: RMSNorm of rows, with or without a residual added first.
#include "rms_norm/op_kernel/rms_norm_kernel.h"

template <typename T, bool kResidual>
__aicore__ inline void RunRmsNorm(const ascend_ops::RmsNormTilingData* tiling,
                                  const ascend_ops::RmsNormGm& gm) {
    ascend_ops::RmsNormKernel<T, kResidual> kernel;
    kernel.Init(tiling, gm);
    kernel.Process();
}

extern "C" __global__ __aicore__ void glm2_rms_norm(GM_ADDR x, GM_ADDR weight, GM_ADDR residual,
                                                    GM_ADDR y, GM_ADDR total, GM_ADDR /*workspace*/,
                                                    GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    REGISTER_TILING_DEFAULT(ascend_ops::RmsNormTilingData);
    GET_TILING_DATA_WITH_STRUCT(ascend_ops::RmsNormTilingData, tilingData, tiling);
    AscendC::InitSocState();
    const ascend_ops::RmsNormGm gm = {x, weight, residual, y, total};
    if (TILING_KEY_IS(0)) {
        RunRmsNorm<half, false>(&tilingData, gm);
    } else if (TILING_KEY_IS(1)) {
        RunRmsNorm<float, false>(&tilingData, gm);
    } else if (TILING_KEY_IS(2)) {
        RunRmsNorm<half, true>(&tilingData, gm);
    } else if (TILING_KEY_IS(3)) {
        RunRmsNorm<float, true>(&tilingData, gm);
    } else if (TILING_KEY_IS(4)) {
        RunRmsNorm<bfloat16_t, false>(&tilingData, gm);
    } else if (TILING_KEY_IS(5)) {
        RunRmsNorm<bfloat16_t, true>(&tilingData, gm);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
}
