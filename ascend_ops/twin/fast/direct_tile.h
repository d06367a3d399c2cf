// A register tile that widens its right operand as it loads it: for so few rows that a panel would
// hardly be used again.
#ifndef ASCEND_TWIN_FAST_DIRECT_TILE_H_
#define ASCEND_TWIN_FAST_DIRECT_TILE_H_

#include <algorithm>
#include <cstdint>

#include "register_tile.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ascend_twin {

// kLanes elements of 16 bits, as floats.
inline Vector LoadWide(const half* from) {
#if defined(__AVX512F__)
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return reinterpret_cast<Vector>(_mm512_maskz_cvtph_ps(0xffff, bits));
#elif defined(__AVX2__) && defined(__F16C__)
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return reinterpret_cast<Vector>(_mm256_cvtph_ps(bits));
#else
    float floats[kLanes];
    ToFloats(floats, from, kLanes);
    return Load(floats);
#endif
}

inline Vector LoadWide(const bfloat16_t* from) {
#if defined(__AVX512F__)
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, bits);
    return reinterpret_cast<Vector>(_mm512_maskz_slli_epi32(0xffff, wide, 16));
#elif defined(__AVX2__)
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return reinterpret_cast<Vector>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
#else
    float floats[kLanes];
    ToFloats(floats, from, kLanes);
    return Load(floats);
#endif
}

// c (rows, 16) = left right; rows `done` and on of the left operand. `resume`: c holds the sum so
// far, which goes on as if it had never left the registers. `slices` are the right operand's, rows
// of k with 16 columns inside.
template <uint32_t rows, typename T>
void DirectTile(const ProductTarget& c, const LeftPiece left, const FractalView* slices,
                uint32_t done, bool resume) {
    constexpr uint32_t vectors = kVectorsPerFractal;
    const uint32_t pitch = left.rowPitch;
    const float* a = left.data + done * pitch;
    Vector acc[rows][vectors];
    for (uint32_t r = 0; r < rows; ++r) {
        const float* from = c.data + static_cast<uint64_t>(r) * c.rowPitch;
        for (uint32_t v = 0; v < vectors; ++v) {
            acc[r][v] = resume ? Load(from + v * kLanes) : Vector{};
        }
    }
    for (uint32_t k0 = 0; k0 < left.k; k0 += kCols, a += left.sliceStep, ++slices) {
        const uint32_t depth = std::min(kCols, left.k - k0);
        const uint8_t* b = slices->rows;
        for (uint32_t k = 0; k < depth; ++k, b += slices->pitch) {
            Vector bRow[vectors];
            for (uint32_t v = 0; v < vectors; ++v) {
                bRow[v] = LoadWide(reinterpret_cast<const T*>(b) + v * kLanes);
            }
            for (uint32_t r = 0; r < rows; ++r) {
                const Vector scalar = Broadcast(a[r * pitch + k]);
                for (uint32_t v = 0; v < vectors; ++v) acc[r][v] += scalar * bRow[v];
            }
        }
    }
    for (uint32_t r = 0; r < rows; ++r) {
        for (uint32_t v = 0; v < vectors; ++v) {
            Store(c.data + static_cast<uint64_t>(r) * c.rowPitch + v * kLanes, acc[r][v]);
        }
    }
}

template <typename T>
void DirectTileOfRows(uint32_t rows, const ProductTarget& c, const LeftPiece& left,
                      const FractalView* slices, uint32_t done, bool resume) {
    switch (rows) {
        case 1:
            return DirectTile<1, T>(c, left, slices, done, resume);
        case 2:
            return DirectTile<2, T>(c, left, slices, done, resume);
        case 3:
            return DirectTile<3, T>(c, left, slices, done, resume);
        case 4:
            return DirectTile<4, T>(c, left, slices, done, resume);
        case 5:
            return DirectTile<5, T>(c, left, slices, done, resume);
        case 6:
            return DirectTile<6, T>(c, left, slices, done, resume);
        case 7:
            return DirectTile<7, T>(c, left, slices, done, resume);
        default:
            return DirectTile<8, T>(c, left, slices, done, resume);
    }
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_DIRECT_TILE_H_
