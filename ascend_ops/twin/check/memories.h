// Sizes and units of a core's memories.
#ifndef ASCEND_TWIN_CHECK_MEMORIES_H_
#define ASCEND_TWIN_CHECK_MEMORIES_H_

#include <cstdint>
#include <string>

#include "ascend_twin_check/operation.h"

namespace ascend_twin {
namespace check {

// Of dav-2201.
inline uint64_t HardwareBytes(Space space) {
    switch (space) {
        case Space::kUb:
            return 192 * 1024;
        case Space::kL1:
            return 512 * 1024;
        case Space::kL0a:
        case Space::kL0b:
            return 64 * 1024;
        case Space::kL0c:
            return 128 * 1024;
        default:
            return 0;
    }
}

// What tensors may take of that: some instructions use the top of UB.
inline uint64_t PlannedBytes(Space space) {
    if (space == Space::kUb) return HardwareBytes(space) - 8 * 1024;
    return HardwareBytes(space) - (space == Space::kL1 ? 256 : 0);
}

// Of the twin's arrays, which are larger: what lies between does no harm here.
inline uint64_t ArrayBytes(Space space) {
    switch (space) {
        case Space::kUb:
            return kUbBytes;
        case Space::kL1:
            return kL1Bytes;
        case Space::kL0a:
            return kL0aBytes;
        case Space::kL0b:
            return kL0bBytes;
        case Space::kL0c:
            return kL0cBytes;
        default:
            return 0;
    }
}

inline uint64_t AddressUnit(Space space) {
    if (space == Space::kL0a || space == Space::kL0b) return kFractalBytes;
    return space == Space::kL0c ? 64 : kBlockBytes;
}

inline std::string Bytes(uint64_t count) { return std::to_string(count) + " bytes"; }

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_MEMORIES_H_
