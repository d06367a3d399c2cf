// What the operators' plans share: sums of buffers, and what does not fit.
#include "ascend_ops/tiling_plan.h"

namespace ascend_ops {

uint64_t PlannedBytes(const std::vector<PlannedBuffer>& buffers, const std::string& memory) {
    uint64_t bytes = 0;
    for (const PlannedBuffer& buffer : buffers) {
        if (buffer.memory == memory) bytes += buffer.bytes;
    }
    return bytes;
}

uint64_t CapacityBytes(const CoreLimits& limits, const std::string& memory) {
    if (memory == "ub" || memory == "ub_combine") return limits.ubBytes;
    if (memory == "l1") return limits.l1Bytes;
    if (memory == "l0a") return limits.l0aBytes;
    if (memory == "l0b") return limits.l0bBytes;
    return memory == "l0c" ? limits.l0cBytes : 0;
}

std::string WhatOverflows(const std::vector<PlannedBuffer>& buffers, const CoreLimits& limits) {
    constexpr const char* kMemories[][2] = {
        {"ub", "UB"}, {"l1", "L1"}, {"l0a", "L0A"}, {"l0b", "L0B"}, {"l0c", "L0C"}};
    std::string text;
    for (const auto& memory : kMemories) {
        const uint64_t needed = PlannedBytes(buffers, memory[0]);
        const uint64_t held = CapacityBytes(limits, memory[0]);
        if (needed <= held) continue;
        text += std::string(text.empty() ? "" : ", ") + memory[1] + " needs " +
                std::to_string(needed) + " bytes, but holds " + std::to_string(held);
    }
    return text;
}

}  // namespace ascend_ops
