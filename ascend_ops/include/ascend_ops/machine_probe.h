// What the processor can do at most, for benchmarks to stand beside: measured, on the threads that
// calls use.
#ifndef ASCEND_OPS_MACHINE_PROBE_H_
#define ASCEND_OPS_MACHINE_PROBE_H_

#include <cstdint>

#include "ascend_ops/types.h"

namespace ascend_ops {

// float32 multiply-adds in registers, GFLOP/s (a multiply-add is two); about a tenth of a second.
ASCEND_OPS_API double MeasureFmaGflops();

// Reading memory in four sequential streams a thread, GB/s (1e9); `bytes` are allocated for it and
// read five times. 0 where they cannot be had.
ASCEND_OPS_API double MeasureReadGbps(uint64_t bytes);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_MACHINE_PROBE_H_
