// The twin's memories as a tiling's limits.
#include "ascend_ops/twin_limits.h"

#include "launch.h"  // and with it the sizes of core.h
#include "thread_pool.h"
#include "twin_mode.h"

namespace ascend_ops {

CoreLimits TwinLimits() {
    CoreLimits limits;
    limits.numCores = ascend_twin::NumThreads();
    if (TwinTilesAsHardware()) return limits;
    limits.ubBytes = ascend_twin::kUbBytes - 8 * 1024;  // what instructions take on dav-2201
    limits.l1Bytes = ascend_twin::kL1Bytes;
    limits.l0aBytes = ascend_twin::kL0aBytes;
    limits.l0bBytes = ascend_twin::kL0bBytes;
    limits.l0cBytes = ascend_twin::kL0cBytes;
    limits.overlap = false;
    limits.rowsWanted = 256;
    return limits;
}

}  // namespace ascend_ops
