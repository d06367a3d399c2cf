// Products of few rows, which decoding consists of.
#ifndef ASCEND_TWIN_FAST_FEW_ROWS_H_
#define ASCEND_TWIN_FAST_FEW_ROWS_H_

#include <cstdint>

#include "matmul.h"

namespace ascend_twin {

// Computes a product of up to 16 rows as MatMul does; false, and nothing done, where that is not
// the quicker way.
bool MultiplyFewRows(const ProductTarget& target, const PendingProduct& product, uint32_t m,
                     RightOperand& right);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_FEW_ROWS_H_
