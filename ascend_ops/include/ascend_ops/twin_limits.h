// What the launches of this library give a core of the CPU twin.
#ifndef ASCEND_OPS_TWIN_LIMITS_H_
#define ASCEND_OPS_TWIN_LIMITS_H_

#include "ascend_ops/types.h"

namespace ascend_ops {

// A core of the fast twin: dav-2201's memories twice as large, for they are only arrays here, and Q
// tiles of twice as many rows, so that K and V are turned and widened half as often. In check mode
// dav-2201 as it is, unless told otherwise.
ASCEND_OPS_API CoreLimits TwinLimits();

}  // namespace ascend_ops

#endif  // ASCEND_OPS_TWIN_LIMITS_H_
