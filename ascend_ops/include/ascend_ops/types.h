// Element types and core limits that the host side speaks of.
#ifndef ASCEND_OPS_TYPES_H_
#define ASCEND_OPS_TYPES_H_

#include <cstdint>

// What the shared library shows to its callers.
#define ASCEND_OPS_API __attribute__((visibility("default")))

namespace ascend_ops {

enum class DataType { kFloat16, kBfloat16, kFloat32 };

inline uint32_t SizeOf(DataType type) { return type == DataType::kFloat32 ? 4 : 2; }

// What one AI core (one AIC, two AIVs) of dav-2201 offers a kernel.
struct CoreLimits {
    uint32_t ubBytes = 184 * 1024;  // of 192 KB an AIV; the top 8 KB belong to some instructions
    uint32_t l1Bytes = 512 * 1024 - 256;
    uint32_t l0aBytes = 64 * 1024;
    uint32_t l0bBytes = 64 * 1024;
    uint32_t l0cBytes = 128 * 1024;
    uint32_t numCores = 24;
    // Whether AIC and AIV run at the same time. Where they take turns, work in flight only costs
    // cache.
    bool overlap = true;
    // Rows of a Q tile for which K and V are read once; see ChooseTiles of flash_attention.
    uint32_t rowsWanted = 128;
    // Keys of one part where attention splits the keys of few queries; 0: it never does. It decides
    // which sums are formed, so it must not follow from numCores: a result would then depend on how
    // many cores happen to work.
    uint32_t splitKeys = 1024;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_TYPES_H_
