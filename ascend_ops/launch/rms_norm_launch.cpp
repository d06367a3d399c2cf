// Runs the rms_norm kernel on the CPU twin: tiling and launch.
#include "ascend_ops/rms_norm.h"
#include "launch.h"
#include "rms_norm/op_host/rms_norm_tiling.h"
#include "thread_pool.h"
#include "twin_mode.h"
#include "workspace.h"

extern "C" void glm2_rms_norm(GM_ADDR x, GM_ADDR weight, GM_ADDR residual, GM_ADDR y, GM_ADDR total,
                              GM_ADDR workspace, GM_ADDR tiling);

namespace ascend_ops {

Status RmsNorm(const RmsNormArgs& args) {
    CoreLimits limits;
    limits.numCores = ascend_twin::NumThreads();
    RmsNormTilingData tiling;
    const Status tiled = ComputeRmsNormTiling(args, limits, &tiling);
    if (!tiled.ok()) return tiled;
    if (args.numRows == 0) return Status::Ok();

    NameGm([&]() -> GmTensors {
        const uint64_t row = uint64_t{args.hiddenSize} * SizeOf(args.type);
        const uint64_t bytes = args.numRows * row;
        return {{"x", args.x, bytes, GmUse::kIn},
                {"weight", args.weight, row, GmUse::kIn},
                {"residual", args.residual, bytes, GmUse::kIn},
                {"y", args.y, bytes, GmUse::kOut},
                {"total", args.total, bytes, GmUse::kOut}};
    });
    const ascend_twin::LaunchConfig config = {
        "rms_norm", ascend_twin::KernelType::kAivOnly, tiling.numCores,
        RmsNormTilingKey(args.type, args.residual != nullptr)};
    const std::string hang = ascend_twin::Launch(config, [&] {
        glm2_rms_norm(Gm(args.x), Gm(args.weight), Gm(args.residual), Gm(args.y), Gm(args.total),
                      nullptr, Gm(&tiling));
    });
    return hang.empty() ? Status::Ok() : Status::Error(StatusCode::kInternal, hang);
}

}  // namespace ascend_ops
