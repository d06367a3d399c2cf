// Runs a kernel on the twin's logical cores.
#ifndef ASCEND_TWIN_FAST_LAUNCH_H_
#define ASCEND_TWIN_FAST_LAUNCH_H_

#include <cstdint>
#include <string>

#include "ascend_twin/core.h"

namespace ascend_twin {

struct LaunchConfig {
    const char* kernelName;
    KernelType kernelType;
    uint32_t numBlocks;
    uint64_t tilingKey;
    // Starts of GM buffers that nobody writes while the kernel runs: copies of them may be views.
    const void* inputs[kMaxInputs] = {};
};

// Calls kernel(arguments) once for each role of each block. Returns an empty string, or what
// went wrong: no memory for a core, or the position of every role of the first core that hung.
std::string Launch(const LaunchConfig& config, void (*kernel)(const void*), const void* arguments);

// The launch that code written for CANN spells kernel<<<...>>>: one lambda holds the arguments.
template <typename Kernel>
std::string Launch(const LaunchConfig& config, const Kernel& kernel) {
    return Launch(config, [](const void* body) { (*static_cast<const Kernel*>(body))(); }, &kernel);
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_LAUNCH_H_
