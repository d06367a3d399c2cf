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
    if constexpr (std::is_same_v<T, int32_t>) {
        static_assert(std::is_same_v<U, int8_t> || std::is_same_v<U, int4b_t>,
                      "the twin's Mmad multiplies int8_t or int4b_t into int32_t");
        ascend_twin::CoreMemory* memory = ascend_twin::CurrentContext().memory;
        const auto fractalOf = [](const float* at, const float* base) {
            return static_cast<uint32_t>(reinterpret_cast<const uint8_t*>(at) -
                                         reinterpret_cast<const uint8_t*>(base)) /
                   ascend_twin::kFractalBytes;
        };
        ascend_twin::MultiplyIntegers(
            memory, {dst.Data(), fractalOf(fm.Panel(), memory->l0a),
                     fractalOf(filter.Panel(), memory->l0b.panels), params.m, params.n, params.k,
                     std::is_same_v<U, int8_t> ? 8u : 4u, !params.cmatrixInitVal});
    } else {
        static_assert(std::is_same_v<T, float>, "the twin's Mmad accumulates in float or int32_t");
        static_assert(
            std::is_same_v<U, half> || std::is_same_v<U, bfloat16_t> || std::is_same_v<U, float>,
            "the twin's Mmad multiplies half, bfloat16_t or float");
        constexpr uint32_t elems = ascend_twin::kFractalBytes / sizeof(U);
        ascend_twin::CoreMemory* memory = ascend_twin::CurrentContext().memory;
        const uint32_t b = static_cast<uint32_t>(filter.Panel() - memory->l0b.panels) / elems;
        ascend_twin::AddProduct(dst.Data(), {fm.Panel(), b, params.k}, params.m, params.n,
                                ascend_twin::kFractalCols<U>, !params.cmatrixInitVal);
    }
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_CUBE_H_
