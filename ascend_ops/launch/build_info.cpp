// Build facts that the twin knows.
#include "ascend_ops/build_info.h"

#include "simd.h"
#include "thread_pool.h"
#include "twin_mode.h"

namespace ascend_ops {

BuildInfo GetBuildInfo() {
#if defined(__clang__)
    const std::string compiler = "clang " __clang_version__;
#else
    const std::string compiler = "gcc " __VERSION__;
#endif
    return {ascend_twin::kSimdName, compiler, kTwinMode, ascend_twin::NumThreads()};
}

void SetNumThreads(uint32_t count) { ascend_twin::SetNumThreads(count); }

}  // namespace ascend_ops
