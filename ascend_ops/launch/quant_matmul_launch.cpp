// Runs the quant_matmul kernel on the CPU twin: tiling, workspace, launch. Check mode does not know
// integers yet.
#include "ascend_ops/quant_matmul.h"
#include "quant_matmul/op_host/quant_matmul_tiling.h"

#if defined(ASCEND_TWIN_CHECK)

namespace ascend_ops {

Status QuantMatmul(const QuantMatmulArgs& /*args*/) {
    return Status::Error(StatusCode::kInternal,
                         "check mode does not serve quant_linear yet; unset GLM2_TWIN");
}

}  // namespace ascend_ops

#else

#include "launch.h"
#include "thread_pool.h"
#include "workspace.h"

extern "C" void glm2_quant_matmul(GM_ADDR x, GM_ADDR weight, GM_ADDR scale, GM_ADDR bias,
                                  GM_ADDR residual, GM_ADDR out, GM_ADDR workspace, GM_ADDR tiling);

namespace ascend_ops {

Status QuantMatmul(const QuantMatmulArgs& args) {
    CoreLimits limits;
    limits.numCores = ascend_twin::NumThreads();
    limits.overlap = false;
    QuantMatmulTilingData tiling;
    const Status tiled = ComputeQuantMatmulTiling(args, limits, &tiling);
    if (!tiled.ok()) return tiled;
    if (args.numTokens == 0) return Status::Ok();

    const Workspace workspace(tiling.workspaceTotal);
    const ascend_twin::LaunchConfig config = {"quant_matmul",
                                              ascend_twin::KernelType::kMixAic1Aiv2,
                                              tiling.numCores,
                                              QuantMatmulTilingKey(args),
                                              {args.x, args.weight}};
    const std::string hang = ascend_twin::Launch(config, [&] {
        glm2_quant_matmul(Gm(args.x), Gm(args.weight), Gm(args.scale), Gm(args.bias),
                          Gm(args.residual), Gm(args.out), workspace.data(), Gm(&tiling));
    });
    return hang.empty() ? Status::Ok() : Status::Error(StatusCode::kInternal, hang);
}

}  // namespace ascend_ops

#endif
