// Runs the FlashAttention kernel on the CPU twin: tiling, workspace, launch.
#include <memory>

#include "ascend_ops/flash_attention.h"
#include "ascend_ops/twin_limits.h"
#include "flash_attention/op_host/flash_attention_tiling.h"
#include "launch.h"
#include "workspace.h"

extern "C" void glm2_flash_attention(GM_ADDR q, GM_ADDR kCache, GM_ADDR vCache, GM_ADDR blockTable,
                                     GM_ADDR cuSeqlensQ, GM_ADDR seqLenKv, GM_ADDR prefixLen,
                                     GM_ADDR o, GM_ADDR lse, GM_ADDR workspace, GM_ADDR tiling);

namespace ascend_ops {

Status FlashAttention(const FlashAttentionArgs& args) {
    const CoreLimits limits = TwinLimits();
    FlashAttentionTilingData tiling;
    const Status tiled = ComputeFlashAttentionTiling(args, limits, &tiling);
    if (!tiled.ok()) return tiled;
    uint64_t key = 0;
    const Status keyed = FlashAttentionTilingKey(args.qType, args.cacheType, &key);
    if (!keyed.ok()) return keyed;
    if (args.numTokens == 0) return Status::Ok();

    const Workspace workspace(tiling.workspaceTotal);
    const ascend_twin::LaunchConfig config = {"flash_attention",
                                              ascend_twin::KernelType::kMixAic1Aiv2,
                                              tiling.numCores,
                                              key,
                                              {args.q, args.kCache, args.vCache}};
    const std::string hang = ascend_twin::Launch(config, [&] {
        glm2_flash_attention(Gm(args.q), Gm(args.kCache), Gm(args.vCache), Gm(args.blockTable),
                             Gm(args.cuSeqlensQ), Gm(args.seqLenKv), Gm(args.prefixLen), Gm(args.o),
                             Gm(args.lse), workspace.data(), Gm(&tiling));
    });
    return hang.empty() ? Status::Ok() : Status::Error(StatusCode::kInternal, hang);
}

}  // namespace ascend_ops
