// The gradient of attention over contiguous ragged k and v, as the bindings call it.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_H_

#include <cstdint>

#include "ascend_ops/status.h"
#include "ascend_ops/types.h"

namespace ascend_ops {

// T query tokens and Tk keys of B sequences, N heads on G KV heads of D dims; every tensor but lse
// and the offsets is of `type`. All arrays are C-contiguous.
struct FlashAttentionGradArgs {
    const void* dO = nullptr;              // (T, N, D)
    const void* q = nullptr;               // (T, N, D)
    const void* k = nullptr;               // (Tk, G, D)
    const void* v = nullptr;               // (Tk, G, D)
    const void* o = nullptr;               // (T, N, D)
    const float* lse = nullptr;            // (T, N); -inf: the row's probabilities are 0
    const int32_t* cuSeqlensQ = nullptr;   // (B + 1,)
    const int32_t* cuSeqlensKv = nullptr;  // (B + 1,)
    const int32_t* prefixLen = nullptr;    // (B,), or null: no prefix
    void* dQ = nullptr;                    // (T, N, D)
    void* dK = nullptr;                    // (Tk, G, D)
    void* dV = nullptr;                    // (Tk, G, D)
    DataType type = DataType::kFloat32;
    uint32_t numSeqs = 0;
    uint32_t numHeads = 0;
    uint32_t numKvHeads = 0;
    uint32_t headDim = 0;
    float scale = 1.0f;
    bool causal = true;
    uint32_t window = 0;  // 0: none
};

// Fills dQ, dK and dV. Offsets are trusted: the caller has checked them.
ASCEND_OPS_API Status FlashAttentionGrad(const FlashAttentionGradArgs& args);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_H_
