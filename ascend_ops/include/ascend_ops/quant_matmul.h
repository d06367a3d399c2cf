// A linear layer on a packed weight, quantised or float16, as the bindings call it.
#ifndef ASCEND_OPS_QUANT_MATMUL_H_
#define ASCEND_OPS_QUANT_MATMUL_H_

#include <cstdint>

#include "ascend_ops/packed_weight.h"
#include "ascend_ops/status.h"
#include "ascend_ops/types.h"

namespace ascend_ops {

// The sums of so many products of an int4 weight and an int8 token are exact in float32.
constexpr uint32_t kMaxInFeatures = 16384;

// M tokens of K features, N output features. All arrays are C-contiguous.
struct QuantMatmulArgs {
    const void* x = nullptr;         // (M, K) of type
    const void* weight = nullptr;    // PackedBytes(format, N, K)
    const float* scale = nullptr;    // (N,), or (N, K / groupSize)
    const float* bias = nullptr;     // (N,), or null
    const void* residual = nullptr;  // (M, N) of type, or null
    void* out = nullptr;             // (M, N) of type
    DataType type = DataType::kFloat32;
    WeightFormat format = WeightFormat::kInt8;
    uint32_t numTokens = 0;
    uint32_t inFeatures = 0;
    uint32_t outFeatures = 0;
    uint32_t groupSize = 0;  // 0: one scale a row; else 32, 64 or 128 columns of an int4 weight
    uint32_t activationBits = 16;  // 16, or 8 where the weight is not float16
};

// Fills out = x (weight * scale)^T + bias + residual. With 8 activation bits each token becomes
// round(x / s) with s = max|x| / 127, or / 119 under an int4 weight, and sums are exact integers.
ASCEND_OPS_API Status QuantMatmul(const QuantMatmulArgs& args);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_QUANT_MATMUL_H_
