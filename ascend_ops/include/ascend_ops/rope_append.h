// RoPE on a fused qkv projection, and the append of its keys and values to the paged K/V cache.
#ifndef ASCEND_OPS_ROPE_APPEND_H_
#define ASCEND_OPS_ROPE_APPEND_H_

#include <cstdint>

#include "ascend_ops/status.h"
#include "ascend_ops/types.h"

namespace ascend_ops {

// T tokens of B sequences, N heads on G KV heads of D dims. All arrays are C-contiguous.
struct RopeAppendArgs {
    const void* qkv = nullptr;   // (T, (N + 2 G) D) of qkvType
    const float* cos = nullptr;  // (maxPosition, rotaryDim / 2)
    const float* sin = nullptr;  // like cos
    void* kCache = nullptr;      // (numPages, G, pageSize, D) of cacheType, written in place
    void* vCache = nullptr;      // like kCache
    const int32_t* blockTable = nullptr;  // (B, maxPages)
    const int32_t* cuSeqlensQ = nullptr;  // (B + 1,)
    const int32_t* seqLenKv = nullptr;    // (B,), these tokens included
    void* q = nullptr;                    // (T, N, D) of qkvType
    DataType qkvType = DataType::kFloat32;
    DataType cacheType = DataType::kFloat32;  // float16 caches take float32 projections, rounded
    uint32_t numTokens = 0;
    uint32_t numSeqs = 0;
    uint32_t numHeads = 0;
    uint32_t numKvHeads = 0;
    uint32_t headDim = 0;
    uint32_t rotaryDim = 0;  // leading dims of a head to rotate, in pairs (2i, 2i + 1); 0: none
    uint32_t pageSize = 0;
    uint32_t maxPages = 0;
};

// Fills q and the tokens' slots of the caches. Lengths and page ids are trusted, as above.
ASCEND_OPS_API Status RopeAppend(const RopeAppendArgs& args);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_ROPE_APPEND_H_
