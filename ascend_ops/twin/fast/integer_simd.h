// Steps of integer products on AVX2. Compilers spill accumulators when they see through these, so
// each is one statement of assembly whose registers they choose.
#ifndef ASCEND_TWIN_FAST_INTEGER_SIMD_H_
#define ASCEND_TWIN_FAST_INTEGER_SIMD_H_

#if defined(__AVX2__)

#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace ascend_twin {

// 32 bytes, wherever they lie.
struct Bytes32 {
    uint8_t byte[32];
} __attribute__((packed));

inline const Bytes32& At(const void* from) { return *static_cast<const Bytes32*>(from); }

inline __m256i LoadBytes32(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

// sums (16 of 16 bits) += pairs of unsigned bytes times signed ones in memory.
inline void AddPairs(__m256i* sums, __m256i unsignedBytes, const void* signedBytes) {
    __m256i products;
    asm("vpmaddubsw %[s], %[u], %[p]\n\tvpaddw %[p], %[sums], %[sums]"
        : [sums] "+x"(*sums), [p] "=&x"(products)
        : [u] "x"(unsignedBytes), [s] "m"(At(signedBytes)));
}

// sums (8 of 32 bits) += pairs of int16 times those in memory.
inline void AddWidePairs(__m256i* sums, __m256i left, const void* right) {
    __m256i products;
    asm("vpmaddwd %[r], %[l], %[p]\n\tvpaddd %[p], %[sums], %[sums]"
        : [sums] "+x"(*sums), [p] "=&x"(products)
        : [l] "x"(left), [r] "m"(At(right)));
}

// Two vectors of unsigned bytes by one quad of signed ones, in every lane.
inline void AddQuad(__m256i* first, __m256i* second, __m256i left, __m256i right,
                    const void* quad) {
    __m256i q, products;
    asm("vpbroadcastd %[quad], %[q]\n\t"
        "vpmaddubsw %[q], %[left], %[p]\n\t"
        "vpmaddubsw %[q], %[right], %[q]\n\t"
        "vpaddw %[p], %[first], %[first]\n\t"
        "vpaddw %[q], %[second], %[second]"
        : [first] "+x"(*first), [second] "+x"(*second), [q] "=&x"(q), [p] "=&x"(products)
        : [left] "x"(left), [right] "x"(right), [quad] "m"(*static_cast<const int32_t*>(quad)));
}

// Two vectors of int16 by one pair of them, in every lane.
inline void AddWideQuad(__m256i* first, __m256i* second, __m256i left, __m256i right,
                        const void* pair) {
    __m256i q, products;
    asm("vpbroadcastd %[pair], %[q]\n\t"
        "vpmaddwd %[q], %[left], %[p]\n\t"
        "vpmaddwd %[q], %[right], %[q]\n\t"
        "vpaddd %[p], %[first], %[first]\n\t"
        "vpaddd %[q], %[second], %[second]"
        : [first] "+x"(*first), [second] "+x"(*second), [q] "=&x"(q), [p] "=&x"(products)
        : [left] "x"(left), [right] "x"(right), [pair] "m"(*static_cast<const int32_t*>(pair)));
}

// total (8 of 32 bits) += sums (16 of 16 bits), neighbours added up.
inline void Widen(__m256i* total, __m256i sums, const Bytes32& ones) {
    asm("vpmaddwd %[ones], %[sums], %[sums]\n\tvpaddd %[sums], %[total], %[total]"
        : [total] "+x"(*total), [sums] "+x"(sums)
        : [ones] "m"(ones));
}

// The sums of the eight lanes of four vectors.
inline __m128i SumsOfFour(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
}

}  // namespace ascend_twin

#endif  // __AVX2__

#endif  // ASCEND_TWIN_FAST_INTEGER_SIMD_H_
