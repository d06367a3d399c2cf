// Transposes of the squares that fractals consist of, in registers where the target has wide ones.
#ifndef ASCEND_TWIN_TRANSPOSE_H_
#define ASCEND_TWIN_TRANSPOSE_H_

#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ascend_twin {

// to[c][r] = from[r][c], 16 x 16 elements of 16 bits; a row of `from` every `pitch` elements.
inline void Transpose16(uint16_t* to, const uint16_t* from, uint32_t pitch) {
#if defined(__AVX2__)
    __m256i rows[16], turned[16];
    for (uint32_t i = 0; i < 16; ++i) {
        rows[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + pitch * i));
    }
    // Interleaving row i with row i + 8, four times over, turns each 128-bit half by itself.
    for (uint32_t round = 0; round < 2; ++round) {
        for (uint32_t i = 0; i < 8; ++i) {
            turned[2 * i] = _mm256_unpacklo_epi16(rows[i], rows[i + 8]);
            turned[2 * i + 1] = _mm256_unpackhi_epi16(rows[i], rows[i + 8]);
        }
        for (uint32_t i = 0; i < 8; ++i) {
            rows[2 * i] = _mm256_unpacklo_epi16(turned[i], turned[i + 8]);
            rows[2 * i + 1] = _mm256_unpackhi_epi16(turned[i], turned[i + 8]);
        }
    }
    // rows[2 i] and rows[2 i + 1] have columns i and i + 8: rows 0 to 7 of both, then 8 to 15.
    for (uint32_t i = 0; i < 8; ++i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16 * i),
                            _mm256_permute2x128_si256(rows[2 * i], rows[2 * i + 1], 0x20));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 16 * (i + 8)),
                            _mm256_permute2x128_si256(rows[2 * i], rows[2 * i + 1], 0x31));
    }
#else
    for (uint32_t c = 0; c < 16; ++c) {
        for (uint32_t r = 0; r < 16; ++r) to[c * 16 + r] = from[r * pitch + c];
    }
#endif
}

// to[c][r] = from[r][c], 8 x 8 floats; a row every `toPitch` and `fromPitch` floats.
inline void Transpose8(float* to, uint32_t toPitch, const float* from, uint32_t fromPitch) {
#if defined(__AVX2__)
    __m256 rows[8], turned[8];
    for (uint32_t i = 0; i < 4; ++i) {  // the left halves of rows i and i + 4, and the right halves
        const float* row = from + i * fromPitch;
        rows[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row)),
                                       _mm_loadu_ps(row + 4 * fromPitch), 1);
        rows[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row + 4)),
                                           _mm_loadu_ps(row + 4 * fromPitch + 4), 1);
    }
    for (uint32_t half = 0; half < 8; half += 4) {  // 4 x 4 in each 128 bits
        turned[half] = _mm256_unpacklo_ps(rows[half], rows[half + 2]);
        turned[half + 1] = _mm256_unpackhi_ps(rows[half], rows[half + 2]);
        turned[half + 2] = _mm256_unpacklo_ps(rows[half + 1], rows[half + 3]);
        turned[half + 3] = _mm256_unpackhi_ps(rows[half + 1], rows[half + 3]);
        for (uint32_t i = 0; i < 2; ++i) {
            float* row = to + (half + 2 * i) * toPitch;
            _mm256_storeu_ps(row, _mm256_unpacklo_ps(turned[half + i], turned[half + i + 2]));
            _mm256_storeu_ps(row + toPitch,
                             _mm256_unpackhi_ps(turned[half + i], turned[half + i + 2]));
        }
    }
#else
    for (uint32_t c = 0; c < 8; ++c) {
        for (uint32_t r = 0; r < 8; ++r) to[c * toPitch + r] = from[r * fromPitch + c];
    }
#endif
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_TRANSPOSE_H_
