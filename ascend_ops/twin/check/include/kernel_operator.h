// The Ascend C subset of the twin's check mode: the same names as the fast twin's header of this
// name, and every call looks at what it is given before the fast twin's arithmetic does the work.
#ifndef ASCEND_TWIN_CHECK_KERNEL_OPERATOR_H_
#define ASCEND_TWIN_CHECK_KERNEL_OPERATOR_H_

#include "ascend_twin_check/copy.h"
#include "ascend_twin_check/cube.h"
#include "ascend_twin_check/literal.h"
#include "ascend_twin_check/params.h"
#include "ascend_twin_check/reduce.h"
#include "ascend_twin_check/sync.h"
#include "ascend_twin_check/tensor.h"
#include "ascend_twin_check/vector.h"

#endif  // ASCEND_TWIN_CHECK_KERNEL_OPERATOR_H_
