// Tile sizes of rope_append. The UB plan mirrors the kernel's Init function.
#include "rope_append/op_host/rope_append_tiling.h"

#include <algorithm>
#include <string>

#include "common/op_host/tiling_math.h"

namespace ascend_ops {
namespace {

constexpr uint32_t kMaxHeadsPerPass = 32;
constexpr uint32_t kTokensPerCore = 4;  // fewer are not worth another core

Status Invalid(const std::string& message) {
    return Status::Error(StatusCode::kInvalidShape, message);
}

uint32_t UbBytes(const RopeAppendTilingData& t) {
    return t.headsPerPass * (3 * t.headDim + t.rotaryDim) * 4 + 7 * (t.rotaryDim + 8) * 4;
}

}  // namespace

Status RopeAppendTilingKey(DataType qkvType, DataType cacheType, uint64_t* key) {
    if (qkvType == DataType::kFloat16 && cacheType == DataType::kFloat16) {
        *key = kRopeKeyHalfHalf;
    } else if (qkvType == DataType::kFloat32 && cacheType == DataType::kFloat16) {
        *key = kRopeKeyFloatHalf;
    } else if (qkvType == DataType::kFloat32 && cacheType == DataType::kFloat32) {
        *key = kRopeKeyFloatFloat;
    } else if (qkvType == DataType::kBfloat16 && cacheType == DataType::kBfloat16) {
        *key = kRopeKeyBfloat16Bfloat16;
    } else if (qkvType == DataType::kFloat32 && cacheType == DataType::kBfloat16) {
        *key = kRopeKeyFloatBfloat16;
    } else {
        return Invalid("the cache must have qkv's type, or be 16 bits wide under float32");
    }
    return Status::Ok();
}

Status ComputeRopeAppendTiling(const RopeAppendArgs& args, const CoreLimits& limits,
                               RopeAppendTilingData* tiling) {
    if (args.headDim == 0 || args.headDim % 16 != 0 || args.headDim > 256) {
        return Invalid("head_dim is " + std::to_string(args.headDim) +
                       "; it must be a multiple of 16 up to 256");
    }
    if (args.rotaryDim % 8 != 0 || args.rotaryDim > args.headDim) {
        return Invalid(
            "rotary_dim is " + std::to_string(args.rotaryDim) +
            "; it must be a multiple of 8 up to head_dim = " + std::to_string(args.headDim));
    }
    if (args.numHeads == 0 || args.numKvHeads == 0 || args.pageSize == 0) {
        return Invalid("num_heads, num_kv_heads and page_size must be positive");
    }
    RopeAppendTilingData t = {};
    t.numTokens = args.numTokens;
    t.numSeqs = args.numSeqs;
    t.numHeads = args.numHeads;
    t.numKvHeads = args.numKvHeads;
    t.headDim = args.headDim;
    t.rotaryDim = args.rotaryDim;
    t.pageSize = args.pageSize;
    t.maxPages = args.maxPages;
    t.numCores = Clamp(args.numTokens / kTokensPerCore, 1u, limits.numCores);
    t.headsPerPass = std::min(kMaxHeadsPerPass, std::max(args.numHeads, args.numKvHeads));
    while (t.headsPerPass > 1 && UbBytes(t) > limits.ubBytes) --t.headsPerPass;
    if (UbBytes(t) > limits.ubBytes) {
        return Status::Error(StatusCode::kNoFit, "UB needs " + std::to_string(UbBytes(t)) +
                                                     " bytes for one head, but holds " +
                                                     std::to_string(limits.ubBytes) +
                                                     "; lower head_dim");
    }
    *tiling = t;
    return Status::Ok();
}

}  // namespace ascend_ops
