// The pipe-time model: how long a call would take on dav-2201 if its pipe ran at its peak. Nothing
// here is fitted; see docs/twin.md for where each number comes from and what is left out.
#ifndef ASCEND_TWIN_CHECK_TIMING_H_
#define ASCEND_TWIN_CHECK_TIMING_H_

#include <cstdint>

#include "ascend_twin_check/operation.h"

namespace ascend_twin {
namespace check {

constexpr double kClockGhz = 1.8;
constexpr double kModelCores = 24;
constexpr double kGmBytesPerSecond = 1.6e12;  // of all cores together
constexpr double kL2BytesPerSecond = 7.0e12;

// Cycles of a call. `workspace`: its side in GM is workspace, which stays in L2.
double CyclesOf(const Operation& operation, bool workspace);

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_TIMING_H_
