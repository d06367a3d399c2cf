// Byte ranges of operands: loops over runs, and what a vector call's repeats come to.
#include "ascend_twin_check/operation.h"
#include "ascend_twin_check/vector.h"

namespace ascend_twin {
namespace check {

void Access::Repeat(uint64_t times, uint64_t step) {
    uint32_t loop = 0;
    while (loop < kLoops && count[loop] != 1) ++loop;
    if (times == 1) return;
    if (loop == 0 && step == run) {  // runs that touch
        run *= times;
        return;
    }
    if (loop > 0 && step == stride[loop - 1] * count[loop - 1]) {
        count[loop - 1] *= times;
        return;
    }
    count[loop] = times;
    stride[loop] = step;
}

uint64_t Access::Last() const {
    uint64_t last = begin + run;
    for (uint32_t loop = 0; loop < kLoops; ++loop) {
        if (count[loop] > 0) last += (count[loop] - 1) * stride[loop];
    }
    return last;
}

RepeatAccess RepeatOf(const Access& tensor, const RepeatShape& shape, uint64_t blockStride,
                      uint64_t repeatStride) {
    const uint64_t bytes = shape.mask * shape.elemBytes;
    const uint64_t blocks = bytes / kVectorUnit;
    RepeatAccess parts = {tensor, tensor};
    parts.whole.run = blocks > 0 ? kVectorUnit : 0;
    parts.tail.run = bytes % kVectorUnit;
    if (blockStride == 0) {
        // All blocks of a repeat are the same one.
    } else if (blockStride == 1 && blocks > 0) {
        parts.whole.run = bytes;
        parts.tail.run = 0;
    } else {
        parts.whole.Repeat(blocks, blockStride * kVectorUnit);
        parts.tail.begin += blocks * blockStride * kVectorUnit;
    }
    parts.whole.Repeat(shape.repeats, repeatStride * kVectorUnit);
    parts.tail.Repeat(shape.repeats, repeatStride * kVectorUnit);
    return parts;
}

}  // namespace check
}  // namespace ascend_twin
