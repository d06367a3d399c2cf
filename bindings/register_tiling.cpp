// Binds the plans of the host tilings: what a call would be cut into, on this CPU's twin or an NPU.
#include <algorithm>
#include <string>
#include <vector>

#include "ascend_ops/build_info.h"
#include "ascend_ops/tiling_plan.h"
#include "ascend_ops/twin_limits.h"
#include "common.h"

namespace py = pybind11;

namespace glm2 {
namespace {

using ascend_ops::CoreLimits;
using ascend_ops::DataType;
using ascend_ops::TilingPlan;

constexpr const char* kMemories[] = {"ub", "ub_combine", "l1", "l0a", "l0b", "l0c"};

enum class Cores { kMix, kVector };

// What launches of the twin assume, or an AI core of dav-2201: one AIC and two AIVs.
CoreLimits LimitsOf(bool npu, Cores cores) {
    CoreLimits limits;
    if (!npu && cores == Cores::kMix) return ascend_ops::TwinLimits();
    if (!npu) limits.numCores = ascend_ops::GetBuildInfo().threads;
    if (npu && cores == Cores::kVector) limits.numCores *= 2;
    return limits;
}

DataType TypeNamed(const std::string& name) {
    if (name == "float16") return DataType::kFloat16;
    return name == "bfloat16" ? DataType::kBfloat16 : DataType::kFloat32;
}

py::dict MemoryOf(const TilingPlan& plan, const CoreLimits& limits) {
    py::dict memory;
    for (const char* name : kMemories) {
        const uint64_t used = ascend_ops::PlannedBytes(plan.buffers, name);
        if (used == 0) continue;
        py::dict buffers;
        for (const ascend_ops::PlannedBuffer& buffer : plan.buffers) {
            if (buffer.memory == name) buffers[py::str(buffer.name)] = buffer.bytes;
        }
        py::dict entry;
        entry["used_bytes"] = used;
        entry["capacity_bytes"] = ascend_ops::CapacityBytes(limits, name);
        entry["buffers"] = buffers;
        memory[name] = entry;
    }
    return memory;
}

py::object SplitOf(const ascend_ops::PlannedSplit& split) {
    if (split.sequences == 0) return py::none();
    py::dict fields;
    fields["keys_per_part"] = split.keysPerPart;
    fields["sequences"] = split.sequences;
    fields["parts"] = split.parts;
    fields["workspace_bytes"] = split.workspaceBytes;
    return fields;
}

template <typename Args>
py::dict Planned(ascend_ops::Status (*make)(const Args&, const CoreLimits&, TilingPlan*),
                 const Args& args, const CoreLimits& limits) {
    TilingPlan plan;
    Raise(make(args, limits, &plan));
    py::dict tiles;
    for (const auto& tile : plan.tiles) tiles[py::str(tile.first)] = tile.second;
    py::dict fields;
    fields["tiles"] = tiles;
    fields["cores"] = plan.numCores;
    fields["cores_available"] = limits.numCores;
    fields["task_slots"] = plan.taskSlots;
    fields["memory"] = MemoryOf(plan, limits);
    fields["workspace_bytes_per_core"] = plan.workspaceBytes;
    fields["workspace_bytes"] = plan.workspaceBytes * plan.numCores + plan.split.workspaceBytes;
    fields["split"] = SplitOf(plan.split);
    fields["reason"] = plan.reason;
    return fields;
}

py::dict FlashAttention(bool npu, const std::string& dtype, const std::string& cacheDtype,
                        uint32_t numHeads, uint32_t numKvHeads, uint32_t headDim, uint32_t pageSize,
                        const std::vector<int32_t>& cuSeqlensQ,
                        const std::vector<int32_t>& seqLenKv) {
    ascend_ops::FlashAttentionArgs args;
    args.qType = TypeNamed(dtype);
    args.cacheType = TypeNamed(cacheDtype);
    args.numHeads = numHeads;
    args.numKvHeads = numKvHeads;
    args.headDim = headDim;
    args.pageSize = pageSize;
    args.numSeqs = static_cast<uint32_t>(seqLenKv.size());
    args.numTokens = static_cast<uint32_t>(cuSeqlensQ.back());
    args.cuSeqlensQ = cuSeqlensQ.data();
    args.seqLenKv = seqLenKv.data();
    for (const int32_t keys : seqLenKv) {
        const uint32_t pages =
            pageSize == 0 ? 0 : (static_cast<uint32_t>(keys) + pageSize - 1) / pageSize;
        args.maxPages = std::max(args.maxPages, pages);
    }
    return Planned(&ascend_ops::PlanFlashAttention, args, LimitsOf(npu, Cores::kMix));
}

py::dict FlashAttentionGrad(bool npu, const std::string& dtype, uint32_t numHeads,
                            uint32_t numKvHeads, uint32_t headDim,
                            const std::vector<int32_t>& cuSeqlensQ,
                            const std::vector<int32_t>& cuSeqlensKv) {
    ascend_ops::FlashAttentionGradArgs args;
    args.type = TypeNamed(dtype);
    args.numHeads = numHeads;
    args.numKvHeads = numKvHeads;
    args.headDim = headDim;
    args.numSeqs = static_cast<uint32_t>(cuSeqlensQ.size() - 1);
    args.cuSeqlensQ = cuSeqlensQ.data();
    args.cuSeqlensKv = cuSeqlensKv.data();
    return Planned(&ascend_ops::PlanFlashAttentionGrad, args, LimitsOf(npu, Cores::kMix));
}

py::dict QuantMatmul(bool npu, const std::string& dtype, const std::string& storage,
                     uint32_t groupSize, uint32_t activationBits, uint32_t numRows,
                     uint32_t inFeatures, uint32_t outFeatures) {
    ascend_ops::QuantMatmulArgs args;
    args.type = TypeNamed(dtype);
    args.format = FormatNamed(storage);
    args.groupSize = groupSize;
    args.activationBits = activationBits;
    args.numTokens = numRows;
    args.inFeatures = inFeatures;
    args.outFeatures = outFeatures;
    return Planned(&ascend_ops::PlanQuantMatmul, args, LimitsOf(npu, Cores::kMix));
}

py::dict RmsNorm(bool npu, const std::string& dtype, uint32_t numRows, uint32_t hiddenSize,
                 bool residual) {
    const float present = 0.0f;  // which arrays there are matters, not what is in them
    float written = 0.0f;
    ascend_ops::RmsNormArgs args;
    args.type = TypeNamed(dtype);
    args.numRows = numRows;
    args.hiddenSize = hiddenSize;
    args.residual = residual ? &present : nullptr;
    args.total = residual ? &written : nullptr;
    return Planned(&ascend_ops::PlanRmsNorm, args, LimitsOf(npu, Cores::kVector));
}

py::dict RopeAppend(bool npu, const std::string& dtype, const std::string& cacheDtype,
                    uint32_t numTokens, uint32_t numHeads, uint32_t numKvHeads, uint32_t headDim,
                    uint32_t rotaryDim, uint32_t pageSize) {
    ascend_ops::RopeAppendArgs args;
    args.qkvType = TypeNamed(dtype);
    args.cacheType = TypeNamed(cacheDtype);
    args.numTokens = numTokens;
    args.numSeqs = 1;
    args.numHeads = numHeads;
    args.numKvHeads = numKvHeads;
    args.headDim = headDim;
    args.rotaryDim = rotaryDim;
    args.pageSize = pageSize;
    return Planned(&ascend_ops::PlanRopeAppend, args, LimitsOf(npu, Cores::kVector));
}

py::dict Swiglu(bool npu, const std::string& dtype, uint32_t numRows, uint32_t width) {
    ascend_ops::SwigluArgs args;
    args.type = TypeNamed(dtype);
    args.numRows = numRows;
    args.width = width;
    return Planned(&ascend_ops::PlanSwiglu, args, LimitsOf(npu, Cores::kVector));
}

}  // namespace

void RegisterTiling(py::module_& module) {
    module.def("plan_flash_attention", &FlashAttention, py::arg("npu"), py::arg("dtype"),
               py::arg("cache_dtype"), py::arg("num_heads"), py::arg("num_kv_heads"),
               py::arg("head_dim"), py::arg("page_size"), py::arg("cu_seqlens_q"),
               py::arg("seq_len_kv"));
    module.def("plan_flash_attention_grad", &FlashAttentionGrad, py::arg("npu"), py::arg("dtype"),
               py::arg("num_heads"), py::arg("num_kv_heads"), py::arg("head_dim"),
               py::arg("cu_seqlens_q"), py::arg("cu_seqlens_kv"));
    module.def("plan_quant_matmul", &QuantMatmul, py::arg("npu"), py::arg("dtype"),
               py::arg("storage"), py::arg("group_size"), py::arg("activation_bits"),
               py::arg("num_rows"), py::arg("in_features"), py::arg("out_features"));
    module.def("plan_rms_norm", &RmsNorm, py::arg("npu"), py::arg("dtype"), py::arg("num_rows"),
               py::arg("hidden_size"), py::arg("residual"));
    module.def("plan_rope_append", &RopeAppend, py::arg("npu"), py::arg("dtype"),
               py::arg("cache_dtype"), py::arg("num_tokens"), py::arg("num_heads"),
               py::arg("num_kv_heads"), py::arg("head_dim"), py::arg("rotary_dim"),
               py::arg("page_size"));
    module.def("plan_swiglu", &Swiglu, py::arg("npu"), py::arg("dtype"), py::arg("num_rows"),
               py::arg("width"));
}

}  // namespace glm2
