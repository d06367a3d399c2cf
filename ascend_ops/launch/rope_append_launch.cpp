// Runs the rope_append kernel on the CPU twin: tiling and launch.
#include "ascend_ops/rope_append.h"
#include "launch.h"
#include "rope_append/op_host/rope_append_tiling.h"
#include "thread_pool.h"
#include "twin_mode.h"
#include "workspace.h"

extern "C" void glm2_rope_append(GM_ADDR qkv, GM_ADDR cos, GM_ADDR sin, GM_ADDR kCache,
                                 GM_ADDR vCache, GM_ADDR blockTable, GM_ADDR cuSeqlensQ,
                                 GM_ADDR seqLenKv, GM_ADDR q, GM_ADDR kCacheRef, GM_ADDR vCacheRef,
                                 GM_ADDR workspace, GM_ADDR tiling);

namespace ascend_ops {
namespace {

GmTensors TensorsOf(const RopeAppendArgs& args) {
    const uint64_t width = SizeOf(args.qkvType);
    const uint64_t heads = uint64_t{args.numTokens} * args.headDim * width;
    const uint64_t pages =
        PagesInUse(args.blockTable, args.seqLenKv, args.numSeqs, args.maxPages, args.pageSize);
    const uint64_t cache =
        pages * args.numKvHeads * args.pageSize * args.headDim * SizeOf(args.cacheType);
    const uint64_t angles =
        Largest(args.seqLenKv, args.numSeqs) * (args.rotaryDim / 2) * sizeof(float);
    const uint64_t table = uint64_t{args.numSeqs} * args.maxPages * sizeof(int32_t);
    return {{"qkv", args.qkv, heads * (args.numHeads + 2 * args.numKvHeads), GmUse::kIn},
            {"cos", args.cos, angles, GmUse::kIn},
            {"sin", args.sin, angles, GmUse::kIn},
            {"k_cache", args.kCache, cache, GmUse::kInOut},
            {"v_cache", args.vCache, cache, GmUse::kInOut},
            {"block_table", args.blockTable, table, GmUse::kIn},
            {"cu_seqlens_q", args.cuSeqlensQ, (args.numSeqs + 1) * sizeof(int32_t), GmUse::kIn},
            {"seq_len_kv", args.seqLenKv, args.numSeqs * sizeof(int32_t), GmUse::kIn},
            {"q", args.q, heads * args.numHeads, GmUse::kOut}};
}

}  // namespace

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

    NameGm([&] { return TensorsOf(args); });
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
