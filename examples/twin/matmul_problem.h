// a and b of the products, and what a b^T is.
#ifndef EXAMPLES_TWIN_MATMUL_PROBLEM_H_
#define EXAMPLES_TWIN_MATMUL_PROBLEM_H_

#include "example.h"
#include "matmul_tile.h"

struct MatmulProblem {
    explicit MatmulProblem(uint32_t rows)
        : a(Numbers<half>(rows * kK, 1)), b(Numbers<half>(kN * kK, 2)), want(rows * kN) {
        for (uint32_t m = 0; m < rows; ++m) {
            for (uint32_t n = 0; n < kN; ++n) {
                float& sum = want[m * kN + n];
                for (uint32_t k = 0; k < kK; ++k) {
                    sum += static_cast<float>(a[m * kK + k]) * static_cast<float>(b[n * kK + k]);
                }
            }
        }
    }
    Array<half> a, b;
    Array<float> want;
};

#endif  // EXAMPLES_TWIN_MATMUL_PROBLEM_H_
