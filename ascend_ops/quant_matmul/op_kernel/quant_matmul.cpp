// Entry of the quant_matmul kernel: a linear layer on a packed weight, every route and type of x.
#include "quant_matmul/op_kernel/quant_matmul_kernel.h"

template <uint64_t kRoute, typename X, typename T, typename Sum, typename Operand>
__aicore__ inline void RunQuantMatmul(const ascend_ops::QuantMatmulTilingData* tiling,
                                      const ascend_ops::QuantMatmulGm& gm) {
    ascend_ops::QuantMatmulKernel<kRoute, X, T, Sum, Operand> kernel;
    kernel.Init(tiling, gm);
    kernel.Process();
}

// The route for each type of x.
template <uint64_t kRoute, typename T, typename Sum, typename Operand>
__aicore__ inline void RunQuantRoute(const ascend_ops::QuantMatmulTilingData* tiling,
                                     const ascend_ops::QuantMatmulGm& gm) {
    if (TILING_KEY_IS(3 * kRoute)) {
        RunQuantMatmul<kRoute, half, T, Sum, Operand>(tiling, gm);
    } else if (TILING_KEY_IS(3 * kRoute + 1)) {
        RunQuantMatmul<kRoute, bfloat16_t, T, Sum, Operand>(tiling, gm);
    } else if (TILING_KEY_IS(3 * kRoute + 2)) {
        RunQuantMatmul<kRoute, float, T, Sum, Operand>(tiling, gm);
    }
}

extern "C" __global__ __aicore__ void glm2_quant_matmul(GM_ADDR x, GM_ADDR weight, GM_ADDR scale,
                                                        GM_ADDR bias, GM_ADDR residual, GM_ADDR out,
                                                        GM_ADDR workspace, GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    REGISTER_TILING_DEFAULT(ascend_ops::QuantMatmulTilingData);
    GET_TILING_DATA_WITH_STRUCT(ascend_ops::QuantMatmulTilingData, tilingData, tiling);
    AscendC::InitSocState();
    const ascend_ops::QuantMatmulGm gm = {x, weight, scale, bias, residual, out, workspace};
    RunQuantRoute<ascend_ops::kQuantRouteHalf, half, float, half>(&tilingData, gm);
    RunQuantRoute<ascend_ops::kQuantRouteBytes, int8_t, int32_t, int8_t>(&tilingData, gm);
    RunQuantRoute<ascend_ops::kQuantRouteDigits, int8_t, int32_t, AscendC::int4b_t>(&tilingData,
                                                                                    gm);
    RunQuantRoute<ascend_ops::kQuantRouteNibblesToBytes, int8_t, int32_t, int8_t>(&tilingData, gm);
    RunQuantRoute<ascend_ops::kQuantRouteBytesToHalf, half, float, half>(&tilingData, gm);
    RunQuantRoute<ascend_ops::kQuantRouteNibblesToHalf, half, float, half>(&tilingData, gm);
    RunQuantRoute<ascend_ops::kQuantRouteGroupsToHalf, half, float, half>(&tilingData, gm);
    AscendC::PipeBarrier<PIPE_ALL>();
}
