// Elementary functions for loops over UB: branch-free, so that compilers vectorise them.
#ifndef ASCEND_TWIN_VECTOR_MATH_H_
#define ASCEND_TWIN_VECTOR_MATH_H_

#include <cstdint>

#include "ascend_twin/dtypes.h"

namespace ascend_twin {

// exp(x) within 1.1 ulps: 2^n * exp(r) with |r| <= ln(2)/2 and a Taylor polynomial of degree 7.
// -inf gives 0, overflow gives inf, NaN stays NaN, subnormal results are kept.
inline float ExpOf(float x) {
    constexpr float kLog2E = 1.44269504088896341f;
    constexpr float kLn2High = 0.693359375f;
    constexpr float kLn2Low = -2.12194440e-4f;
    constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const float low = x < -104.0f ? -104.0f : x;
    const float clamped = low > 89.0f ? 89.0f : low;
    const float shifted = clamped * kLog2E + kRounder;
    const float n = shifted - kRounder;
    const float r = (clamped - n * kLn2High) - n * kLn2Low;
    float p = 1.0f / 5040.0f;
    p = p * r + 1.0f / 720.0f;
    p = p * r + 1.0f / 120.0f;
    p = p * r + 1.0f / 24.0f;
    p = p * r + 1.0f / 6.0f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    const int32_t exponent = static_cast<int32_t>(BitsOf(shifted) - BitsOf(kRounder));
    const int32_t firstHalf = exponent >> 1;
    const int32_t secondHalf = exponent - firstHalf;
    const float scale1 = FloatOf(static_cast<uint32_t>(firstHalf + 127) << 23);
    const float scale2 = FloatOf(static_cast<uint32_t>(secondHalf + 127) << 23);
    return p * scale1 * scale2;
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_VECTOR_MATH_H_
