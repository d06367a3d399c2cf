// Mmad: the cube's matrix product on L0A and L0B panels, into L0C.
#ifndef ASCEND_TWIN_CUBE_H_
#define ASCEND_TWIN_CUBE_H_

#include <cstdint>
#include <type_traits>

#include "ascend_twin/copy.h"
#include "ascend_twin/params.h"
#include "ascend_twin/tensor.h"

namespace ascend_twin {

// c (m, n) = a (m, k) b (k, n), added to c where `accumulate`. All three are fractal panels: a is
// [m1][k1][16][fractalK], b is [k1][n1][fractalK][16], c is [n1][m1][16][16].
void MatMulPanels(float* c, const float* a, const float* b, uint32_t m, uint32_t n, uint32_t k,
                  uint32_t fractalK, bool accumulate);

}  // namespace ascend_twin

namespace AscendC {

template <typename T, typename U>
inline void Mmad(const LocalTensor<T>& dst, const LocalTensor<U>& fm, const LocalTensor<U>& filter,
                 const MmadParams& params) {
    static_assert(std::is_same_v<T, float>, "the twin's Mmad accumulates in float");
    static_assert(std::is_same_v<U, half> || std::is_same_v<U, float>,
                  "the twin's Mmad multiplies half or float");
    ascend_twin::MatMulPanels(dst.Data(), fm.Panel(), filter.Panel(), params.m, params.n, params.k,
                              ascend_twin::kFractalCols<U>, !params.cmatrixInitVal);
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_CUBE_H_
