// Cycles by instruction class.
#include "timing.h"

#include <algorithm>

namespace ascend_twin {
namespace check {
namespace {

constexpr double kVectorBytes = 256;  // a cycle, as L1 -> L0A
constexpr double kL0bBytes = 128;
constexpr double kGmBytes = kGmBytesPerSecond / kModelCores / (kClockGhz * 1e9);
constexpr double kL2Bytes = kL2BytesPerSecond / kModelCores / (kClockGhz * 1e9);

const Access* First(const Operation& operation, bool write) {
    for (uint32_t i = 0; i < operation.numAccesses; ++i) {
        if (operation.accesses[i].write == write) return &operation.accesses[i];
    }
    return nullptr;
}

// Whole repeats: runs of up to 256 bytes each.
double VectorCycles(const Access& access) {
    const double perRun = static_cast<double>((access.run + 255) / 256);
    return static_cast<double>(access.Runs()) * perRun;
}

}  // namespace

double CyclesOf(const Operation& operation, bool workspace) {
    const Access *from = First(operation, false), *to = First(operation, true);
    switch (operation.pipe) {
        case PIPE_M:
            return operation.cubeCycles;
        case PIPE_V: {
            double cycles = to == nullptr ? 0 : VectorCycles(*to);
            if (from != nullptr) cycles = std::max(cycles, VectorCycles(*from));
            return cycles;
        }
        case PIPE_MTE1: {
            if (to == nullptr) return 0;
            const double rate = to->space == Space::kL0b ? kL0bBytes : kVectorBytes;
            return static_cast<double>(to->Bytes()) / rate;
        }
        case PIPE_MTE2:
        case PIPE_MTE3:
        case PIPE_FIX: {
            const Access* gm = to != nullptr && to->space == Space::kGm ? to : from;
            if (gm == nullptr) return 0;
            return static_cast<double>(gm->Bytes()) / (workspace ? kL2Bytes : kGmBytes);
        }
        default:
            return 0;
    }
}

}  // namespace check
}  // namespace ascend_twin
