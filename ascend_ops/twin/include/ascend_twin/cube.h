// Mmad: the cube's matrix product on L0A and L0B panels, into L0C.
#ifndef ASCEND_TWIN_CUBE_H_
#define ASCEND_TWIN_CUBE_H_

#include <cstdint>
#include <type_traits>

#include "ascend_twin/copy.h"
#include "ascend_twin/params.h"
#include "ascend_twin/tensor.h"

namespace AscendC {

template <typename T, typename U>
inline void Mmad(const LocalTensor<T>& dst, const LocalTensor<U>& fm, const LocalTensor<U>& filter,
                 const MmadParams& params) {
    static_assert(std::is_same_v<T, float>, "the twin's Mmad accumulates in float");
    static_assert(
        std::is_same_v<U, half> || std::is_same_v<U, bfloat16_t> || std::is_same_v<U, float>,
        "the twin's Mmad multiplies half, bfloat16_t or float");
    constexpr uint32_t elems = ascend_twin::kFractalBytes / sizeof(U);
    ascend_twin::CoreMemory* memory = ascend_twin::CurrentContext().memory;
    const uint32_t b = static_cast<uint32_t>(filter.Panel() - memory->l0b.panels) / elems;
    ascend_twin::AddProduct(dst.Data(), {fm.Panel(), b, params.k}, params.m, params.n,
                            ascend_twin::kFractalCols<U>, !params.cmatrixInitVal);
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_CUBE_H_
