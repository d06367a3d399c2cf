// What launches tell the twin about themselves: in check mode the tensors in GM by name and size,
// and nothing in fast mode, which would not look.
#ifndef ASCEND_OPS_LAUNCH_TWIN_MODE_H_
#define ASCEND_OPS_LAUNCH_TWIN_MODE_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#if defined(ASCEND_TWIN_CHECK)

#include "gm_table.h"
#include "session.h"

namespace ascend_ops {

using ascend_twin::check::GmTensor;
using ascend_twin::check::GmUse;
using GmTensors = std::vector<GmTensor>;

constexpr const char* kTwinMode = "check";

// tensors() lists those of the next launch.
template <typename List>
void NameGm(const List& tensors) {
    ascend_twin::check::NameGm(tensors());
}

// Whether tilings are those of hardware: its memories, AIC and AIVs that run at the same time.
inline bool TwinTilesAsHardware() { return ascend_twin::check::CurrentOptions().hardwareTiling; }

}  // namespace ascend_ops

#else

namespace ascend_ops {

enum class GmUse : uint8_t { kIn, kOut, kInOut, kWorkspace };
struct GmTensor {
    const char* name;
    const void* data;
    uint64_t bytes;
    GmUse use;
};
using GmTensors = std::vector<GmTensor>;

constexpr const char* kTwinMode = "fast";

template <typename List>
void NameGm(const List& /*tensors*/) {}

constexpr bool TwinTilesAsHardware() { return false; }

}  // namespace ascend_ops

#endif

namespace ascend_ops {

// The largest of `count` values, 0 of none.
inline uint64_t Largest(const int32_t* values, uint64_t count) {
    int32_t largest = 0;
    for (uint64_t i = 0; i < count; ++i) largest = std::max(largest, values[i]);
    return static_cast<uint64_t>(largest);
}

// Pages of a cache that sequences of these lengths reach.
inline uint64_t PagesInUse(const int32_t* blockTable, const int32_t* seqLenKv, uint32_t numSeqs,
                           uint32_t maxPages, uint32_t pageSize) {
    uint64_t pages = 0;
    for (uint32_t seq = 0; seq < numSeqs; ++seq) {
        const uint32_t used = (static_cast<uint32_t>(seqLenKv[seq]) + pageSize - 1) / pageSize;
        if (used == 0) continue;
        pages = std::max(pages, Largest(blockTable + uint64_t{seq} * maxPages, used) + 1);
    }
    return pages;
}

}  // namespace ascend_ops

#endif  // ASCEND_OPS_LAUNCH_TWIN_MODE_H_
