// Runs the swiglu kernel on the CPU twin: tiling and launch.
#include "ascend_ops/swiglu.h"
#include "launch.h"
#include "swiglu/op_host/swiglu_tiling.h"
#include "thread_pool.h"
#include "twin_mode.h"
#include "workspace.h"

extern "C" void glm2_swiglu(GM_ADDR x, GM_ADDR out, GM_ADDR workspace, GM_ADDR tiling);

namespace ascend_ops {

Status Swiglu(const SwigluArgs& args) {
    CoreLimits limits;
    limits.numCores = ascend_twin::NumThreads();
    SwigluTilingData tiling;
    const Status tiled = ComputeSwigluTiling(args, limits, &tiling);
    if (!tiled.ok()) return tiled;
    if (args.numRows == 0) return Status::Ok();

    NameGm([&]() -> GmTensors {
        const uint64_t bytes = uint64_t{args.numRows} * args.width * SizeOf(args.type);
        return {{"x", args.x, 2 * bytes, GmUse::kIn}, {"out", args.out, bytes, GmUse::kOut}};
    });
    const ascend_twin::LaunchConfig config = {"swiglu", ascend_twin::KernelType::kAivOnly,
                                              tiling.numCores, SwigluTilingKey(args.type)};
    const std::string hang = ascend_twin::Launch(
        config, [&] { glm2_swiglu(Gm(args.x), Gm(args.out), nullptr, Gm(&tiling)); });
    return hang.empty() ? Status::Ok() : Status::Error(StatusCode::kInternal, hang);
}

}  // namespace ascend_ops
