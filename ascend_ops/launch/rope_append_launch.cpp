// Runs the rope_append kernel on the CPU twin: tiling and launch.
#include "ascend_ops/rope_append.h"
#include "launch.h"
#include "rope_append/op_host/rope_append_tiling.h"
#include "thread_pool.h"
#include "workspace.h"

extern "C" void glm2_rope_append(GM_ADDR qkv, GM_ADDR cos, GM_ADDR sin, GM_ADDR kCache,
                                 GM_ADDR vCache, GM_ADDR blockTable, GM_ADDR cuSeqlensQ,
                                 GM_ADDR seqLenKv, GM_ADDR q, GM_ADDR kCacheRef, GM_ADDR vCacheRef,
                                 GM_ADDR workspace, GM_ADDR tiling);

namespace ascend_ops {

Status RopeAppend(const RopeAppendArgs& args) {
    CoreLimits limits;
    limits.numCores = ascend_twin::NumThreads();
    RopeAppendTilingData tiling;
    const Status tiled = ComputeRopeAppendTiling(args, limits, &tiling);
    if (!tiled.ok()) return tiled;
    uint64_t key = 0;
    const Status keyed = RopeAppendTilingKey(args.qkvType, args.cacheType, &key);
    if (!keyed.ok()) return keyed;
    if (args.numTokens == 0) return Status::Ok();

    const ascend_twin::LaunchConfig config = {"rope_append", ascend_twin::KernelType::kAivOnly,
                                              tiling.numCores, key};
    const std::string hang = ascend_twin::Launch(config, [&] {
        glm2_rope_append(Gm(args.qkv), Gm(args.cos), Gm(args.sin), Gm(args.kCache), Gm(args.vCache),
                         Gm(args.blockTable), Gm(args.cuSeqlensQ), Gm(args.seqLenKv), Gm(args.q),
                         Gm(args.kCache), Gm(args.vCache), nullptr, Gm(&tiling));
    });
    return hang.empty() ? Status::Ok() : Status::Error(StatusCode::kInternal, hang);
}

}  // namespace ascend_ops
