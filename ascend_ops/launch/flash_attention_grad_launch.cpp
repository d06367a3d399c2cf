// Runs the gradient kernel on the CPU twin: tiling, workspace, launch.
#include "ascend_ops/flash_attention_grad.h"
#include "ascend_ops/twin_limits.h"
#include "flash_attention_grad/op_host/flash_attention_grad_tiling.h"
#include "launch.h"
#include "twin_mode.h"
#include "workspace.h"

extern "C" void glm2_flash_attention_grad(GM_ADDR dO, GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR o,
                                          GM_ADDR lse, GM_ADDR cuSeqlensQ, GM_ADDR cuSeqlensKv,
                                          GM_ADDR prefixLen, GM_ADDR dQ, GM_ADDR dK, GM_ADDR dV,
                                          GM_ADDR workspace, GM_ADDR tiling);

namespace ascend_ops {
namespace {

// The workspace of every core.
void AddWorkspace(const FlashAttentionGradTilingData& t, const uint8_t* workspace,
                  GmTensors* tensors) {
    struct Part {
        const char* name;
        uint64_t begin;
    };
    const Part parts[] = {{"scores", t.workspaceS},       {"dprobs", t.workspaceDp},
                          {"probs", t.workspaceP},        {"dscores", t.workspaceDs},
                          {"dv_part", t.workspaceDvPart}, {"dk_part", t.workspaceDkPart},
                          {"dq_part", t.workspaceDqPart}, {"dq_sum", t.workspaceDq},
                          {"row_lse", t.workspaceLse},    {"row_delta", t.workspaceDelta},
                          {"", t.workspaceBytes}};
    for (uint32_t core = 0; core < t.numCores; ++core) {
        const uint8_t* start = workspace + core * t.workspaceBytes;
        for (const Part* part = parts; part->name[0] != '\0'; ++part) {
            tensors->push_back(
                {part->name, start + part->begin, part[1].begin - part->begin, GmUse::kWorkspace});
        }
    }
}

GmTensors TensorsOf(const FlashAttentionGradArgs& args, const FlashAttentionGradTilingData& t,
                    const uint8_t* workspace) {
    const uint64_t width = args.headDim * SizeOf(args.type);
    const uint64_t rows = static_cast<uint64_t>(args.cuSeqlensQ[args.numSeqs]) * args.numHeads;
    const uint64_t keys = static_cast<uint64_t>(args.cuSeqlensKv[args.numSeqs]) * args.numKvHeads;
    const uint64_t seqs = args.numSeqs * sizeof(int32_t);
    GmTensors tensors = {{"do", args.dO, rows * width, GmUse::kIn},
                         {"q", args.q, rows * width, GmUse::kIn},
                         {"k", args.k, keys * width, GmUse::kIn},
                         {"v", args.v, keys * width, GmUse::kIn},
                         {"o", args.o, rows * width, GmUse::kIn},
                         {"lse", args.lse, rows * sizeof(float), GmUse::kIn},
                         {"cu_seqlens_q", args.cuSeqlensQ, seqs + sizeof(int32_t), GmUse::kIn},
                         {"cu_seqlens_kv", args.cuSeqlensKv, seqs + sizeof(int32_t), GmUse::kIn},
                         {"prefix_len", args.prefixLen, seqs, GmUse::kIn},
                         {"dq", args.dQ, rows * width, GmUse::kOut},
                         {"dk", args.dK, keys * width, GmUse::kOut},
                         {"dv", args.dV, keys * width, GmUse::kOut}};
    AddWorkspace(t, workspace, &tensors);
    return tensors;
}

}  // namespace

Status FlashAttentionGrad(const FlashAttentionGradArgs& args) {
    const CoreLimits limits = TwinLimits();
    FlashAttentionGradTilingData tiling;
    const Status tiled = ComputeFlashAttentionGradTiling(args, limits, &tiling);
    if (!tiled.ok()) return tiled;
    const uint64_t key = FlashAttentionGradTilingKey(args.type);

    const Workspace workspace(tiling.workspaceBytes * tiling.numCores);
    NameGm([&] { return TensorsOf(args, tiling, workspace.data()); });
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
