// Cast between float types and int32, int8 and int4b_t. Narrowing rounds to nearest, ties to even,
// and saturates.
#ifndef ASCEND_TWIN_INTEGER_CASTS_H_
#define ASCEND_TWIN_INTEGER_CASTS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "ascend_twin/core.h"
#include "ascend_twin/dtypes.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ascend_twin {

// The nearest integer between low and high; low of a NaN.
inline int32_t NearestInteger(float value, float low, float high) {
    const float above = value > low ? value : low;
    const float inside = above < high ? above : high;
    return static_cast<int32_t>(std::nearbyint(inside));
}

inline void CastCount(int32_t* dst, const float* src, uint32_t count) {
    // The largest float below 2^31; saturation to it is 127 short of the hardware's.
    constexpr float kLow = -2147483648.0f, kHigh = 2147483520.0f;
    uint32_t i = 0;
#if defined(__AVX2__)
    for (; i + 8 <= count; i += 8) {
        const __m256 inside = _mm256_min_ps(
            _mm256_max_ps(_mm256_loadu_ps(src + i), _mm256_set1_ps(kLow)), _mm256_set1_ps(kHigh));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + i), _mm256_cvtps_epi32(inside));
    }
#endif
    for (; i < count; ++i) dst[i] = NearestInteger(src[i], kLow, kHigh);
}

inline void CastCount(float* dst, const int32_t* src, uint32_t count) {
    ASCEND_TWIN_IVDEP
    for (uint32_t i = 0; i < count; ++i) dst[i] = static_cast<float>(src[i]);
}

constexpr uint32_t kCastChunk = 64;

inline void CastCount(half* dst, const int8_t* src, uint32_t count) {
    float wide[kCastChunk];
    uint32_t first = 0;
#if defined(__AVX2__) && defined(__F16C__)
    for (; first + 8 <= count; first += 8) {
        const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(src + first));
        const __m256 floats = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(dst + first),
                         _mm256_cvtps_ph(floats, _MM_FROUND_TO_NEAREST_INT));
    }
#endif
    for (uint32_t done = first; done < count; done += kCastChunk) {
        const uint32_t live = std::min(kCastChunk, count - done);
        for (uint32_t i = 0; i < live; ++i) wide[i] = static_cast<float>(src[done + i]);
        FromFloats(dst + done, wide, live);
    }
}

#if defined(__AVX2__) && defined(__F16C__)

// 32 halves to the nearest integers between low and high, as bytes.
inline __m256i NearestBytes(const half* from, float low, float high) {
    __m256i integers[4];
    for (uint32_t i = 0; i < 4; ++i) {
        const auto* bits = reinterpret_cast<const __m128i*>(from + 8 * i);
        const __m256 wide = _mm256_cvtph_ps(_mm_loadu_si128(bits));
        integers[i] = _mm256_cvtps_epi32(
            _mm256_min_ps(_mm256_max_ps(wide, _mm256_set1_ps(low)), _mm256_set1_ps(high)));
    }
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(integers[0], integers[1]),
                                             _mm256_packs_epi32(integers[2], integers[3]));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

#endif

inline void CastCount(int8_t* dst, const half* src, uint32_t count) {
    float wide[kCastChunk];
    uint32_t first = 0;
#if defined(__AVX2__) && defined(__F16C__)
    for (; first + 32 <= count; first += 32) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + first),
                            NearestBytes(src + first, -128.0f, 127.0f));
    }
#endif
    for (uint32_t done = first; done < count; done += kCastChunk) {
        const uint32_t live = std::min(kCastChunk, count - done);
        ToFloats(wide, src + done, live);
        int8_t* to = dst + done;
        for (uint32_t i = 0; i < live; ++i) {
            to[i] = static_cast<int8_t>(NearestInteger(wide[i], -128.0f, 127.0f));
        }
    }
}

inline int32_t LowNibble(uint8_t pair) { return ((pair & 15) ^ 8) - 8; }
inline int32_t HighNibble(uint8_t pair) { return ((pair >> 4) ^ 8) - 8; }

inline void CastCount(half* dst, const AscendC::int4b_t* src, uint32_t count) {
    // half(v) of -8 to 7 has nothing in its low byte; high bytes by nibble.
    constexpr uint8_t kHigh[16] = {0x00, 0x3c, 0x40, 0x42, 0x44, 0x45, 0x46, 0x47,
                                   0xc8, 0xc7, 0xc6, 0xc5, 0xc4, 0xc2, 0xc0, 0xbc};
    uint32_t i = 0;
#if defined(__AVX2__)
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kHigh));
    const __m128i mask = _mm_set1_epi8(15), zero = _mm_setzero_si128();
    for (; i + 32 <= count; i += 32) {
        const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i / 2));
        const __m128i low = _mm_shuffle_epi8(table, _mm_and_si128(pairs, mask));
        const __m128i high = _mm_shuffle_epi8(table, _mm_and_si128(_mm_srli_epi16(pairs, 4), mask));
        const __m128i first = _mm_unpacklo_epi8(low, high), second = _mm_unpackhi_epi8(low, high);
        auto* to = reinterpret_cast<__m128i*>(dst + i);
        _mm_storeu_si128(to, _mm_unpacklo_epi8(zero, first));
        _mm_storeu_si128(to + 1, _mm_unpackhi_epi8(zero, first));
        _mm_storeu_si128(to + 2, _mm_unpacklo_epi8(zero, second));
        _mm_storeu_si128(to + 3, _mm_unpackhi_epi8(zero, second));
    }
#endif
    for (; i < count; ++i) {
        const uint8_t pair = src[i / 2].pair;
        const uint32_t nibble = i % 2 == 0 ? pair & 15u : pair >> 4;
        dst[i].bits = static_cast<uint16_t>(kHigh[nibble] << 8);
    }
}

// `count` is even.
inline void CastCount(AscendC::int4b_t* dst, const half* src, uint32_t count) {
    int8_t bytes[kCastChunk];
    uint32_t first = 0;
#if defined(__AVX2__) && defined(__F16C__)
    // Bytes 2 i and 2 i + 1 to one: their low nibbles as 1 and 16 times them, added.
    const __m256i nibble = _mm256_set1_epi8(15), weights = _mm256_set1_epi16(0x1001);
    for (; first + 64 <= count; first += 64) {
        __m256i pairs[2];
        for (uint32_t i = 0; i < 2; ++i) {
            const __m256i values = NearestBytes(src + first + 32 * i, -8.0f, 7.0f);
            pairs[i] = _mm256_maddubs_epi16(_mm256_and_si256(values, nibble), weights);
        }
        const __m256i packed =
            _mm256_permute4x64_epi64(_mm256_packus_epi16(pairs[0], pairs[1]), 0xd8);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(dst + first / 2), packed);
    }
#endif
    for (uint32_t done = first; done < count; done += kCastChunk) {
        const uint32_t live = std::min(kCastChunk, count - done);
        CastCount(bytes, src + done, live);
        for (uint32_t i = 0; i < live; ++i) {
            bytes[i] = std::min<int8_t>(7, std::max<int8_t>(-8, bytes[i]));
        }
        for (uint32_t i = 0; i < live / 2; ++i) {
            dst[done / 2 + i].pair =
                static_cast<uint8_t>((bytes[2 * i] & 15) | (bytes[2 * i + 1] * 16));
        }
    }
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_INTEGER_CASTS_H_
