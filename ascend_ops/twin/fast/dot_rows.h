// Products of very few rows whose right operand are packed fractals of half: weights, while
// decoding.
#ifndef ASCEND_TWIN_FAST_DOT_ROWS_H_
#define ASCEND_TWIN_FAST_DOT_ROWS_H_

#include <cstdint>

#include "matmul.h"

namespace ascend_twin {

// Computes a product of up to 4 rows as MatMul does, each sum along the 32 bytes of a fractal's
// row, so that nothing is turned; false, and nothing done, where the right operand lies otherwise.
bool MultiplyDotRows(const ProductTarget& target, const PendingProduct& product, uint32_t m,
                     const RightOperand& right);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_DOT_ROWS_H_
