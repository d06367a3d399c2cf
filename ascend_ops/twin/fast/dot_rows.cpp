// A vector is eight columns of k of one output channel; channels are added up across at the end.
#include "dot_rows.h"

#include <algorithm>

#include "panels.h"
#include "register_tile.h"

#if defined(__AVX2__) && defined(__F16C__) && defined(__FMA__)
#include <immintrin.h>

namespace ascend_twin {
namespace {

constexpr uint32_t kMostRows = 4;
constexpr uint32_t kStreams = 4;         // stripes that are read in turn
constexpr uint32_t kStreamFractals = 4;  // of each, at a turn
constexpr uint32_t kAheadBytes = kStreamFractals * kFractalBytes;

// Whether all of B are fractals of half by rows of n that follow one another along k in GM: packed
// weights. Attention's keys lie otherwise, and are summed alike whatever the number of rows.
bool ArePacked(const PendingProduct& p, const RightOperand& right) {
    const uint8_t* l1 = CurrentContext().memory->l1;
    const uint32_t stripes = Fractals(p.n, kCols);
    for (uint32_t i = 0; i < p.numParts; ++i) {
        const uint32_t first = p.parts[i].b;
        const uint32_t end = first + Fractals(p.parts[i].k, kCols) * stripes;
        if (end - first < 2 * stripes) return false;
        for (uint32_t at = first; at < end; ++at) {
            if (right.form[at] != FractalForm::kHalfRowsN || right.pitch[at] != kRowBytes) {
                return false;
            }
            const auto* source = static_cast<const uint8_t*>(right.source[at]);
            if (source >= l1 && source < l1 + kL1Bytes) return false;
            if (at + stripes < end && right.source[at + stripes] != source + kFractalBytes) {
                return false;
            }
        }
    }
    return true;
}

// lanes[c][r] += `rows` rows of A times `columns` columns of some fractals, from byte `offset` of
// each on.
template <uint32_t rows, uint32_t columns>
void DotTile(const void* const* right, uint32_t step, uint32_t offset, uint32_t depth,
             const float* a, __m256* lanes) {
    __m256 acc[rows][columns];
#pragma GCC unroll 8
    for (uint32_t at = 0; at < rows * columns; ++at) acc[at % rows][at / rows] = lanes[at];
    // The next turn's lines, one after the other: the order that prefetchers know.
    const auto* ahead = static_cast<const char*>(right[0]) + kAheadBytes + offset * depth;
    for (uint32_t f = 0; f < depth; ++f, a += kCols * kCols) {
        const auto* fractal = static_cast<const uint8_t*>(right[f * step]) + offset;
        for (uint32_t line = 0; line < columns * kRowBytes; line += 64, ahead += 64) {
            _mm_prefetch(ahead, _MM_HINT_T0);
        }
#pragma GCC unroll 4
        for (uint32_t c = 0; c < columns; ++c) {
            const auto* half8 = reinterpret_cast<const __m128i*>(fractal + c * kRowBytes);
            const __m256 first = _mm256_cvtph_ps(_mm_loadu_si128(half8));
            const __m256 second = _mm256_cvtph_ps(_mm_loadu_si128(half8 + 1));
#pragma GCC unroll 4
            for (uint32_t r = 0; r < rows; ++r) {
                acc[r][c] = _mm256_fmadd_ps(first, _mm256_loadu_ps(a + r * kCols), acc[r][c]);
                acc[r][c] = _mm256_fmadd_ps(second, _mm256_loadu_ps(a + r * kCols + 8), acc[r][c]);
            }
        }
    }
#pragma GCC unroll 8
    for (uint32_t at = 0; at < rows * columns; ++at) lanes[at] = acc[at % rows][at / rows];
}

// Columns [0, 4) of `to` = or += the sums of four vectors, `rows` apart.
void PutFour(float* to, const __m256* lanes, uint32_t rows, bool accumulate) {
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(lanes[0], lanes[rows]),
                                        _mm256_hadd_ps(lanes[2 * rows], lanes[3 * rows]));
    __m128 sums = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
    if (accumulate) sums = _mm_add_ps(_mm_loadu_ps(to), sums);
    _mm_storeu_ps(to, sums);
}

template <uint32_t rows, uint32_t columns>
void DotRows(const ProductTarget& target, const PendingProduct& p, uint32_t m,
             const RightOperand& right) {
    const uint32_t stripes = Fractals(p.n, kCols);
    __m256 lanes[kStreams * kCols * rows];
    for (uint32_t first = 0; first < stripes; first += kStreams) {
        const uint32_t count = std::min(kStreams, stripes - first);
        std::fill_n(lanes, count * kCols * rows, _mm256_setzero_ps());
        for (uint32_t part = 0; part < p.numParts; ++part) {
            const uint32_t deep = Fractals(p.parts[part].k, kCols);
            for (uint32_t f = 0; f < deep; f += kStreamFractals) {
                const uint32_t depth = std::min(kStreamFractals, deep - f);
                const float* a = p.parts[part].a + f * kCols * kCols;
                for (uint32_t i = 0; i < count; ++i) {
                    const void* const* sources =
                        right.source + p.parts[part].b + f * stripes + first + i;
                    for (uint32_t column = 0; column < kCols; column += columns) {
                        DotTile<rows, columns>(sources, stripes, column * kRowBytes, depth, a,
                                               lanes + (i * kCols + column) * rows);
                    }
                }
            }
        }
        for (uint32_t i = 0; i < count * kCols; i += 4) {
            for (uint32_t r = 0; r < m; ++r) {
                float* to = target.data + uint64_t{r} * target.rowPitch +
                            uint64_t{first + i / kCols} * target.colFractalStep + i % kCols;
                PutFour(to, lanes + i * rows + r, rows, p.accumulate);
            }
        }
    }
}

// Whether each part ends where a fractal does: what lies behind it is not to be read.
bool AreWhole(const PendingProduct& p) {
    return std::all_of(p.parts, p.parts + p.numParts,
                       [](const ProductPart& part) { return part.k % kCols == 0; });
}

}  // namespace

bool MultiplyDotRows(const ProductTarget& target, const PendingProduct& product, uint32_t m,
                     const RightOperand& right) {
    if (m > kMostRows || product.fractalK != kCols) return false;
    if (!AreWhole(product) || !ArePacked(product, right)) return false;
    if (m > 2) {
        DotRows<4, 2>(target, product, m, right);
    } else if (m > 1) {
        DotRows<2, 4>(target, product, m, right);
    } else {
        DotRows<1, 4>(target, product, m, right);
    }
    return true;
}

}  // namespace ascend_twin

#else

namespace ascend_twin {

bool MultiplyDotRows(const ProductTarget& /*target*/, const PendingProduct& /*product*/,
                     uint32_t /*m*/, const RightOperand& /*right*/) {
    return false;
}

}  // namespace ascend_twin

#endif
