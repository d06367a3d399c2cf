// FlashAttention over a paged K/V cache or contiguous K and V, as the bindings call it.
#ifndef ASCEND_OPS_FLASH_ATTENTION_H_
#define ASCEND_OPS_FLASH_ATTENTION_H_

#include <cstdint>

#include "ascend_ops/status.h"
#include "ascend_ops/types.h"

namespace ascend_ops {

// T query tokens of B sequences, N heads on G KV heads of D dims. All arrays are C-contiguous.
struct FlashAttentionArgs {
    const void* q = nullptr;              // (T, N, D) of qType
    const void* kCache = nullptr;         // (numPages, G, pageSize, D) of cacheType, or (Tk, G, D)
    const void* vCache = nullptr;         // like kCache
    const int32_t* blockTable = nullptr;  // (B, maxPages), or where each sequence starts in k, (B,)
    const int32_t* cuSeqlensQ = nullptr;  // (B + 1,)
    const int32_t* seqLenKv = nullptr;    // (B,)
    const int32_t* prefixLen = nullptr;   // (B,), or null: no prefix
    void* o = nullptr;                    // (T, N, D) of qType
    float* lse = nullptr;                 // (T, N), or null: not wanted
    DataType qType = DataType::kFloat32;
    DataType cacheType = DataType::kFloat32;  // 16-bit caches serve float32 queries too
    uint32_t numTokens = 0;
    uint32_t numSeqs = 0;
    uint32_t numHeads = 0;
    uint32_t numKvHeads = 0;
    uint32_t headDim = 0;
    bool paged = true;  // false: contiguous k and v, pageSize and maxPages mean nothing
    uint32_t pageSize = 0;
    uint32_t maxPages = 0;
    float scale = 1.0f;
    bool causal = true;
    uint32_t window = 0;  // 0: none
};

// Fills o and lse. Lengths, offsets and page ids are trusted: the caller has checked them.
ASCEND_OPS_API Status FlashAttention(const FlashAttentionArgs& args);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_H_
