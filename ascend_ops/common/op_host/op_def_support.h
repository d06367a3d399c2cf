// What the operators' CANN definitions share: a call's shapes and attributes, the limits of the
// platform, and the end of a tiling function. Compiled for an NPU alone; untested on hardware.
#ifndef ASCEND_OPS_COMMON_OP_HOST_OP_DEF_SUPPORT_H_
#define ASCEND_OPS_COMMON_OP_HOST_OP_DEF_SUPPORT_H_

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "ascend_ops/status.h"
#include "ascend_ops/types.h"
#include "register/op_def_registry.h"
#include "tiling/platform/platform_ascendc.h"

namespace ascend_ops {

// What a kernel must leave alone: UB that some vector instructions take, L1 that the toolkit takes.
constexpr uint64_t kReservedUbBytes = 8 * 1024;
constexpr uint64_t kReservedL1Bytes = 256;

// Which cores run a kernel: AICs with two AIVs each, or AIVs alone.
enum class CoreKind { kMix, kVector };

// One call as a tiling function sees it. What is missing reads as zero, and ok() is false after it.
class TilingCall {
  public:
    explicit TilingCall(gert::TilingContext* context) : context_(context) {}

    // Optional inputs come last in every definition: the index of a required one is its place.
    bool HasInput(size_t index) const { return context_->GetOptionalInputShape(index) != nullptr; }

    size_t Rank(size_t index) {
        const gert::StorageShape* shape = Found(context_->GetInputShape(index));
        return shape == nullptr ? 0 : shape->GetStorageShape().GetDimNum();
    }

    uint32_t Dim(size_t index, size_t axis) {
        if (axis >= Rank(index)) {
            ok_ = false;
            return 0;
        }
        return static_cast<uint32_t>(
            context_->GetInputShape(index)->GetStorageShape().GetDim(axis));
    }

    DataType Type(size_t index) {
        const gert::CompileTimeTensorDesc* desc = Found(context_->GetInputDesc(index));
        if (desc == nullptr) return DataType::kFloat32;
        if (desc->GetDataType() == ge::DT_FLOAT16) return DataType::kFloat16;
        return desc->GetDataType() == ge::DT_BF16 ? DataType::kBfloat16 : DataType::kFloat32;
    }

    float Float(size_t attr) { return Attribute<float>(attr); }
    bool Bool(size_t attr) { return Attribute<bool>(attr); }
    uint32_t Uint(size_t attr) { return static_cast<uint32_t>(Attribute<int64_t>(attr)); }

    bool ok() const { return ok_; }

  private:
    template <typename T>
    const T* Found(const T* pointer) {
        if (pointer == nullptr) ok_ = false;
        return pointer;
    }

    template <typename T>
    T Attribute(size_t index) {
        const gert::RuntimeAttrs* attrs = Found(context_->GetAttrs());
        if (attrs == nullptr) return T();
        const T* value = Found(attrs->GetAttrPointer<T>(index));
        return value == nullptr ? T() : *value;
    }

    gert::TilingContext* context_;
    bool ok_ = true;
};

// Asked of the platform: cores and memories differ between the parts that one package serves.
// splitKeys stays CoreLimits's: docs/npu.md says why.
inline CoreLimits LimitsOf(gert::TilingContext* context, CoreKind kind) {
    using platform_ascendc::CoreMemType;
    const platform_ascendc::PlatformAscendC platform(context->GetPlatformInfo());
    const auto bytes = [&platform](CoreMemType type, uint64_t reserved) {
        uint64_t size = 0;
        platform.GetCoreMemSize(type, size);
        return static_cast<uint32_t>(size > reserved ? size - reserved : 0);
    };
    CoreLimits limits;
    limits.ubBytes = bytes(CoreMemType::UB, kReservedUbBytes);
    limits.l1Bytes = bytes(CoreMemType::L1, kReservedL1Bytes);
    limits.l0aBytes = bytes(CoreMemType::L0_A, 0);
    limits.l0bBytes = bytes(CoreMemType::L0_B, 0);
    limits.l0cBytes = bytes(CoreMemType::L0_C, 0);
    const uint32_t vectorCores = platform.GetCoreNumAiv();
    limits.numCores = kind == CoreKind::kVector
                          ? vectorCores
                          : std::min(platform.GetCoreNumAic(), vectorCores / 2);
    limits.numCores = std::max(1u, limits.numCores);
    limits.overlap = true;
    return limits;
}

inline ge::graphStatus RefuseTiling(const char* name, const Status& status) {
    std::fprintf(stderr, "glm2 %s: %s\n", name, status.message.c_str());
    return ge::GRAPH_FAILED;
}

inline ge::graphStatus RefuseCall(const char* name) {
    return RefuseTiling(name,
                        Status::Error(StatusCode::kInvalidShape,
                                      "an input or an attribute of the definition is missing"));
}

// When the cores of a call begin: each as soon as it is free, or none before all are. A kernel with
// SyncAll needs the latter (batch mode): else two calls on two streams may each hold cores that the
// other waits for.
enum class Start : uint32_t { kCoreByCore = 0, kAllCoresAtOnce = 1 };

// The rest of what a tiling function returns. `workspaceBytes` is the kernel's own, of all cores.
inline ge::graphStatus FinishTiling(gert::TilingContext* context, uint32_t numCores, uint64_t key,
                                    uint64_t workspaceBytes, Start start = Start::kCoreByCore) {
    const platform_ascendc::PlatformAscendC platform(context->GetPlatformInfo());
    size_t* workspaces = context->GetWorkspaceSizes(1);
    if (workspaces == nullptr) return ge::GRAPH_FAILED;
    workspaces[0] = workspaceBytes + platform.GetLibApiWorkSpaceSize();
    if (context->SetBlockDim(numCores) != ge::GRAPH_SUCCESS) return ge::GRAPH_FAILED;
    if (context->SetScheduleMode(static_cast<uint32_t>(start)) != ge::GRAPH_SUCCESS) {
        return ge::GRAPH_FAILED;
    }
    return context->SetTilingKey(key);
}

// A definition's list for a tensor that has one type in all `count` combinations.
inline std::vector<ge::DataType> Always(ge::DataType type, size_t count) {
    return std::vector<ge::DataType>(count, type);
}

inline std::vector<ge::Format> PlainFormats(size_t count) {
    return std::vector<ge::Format>(count, ge::FORMAT_ND);
}

}  // namespace ascend_ops

#endif  // ASCEND_OPS_COMMON_OP_HOST_OP_DEF_SUPPORT_H_
