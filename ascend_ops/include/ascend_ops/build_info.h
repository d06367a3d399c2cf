// How this library was built, for `glm2 doctor`.
#ifndef ASCEND_OPS_BUILD_INFO_H_
#define ASCEND_OPS_BUILD_INFO_H_

#include <cstdint>
#include <string>

#include "ascend_ops/types.h"

namespace ascend_ops {

struct BuildInfo {
    std::string simd;  // avx512, avx2, neon or generic
    std::string compiler;
    std::string twin;  // fast
    uint32_t threads;  // logical cores that a call may use
};

ASCEND_OPS_API BuildInfo GetBuildInfo();

// Logical cores for the calls to come; at least 1.
ASCEND_OPS_API void SetNumThreads(uint32_t count);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_BUILD_INFO_H_
