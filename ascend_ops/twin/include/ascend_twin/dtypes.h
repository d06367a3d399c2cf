// Element types of Ascend C on a CPU: half and bfloat16_t, and their conversions to and from float.
#ifndef ASCEND_TWIN_DTYPES_H_
#define ASCEND_TWIN_DTYPES_H_

#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace ascend_twin {

inline uint32_t BitsOf(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
}

inline float FloatOf(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
}

// Exact; subnormals, infinities and NaN included.
inline float HalfBitsToFloat(uint16_t bits) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return FloatOf(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
    if (magnitude >= 0x0400u) return FloatOf(sign | ((magnitude << 13) + (112u << 23)));
    const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
    return FloatOf(sign | BitsOf(subnormal));
}

// Rounds to nearest, ties to even; overflow becomes infinity, NaN stays NaN.
inline uint16_t FloatToHalfBits(float value) {
    const uint32_t bits = BitsOf(value);
    const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        // Adding 0.5 lines the last kept bit (2^-24) up with the last bit of the sum.
        const float rounded = FloatOf(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (BitsOf(rounded) - BitsOf(0.5f)));
    }
    const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13));
}

inline void HalfToFloat(float* dst, const uint16_t* src, uint32_t count) {
    uint32_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= count; i += 16) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i));
        _mm512_storeu_ps(dst + i, _mm512_maskz_cvtph_ps(0xffff, bits));
    }
#endif
#if defined(__F16C__)
    for (; i + 8 <= count; i += 8) {
        const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i));
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(bits));
    }
#elif defined(__ARM_NEON)
    for (; i + 4 <= count; i += 4) {
        const float16x4_t bits = vreinterpret_f16_u16(vld1_u16(src + i));
        vst1q_f32(dst + i, vcvt_f32_f16(bits));
    }
#endif
    for (; i < count; ++i) dst[i] = HalfBitsToFloat(src[i]);
}

inline void FloatToHalf(uint16_t* dst, const float* src, uint32_t count) {
    uint32_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= count; i += 8) {
        const __m128i bits = _mm256_cvtps_ph(_mm256_loadu_ps(src + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + i), bits);
    }
#elif defined(__ARM_NEON)
    for (; i + 4 <= count; i += 4) {
        vst1_u16(dst + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(src + i))));
    }
#endif
    for (; i < count; ++i) dst[i] = FloatToHalfBits(src[i]);
}

// bfloat16 is the upper half of a float: widening is exact.
inline void Bfloat16ToFloat(float* dst, const uint16_t* src, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) dst[i] = FloatOf(static_cast<uint32_t>(src[i]) << 16);
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline uint16_t FloatToBfloat16Bits(float value) {
    const uint32_t bits = BitsOf(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const bool isNan = (bits & 0x7fffffffu) > 0x7f800000u;
    return static_cast<uint16_t>(isNan ? (bits >> 16) | 0x40u : rounded);
}

inline void FloatToBfloat16(uint16_t* dst, const float* src, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) dst[i] = FloatToBfloat16Bits(src[i]);
}

}  // namespace ascend_twin

// IEEE binary16 storage, as a kernel sees it: arithmetic goes through vector calls, not operators.
struct half {
    uint16_t bits;

    half() = default;
    explicit half(float value) : bits(ascend_twin::FloatToHalfBits(value)) {}
    explicit operator float() const { return ascend_twin::HalfBitsToFloat(bits); }
};
static_assert(sizeof(half) == 2, "half is two bytes");

// bfloat16 storage: there is no vector arithmetic on it, only casts and matrix products.
struct bfloat16_t {
    uint16_t bits;

    bfloat16_t() = default;
    explicit bfloat16_t(float value) : bits(ascend_twin::FloatToBfloat16Bits(value)) {}
    explicit operator float() const {
        return ascend_twin::FloatOf(static_cast<uint32_t>(bits) << 16);
    }
};
static_assert(sizeof(bfloat16_t) == 2, "bfloat16_t is two bytes");

namespace AscendC {

// Two values of 4 bits a byte, in two's complement, the first in the low nibble. Counts and offsets
// of tensors count values, so that what follows from sizeof does not hold.
struct int4b_t {
    uint8_t pair;
};

}  // namespace AscendC

namespace ascend_twin {

// Bytes of `count` elements.
template <typename T>
constexpr uint64_t BytesOf(uint64_t count) {
    return count * sizeof(T);
}
template <>
constexpr uint64_t BytesOf<AscendC::int4b_t>(uint64_t count) {
    return count / 2;
}

// `count` elements as floats, and back, rounded to nearest, ties to even.
inline void ToFloats(float* dst, const half* src, uint32_t count) {
    HalfToFloat(dst, &src->bits, count);
}
inline void ToFloats(float* dst, const bfloat16_t* src, uint32_t count) {
    Bfloat16ToFloat(dst, &src->bits, count);
}
inline void FromFloats(half* dst, const float* src, uint32_t count) {
    FloatToHalf(&dst->bits, src, count);
}
inline void FromFloats(bfloat16_t* dst, const float* src, uint32_t count) {
    FloatToBfloat16(&dst->bits, src, count);
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_DTYPES_H_
