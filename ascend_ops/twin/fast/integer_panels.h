// Products of many rows of int8, through panels in which a lane is a column.
#ifndef ASCEND_TWIN_FAST_INTEGER_PANELS_H_
#define ASCEND_TWIN_FAST_INTEGER_PANELS_H_

#include "integer_rows.h"

namespace ascend_twin {

void MultiplyBytes(const IntegerOperands& operands);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_INTEGER_PANELS_H_
