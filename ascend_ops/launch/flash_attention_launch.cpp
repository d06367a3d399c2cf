// Runs the FlashAttention kernel on the CPU twin: tiling, workspace, launch.
#include <memory>

#include "ascend_ops/flash_attention.h"
#include "ascend_ops/twin_limits.h"
#include "flash_attention/op_host/flash_attention_tiling.h"
#include "launch.h"
#include "twin_mode.h"
#include "workspace.h"

extern "C" void glm2_flash_attention(GM_ADDR q, GM_ADDR kCache, GM_ADDR vCache, GM_ADDR blockTable,
                                     GM_ADDR cuSeqlensQ, GM_ADDR seqLenKv, GM_ADDR prefixLen,
                                     GM_ADDR o, GM_ADDR lse, GM_ADDR workspace, GM_ADDR tiling);

namespace ascend_ops {
namespace {

// The workspace of every core, and the parts behind them.
void AddWorkspace(const FlashAttentionArgs& args, const FlashAttentionTilingData& t,
                  const uint8_t* workspace, GmTensors* tensors) {
    const uint64_t rows = t.blockM, cacheBytes = SizeOf(args.cacheType);
    const uint64_t square = t.taskSlots * rows * t.blockN;
    const auto add = [&](const char* name, uint64_t at, uint64_t bytes) {
        tensors->push_back({name, workspace + at, bytes, GmUse::kWorkspace});
    };
    for (uint32_t core = 0; core < t.numCores; ++core) {
        const uint64_t start = core * t.workspaceBytes;
        add("q_cast", start + t.workspaceQ, rows * t.headDim * cacheBytes);
        add("scores", start + t.workspaceS, square * sizeof(float));
        add("probs", start + t.workspaceP, square * cacheBytes);
        add("acc", start + t.workspaceO, t.taskSlots * rows * t.headDim * sizeof(float));
    }
    add("part_acc", t.workspacePartAcc, uint64_t{t.partRows} * t.headDim * sizeof(float));
    add("part_max", t.workspacePartMax, uint64_t{t.partRows} * sizeof(float));
    add("part_sum", t.workspacePartSum, uint64_t{t.partRows} * sizeof(float));
}

GmTensors TensorsOf(const FlashAttentionArgs& args, const FlashAttentionTilingData& t,
                    const uint8_t* workspace) {
    const uint64_t rows = uint64_t{args.numTokens} * args.numHeads;
    const uint64_t q = rows * args.headDim * SizeOf(args.qType);
    const uint64_t row = uint64_t{args.numKvHeads} * args.headDim * SizeOf(args.cacheType);
    uint64_t cache = 0;
    if (args.paged) {
        cache =
            row * args.pageSize *
            PagesInUse(args.blockTable, args.seqLenKv, args.numSeqs, args.maxPages, args.pageSize);
    }
    for (uint32_t seq = 0; !args.paged && seq < args.numSeqs; ++seq) {
        cache = std::max<uint64_t>(
            cache, row * static_cast<uint64_t>(args.blockTable[seq] + args.seqLenKv[seq]));
    }
    const uint64_t seqs = args.numSeqs * sizeof(int32_t);
    GmTensors tensors = {
        {"q", args.q, q, GmUse::kIn},
        {"k", args.kCache, cache, GmUse::kIn},
        {"v", args.vCache, cache, GmUse::kIn},
        {"block_table", args.blockTable, args.paged ? seqs * args.maxPages : seqs, GmUse::kIn},
        {"cu_seqlens_q", args.cuSeqlensQ, seqs + sizeof(int32_t), GmUse::kIn},
        {"seq_len_kv", args.seqLenKv, seqs, GmUse::kIn},
        {"prefix_len", args.prefixLen, seqs, GmUse::kIn},
        {"o", args.o, q, GmUse::kOut},
        {"lse", args.lse, rows * sizeof(float), GmUse::kOut}};
    AddWorkspace(args, t, workspace, &tensors);
    return tensors;
}

}  // namespace

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
    NameGm([&] { return TensorsOf(args, tiling, workspace.data()); });
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
