// Elementary functions for loops over UB: branch-free, so that compilers vectorise them.
#ifndef ASCEND_TWIN_VECTOR_MATH_H_
#define ASCEND_TWIN_VECTOR_MATH_H_

#include <cstdint>
#include <initializer_list>

#include "ascend_twin/core.h"
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

#if defined(__AVX512F__)

// ExpOf for sixteen, with the power of two put in by the hardware; within 1 ulp of ExpOf.
inline __m512 ExpOf(__m512 x) {
    // GCC 12 takes the unmasked forms of some for uses of an uninitialised register.
    constexpr __mmask16 kAll = 0xffff;
    // A NaN passes: max and min return their second operand then.
    x = _mm512_maskz_max_ps(kAll, _mm512_set1_ps(-104.0f), x);
    x = _mm512_maskz_min_ps(kAll, _mm512_set1_ps(89.0f), x);
    const __m512 n =
        _mm512_maskz_roundscale_ps(kAll, _mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)),
                                   _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.0f / 5040.0f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
    return _mm512_maskz_scalef_ps(kAll, _mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

#elif defined(__AVX2__) && defined(__FMA__)

// ExpOf for eights between -87 and 88, where adding n to the exponent multiplies by 2^n: the same
// bits. kHidden: or so far below that the result is 0, as hidden scores are. False, and nothing
// done, where one is outside. Several eights at a time go through the chain of operations side by
// side, for one alone has to wait for each.
template <uint32_t eights, bool kHidden>
inline bool ExpOfEights(float* dst, const float* src) {
    __m256 x[eights], p[eights], n[eights];
    __m256i exponent[eights];
    __m256 seen[eights];  // not hidden
    __m256 inside = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    for (uint32_t i = 0; i < eights; ++i) {
        x[i] = _mm256_loadu_ps(src + 8 * i);
        seen[i] = _mm256_cmp_ps(x[i], _mm256_set1_ps(-87.0f), _CMP_GE_OQ);
        __m256 served = seen[i];
        if (kHidden) {
            const __m256 gone = _mm256_cmp_ps(x[i], _mm256_set1_ps(-104.0f), _CMP_LE_OQ);
            served = _mm256_or_ps(seen[i], gone);
        }
        inside = _mm256_and_ps(inside, served);
        inside = _mm256_and_ps(inside, _mm256_cmp_ps(x[i], _mm256_set1_ps(88.0f), _CMP_LE_OQ));
        if (kHidden) x[i] = _mm256_and_ps(x[i], seen[i]);
    }
    if (_mm256_movemask_ps(inside) != 0xff) return false;
    for (uint32_t i = 0; i < eights; ++i) {
        const __m256 rounder = _mm256_set1_ps(12582912.0f);
        const __m256 shifted = _mm256_fmadd_ps(x[i], _mm256_set1_ps(1.44269504088896341f), rounder);
        // The rounder's own bits leave on the left.
        exponent[i] = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
        n[i] = _mm256_sub_ps(shifted, rounder);
    }
    for (uint32_t i = 0; i < eights; ++i) {
        x[i] = _mm256_fnmadd_ps(n[i], _mm256_set1_ps(0.693359375f), x[i]);
    }
    for (uint32_t i = 0; i < eights; ++i) {
        x[i] = _mm256_fnmadd_ps(n[i], _mm256_set1_ps(-2.12194440e-4f), x[i]);
        p[i] = _mm256_set1_ps(1.0f / 5040.0f);
    }
    for (const float next : {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f}) {
        for (uint32_t i = 0; i < eights; ++i) {
            p[i] = _mm256_fmadd_ps(p[i], x[i], _mm256_set1_ps(next));
        }
    }
    for (uint32_t i = 0; i < eights; ++i) {
        p[i] = _mm256_fmadd_ps(_mm256_mul_ps(p[i], x[i]), x[i], x[i]);
        p[i] = _mm256_add_ps(p[i], _mm256_set1_ps(1.0f));
        const __m256i bits = _mm256_add_epi32(_mm256_castps_si256(p[i]), exponent[i]);
        const __m256 result = _mm256_castsi256_ps(bits);
        _mm256_storeu_ps(dst + 8 * i, kHidden ? _mm256_and_ps(result, seen[i]) : result);
    }
    return true;
}

#endif

inline void ExpEach(float* dst, const float* src, uint32_t count) {
    uint32_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16) {
        _mm512_storeu_ps(dst + i, ExpOf(_mm512_loadu_ps(src + i)));
    }
#elif defined(__AVX2__) && defined(__FMA__)
    for (; i + 8 <= count; i += 8) {
        if (i + 32 <= count &&
            (ExpOfEights<4, false>(dst + i, src + i) || ExpOfEights<4, true>(dst + i, src + i))) {
            i += 24;
            continue;
        }
        if (ExpOfEights<1, false>(dst + i, src + i)) continue;
        ASCEND_TWIN_IVDEP
        for (uint32_t lane = i; lane < i + 8; ++lane) dst[lane] = ExpOf(src[lane]);
    }
#endif
    ASCEND_TWIN_IVDEP
    for (; i < count; ++i) dst[i] = ExpOf(src[i]);
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_VECTOR_MATH_H_
