// Integer helpers of the host tilings. They are C++11, as the op_host of a CANN project is built.
#ifndef ASCEND_OPS_COMMON_OP_HOST_TILING_MATH_H_
#define ASCEND_OPS_COMMON_OP_HOST_TILING_MATH_H_

#include <algorithm>
#include <cstdint>

namespace ascend_ops {

template <typename T>
T Clamp(T value, T least, T most) {
    return std::max(least, std::min(value, most));
}

// The greatest common divisor; that of 0 and x is x.
inline uint32_t Gcd(uint32_t a, uint32_t b) {
    while (b != 0) {
        const uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

}  // namespace ascend_ops

#endif  // ASCEND_OPS_COMMON_OP_HOST_TILING_MATH_H_
