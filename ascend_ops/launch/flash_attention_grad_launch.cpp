// Runs the gradient kernel on the CPU twin: tiling, workspace, launch.
#include "ascend_ops/flash_attention_grad.h"
#include "ascend_ops/twin_limits.h"
#include "flash_attention_grad/op_host/flash_attention_grad_tiling.h"
#include "launch.h"
#include "workspace.h"

extern "C" void glm2_flash_attention_grad(GM_ADDR dO, GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR o,
                                          GM_ADDR lse, GM_ADDR cuSeqlensQ, GM_ADDR cuSeqlensKv,
                                          GM_ADDR prefixLen, GM_ADDR dQ, GM_ADDR dK, GM_ADDR dV,
                                          GM_ADDR workspace, GM_ADDR tiling);

namespace ascend_ops {

Status FlashAttentionGrad(const FlashAttentionGradArgs& args) {
    const CoreLimits limits = TwinLimits();
    FlashAttentionGradTilingData tiling;
    const Status tiled = ComputeFlashAttentionGradTiling(args, limits, &tiling);
    if (!tiled.ok()) return tiled;
    const uint64_t key = FlashAttentionGradTilingKey(args.type);

    const Workspace workspace(tiling.workspaceBytes * tiling.numCores);
    const ascend_twin::LaunchConfig config = {"flash_attention_grad",
                                              ascend_twin::KernelType::kMixAic1Aiv2,
                                              tiling.numCores,
                                              key,
                                              {args.dO, args.q, args.k, args.v}};
    const std::string hang = ascend_twin::Launch(config, [&] {
        glm2_flash_attention_grad(Gm(args.dO), Gm(args.q), Gm(args.k), Gm(args.v), Gm(args.o),
                                  Gm(args.lse), Gm(args.cuSeqlensQ), Gm(args.cuSeqlensKv),
                                  Gm(args.prefixLen), Gm(args.dQ), Gm(args.dK), Gm(args.dV),
                                  workspace.data(), Gm(&tiling));
    });
    return hang.empty() ? Status::Ok() : Status::Error(StatusCode::kInternal, hang);
}

}  // namespace ascend_ops
