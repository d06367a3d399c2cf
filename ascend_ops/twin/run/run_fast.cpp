// ascend_twin::Run in fast mode.
#include "ascend_twin/run.h"
#include "launch.h"

namespace ascend_twin {

Outcome Run(const Kernel& kernel, const std::vector<Tensor>& tensors, void (*body)(const void*),
            const void* arguments) {
    LaunchConfig config = {kernel.name, kernel.type, kernel.blocks, kernel.tilingKey};
    uint32_t inputs = 0;
    for (const Tensor& tensor : tensors) {
        if (tensor.use == Use::kIn && inputs < kMaxInputs) config.inputs[inputs++] = tensor.data;
    }
    return {Launch(config, body, arguments), {}};
}

}  // namespace ascend_twin
