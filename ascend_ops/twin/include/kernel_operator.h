// The Ascend C subset of the CPU twin. Kernels include this header and nothing else: on an NPU the
// toolkit's header of the same name is found, here it is this one. See ../README.md.
#ifndef ASCEND_TWIN_KERNEL_OPERATOR_H_
#define ASCEND_TWIN_KERNEL_OPERATOR_H_

#include "ascend_twin/copy.h"
#include "ascend_twin/core.h"
#include "ascend_twin/cube.h"
#include "ascend_twin/dtypes.h"
#include "ascend_twin/params.h"
#include "ascend_twin/reduce.h"
#include "ascend_twin/sync.h"
#include "ascend_twin/tensor.h"
#include "ascend_twin/vector.h"

#endif  // ASCEND_TWIN_KERNEL_OPERATOR_H_
