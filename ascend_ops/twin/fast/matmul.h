// The loops behind Mmad.
#ifndef ASCEND_TWIN_FAST_MATMUL_H_
#define ASCEND_TWIN_FAST_MATMUL_H_

#include <cstdint>

#include "ascend_twin/core.h"
#include "ascend_twin/product.h"

namespace ascend_twin {

// Where a product goes: 16 x 16 squares of a row pitch, some floats apart.
struct ProductTarget {
    float* data;
    uint32_t rowPitch;        // from one row to the next
    uint32_t rowFractalStep;  // from one square to the one below
    uint32_t colFractalStep;  // from one square to the one on its right
};

// target (m, n) = the sum of the product's parts, and of what it holds where `accumulate`. n is
// rounded up to 16; of a the first `m` rows are read.
void MatMul(const ProductTarget& target, const PendingProduct& product, uint32_t m,
            RightOperand& right);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_MATMUL_H_
