// A stripe of 16 columns becomes a panel, [k / 4][16 columns][4 bytes of k], which all rows meet,
// three at a time. Where every weight of it fits 4 bits it is kept as w + 8, 0 to 15, and products
// with signed bytes are summed in 16 bits, eight at a time; else both sides are widened to 16 bits.
#include "integer_panels.h"

#include <algorithm>
#include <cstring>

#include "ascend_twin/core.h"
#include "ascend_twin/transpose.h"
#include "integer_simd.h"

namespace ascend_twin {
namespace {

constexpr uint32_t kSide = 16;
constexpr uint32_t kRowBytes = 32;
constexpr uint32_t kQuads = kRowBytes / 4;  // of k in a fractal
constexpr uint32_t kQuadBytes = kSide * 4;  // 16 columns of one
constexpr uint32_t kFractalQuads = kQuads * kQuadBytes;
constexpr uint32_t kMaxFractals = IntegerOperand::kFractals;  // of the left operand
constexpr uint32_t kMaxDepth = 16;  // fractals of a panel: 8 KB of bytes, 16 KB of int16

// [16 columns][32 of k] to [8 quads][16 columns][4 of k].
void TurnBytes(uint8_t* to, const uint8_t* from) {
    auto* panel = reinterpret_cast<float*>(to);  // only moved
    const auto* fractal = reinterpret_cast<const float*>(from);
    Transpose8(panel, kSide, fractal, kQuads);
    Transpose8(panel + 8, kSide, fractal + 8 * kQuads, kQuads);
}

// Whether all of a stripe's weights are -8 to 7.
bool FitsNibbles(const IntegerOperands& o, uint32_t stripe, uint32_t first, uint32_t depth) {
    uint8_t outside = 0;
    for (uint32_t f = 0; f < depth; ++f) {
        const uint8_t* fractal = o.right[(first + f) * o.stripes + stripe];
        for (uint32_t i = 0; i < kSide * kRowBytes; ++i) {
            outside = static_cast<uint8_t>(outside | static_cast<uint8_t>(fractal[i] + 8));
        }
        if ((outside & 0xf0) != 0) return false;
    }
    return true;
}

const uint8_t* LeftRow(const IntegerOperands& o, uint32_t row, uint32_t fractal) {
    return o.left[row / kSide * o.depth + fractal] + row % kSide * kRowBytes;
}

#if defined(__AVX2__)

void PutSums(const IntegerOperands& o, uint32_t row, uint32_t stripe, __m256i left, __m256i right,
             bool accumulate) {
    auto* to = reinterpret_cast<__m256i*>(o.c + uint64_t{stripe} * o.stripeStep + row * kSide);
    if (accumulate) {
        left = _mm256_add_epi32(left, _mm256_loadu_si256(to));
        right = _mm256_add_epi32(right, _mm256_loadu_si256(to + 1));
    }
    _mm256_storeu_si256(to, left);
    _mm256_storeu_si256(to + 1, right);
}

// w + 8 of a stripe, [quads][16 columns][4].
void NibblePanel(const IntegerOperands& o, uint32_t stripe, uint32_t first, uint32_t depth) {
    const __m256i eight = _mm256_set1_epi8(8);
    for (uint32_t f = 0; f < depth; ++f) {
        uint8_t* to = o.columnScratch + f * kFractalQuads;
        TurnBytes(to, o.right[(first + f) * o.stripes + stripe]);
        for (uint32_t i = 0; i < kFractalQuads; i += 32) {
            auto* at = reinterpret_cast<__m256i*>(to + i);
            _mm256_store_si256(at, _mm256_add_epi8(_mm256_load_si256(at), eight));
        }
    }
}

// `rows` rows by a panel of nibbles. corrections: 8 times the sum of each row.
template <uint32_t rows>
void NibbleRows(const IntegerOperands& o, uint32_t row, uint32_t stripe, uint32_t first,
                uint32_t depth, const int32_t* corrections, bool accumulate) {
    alignas(32) static constexpr int16_t kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1,
                                                      1, 1, 1, 1, 1, 1, 1, 1};
    __m256i total[rows][2];
    for (uint32_t r = 0; r < rows; ++r) {
        total[r][0] = total[r][1] = _mm256_set1_epi32(-corrections[row + r]);
    }
    const uint8_t* panel = o.columnScratch;
    for (uint32_t f = 0; f < depth; ++f, panel += kFractalQuads) {
        const uint8_t* a[rows];
        for (uint32_t r = 0; r < rows; ++r) a[r] = LeftRow(o, row + r, first + f);
        __m256i sums[rows][2] = {};
#pragma GCC unroll 8
        for (uint32_t q = 0; q < kQuads; ++q) {
            const __m256i left = LoadBytes32(panel + q * kQuadBytes);
            const __m256i right = LoadBytes32(panel + q * kQuadBytes + 32);
#pragma GCC unroll 4
            for (uint32_t r = 0; r < rows; ++r) {
                AddQuad(&sums[r][0], &sums[r][1], left, right, a[r] + 4 * q);
            }
        }
        for (uint32_t r = 0; r < rows; ++r) {
            Widen(&total[r][0], sums[r][0], At(kOnes));
            Widen(&total[r][1], sums[r][1], At(kOnes));
        }
    }
    for (uint32_t r = 0; r < rows; ++r) {
        PutSums(o, row + r, stripe, total[r][0], total[r][1], accumulate);
    }
}

// A stripe widened: [pairs of k][16 columns][2 int16].
void WidePanel(const IntegerOperands& o, uint32_t stripe, uint32_t first, uint32_t depth) {
    alignas(64) uint8_t turned[kFractalQuads];
    auto* to = reinterpret_cast<int16_t*>(o.columnScratch);
    for (uint32_t f = 0; f < depth; ++f) {
        TurnBytes(turned, o.right[(first + f) * o.stripes + stripe]);
        for (uint32_t q = 0; q < kQuads; ++q) {
            for (uint32_t c = 0; c < kSide; ++c) {
                const auto* four = reinterpret_cast<const int8_t*>(turned) + q * kQuadBytes + 4 * c;
                int16_t* pairs = to + q * 4 * kSide + 2 * c;
                pairs[0] = four[0];
                pairs[1] = four[1];
                pairs[2 * kSide] = four[2];
                pairs[2 * kSide + 1] = four[3];
            }
        }
        to += kSide * kRowBytes;
    }
}

template <uint32_t rows>
void WideRows(const IntegerOperands& o, uint32_t row, uint32_t stripe, uint32_t first,
              uint32_t depth, bool accumulate) {
    __m256i total[rows][2] = {};
    const auto* panel = reinterpret_cast<const int16_t*>(o.columnScratch);
    for (uint32_t f = 0; f < depth; ++f, panel += kSide * kRowBytes) {
        alignas(64) int16_t wide[rows][kRowBytes];
        for (uint32_t r = 0; r < rows; ++r) {
            const auto* a = reinterpret_cast<const __m128i*>(LeftRow(o, row + r, first + f));
            auto* to = reinterpret_cast<__m256i*>(wide[r]);
            _mm256_store_si256(to, _mm256_cvtepi8_epi16(_mm_loadu_si128(a)));
            _mm256_store_si256(to + 1, _mm256_cvtepi8_epi16(_mm_loadu_si128(a + 1)));
        }
#pragma GCC unroll 16
        for (uint32_t pair = 0; pair < kRowBytes / 2; ++pair) {
            const __m256i left = LoadBytes32(panel + pair * 2 * kSide);
            const __m256i right = LoadBytes32(panel + pair * 2 * kSide + kSide);
#pragma GCC unroll 6
            for (uint32_t r = 0; r < rows; ++r) {
                AddWideQuad(&total[r][0], &total[r][1], left, right, wide[r] + 2 * pair);
            }
        }
    }
    for (uint32_t r = 0; r < rows; ++r) {
        PutSums(o, row + r, stripe, total[r][0], total[r][1], accumulate);
    }
}

// Calls tile(first row) for all rows: `most` of them at a time, the rest one by one.
template <uint32_t most, typename Most, typename One>
void ForRows(uint32_t rows, const Most& tile, const One& one) {
    uint32_t row = 0;
    for (; row + most <= rows; row += most) tile(row);
    for (; row < rows; ++row) one(row);
}

void MultiplyStripe(const IntegerOperands& o, uint32_t stripe, uint32_t first, uint32_t depth,
                    const int32_t* corrections, bool accumulate) {
    if (FitsNibbles(o, stripe, first, depth)) {
        NibblePanel(o, stripe, first, depth);
        ForRows<3>(
            o.rows,
            [&](uint32_t row) {
                NibbleRows<3>(o, row, stripe, first, depth, corrections, accumulate);
            },
            [&](uint32_t row) {
                NibbleRows<1>(o, row, stripe, first, depth, corrections, accumulate);
            });
        return;
    }
    WidePanel(o, stripe, first, depth);
    ForRows<6>(
        o.rows, [&](uint32_t row) { WideRows<6>(o, row, stripe, first, depth, accumulate); },
        [&](uint32_t row) { WideRows<1>(o, row, stripe, first, depth, accumulate); });
}

#else

void MultiplyStripe(const IntegerOperands& o, uint32_t stripe, uint32_t first, uint32_t depth,
                    const int32_t* /*corrections*/, bool accumulate) {
    for (uint32_t row = 0; row < o.rows; ++row) {
        int32_t* to = o.c + uint64_t{stripe} * o.stripeStep + row * kSide;
        for (uint32_t c = 0; c < kSide; ++c) {
            int32_t sum = accumulate ? to[c] : 0;
            for (uint32_t f = first; f < first + depth; ++f) {
                const auto* a = reinterpret_cast<const int8_t*>(LeftRow(o, row, f));
                const auto* b = reinterpret_cast<const int8_t*>(o.right[f * o.stripes + stripe]) +
                                c * kRowBytes;
                for (uint32_t i = 0; i < kRowBytes; ++i) sum += a[i] * b[i];
            }
            to[c] = sum;
        }
    }
}

#endif

// 8 times the sum of each row over some fractals.
void RowCorrections(const IntegerOperands& o, uint32_t first, uint32_t depth, int32_t* to) {
    for (uint32_t row = 0; row < o.rows; ++row) {
        int32_t sum = 0;
        for (uint32_t f = first; f < first + depth; ++f) {
            const auto* a = reinterpret_cast<const int8_t*>(LeftRow(o, row, f));
            for (uint32_t i = 0; i < kRowBytes; ++i) sum += a[i];
        }
        to[row] = 8 * sum;
    }
}

}  // namespace

void MultiplyBytes(const IntegerOperands& operands) {
    IntegerOperands o = operands;
    // Depth past k counts as 0, whatever lies there: the last fractals of the rows are made anew.
    const uint8_t* left[kMaxFractals];
    const uint32_t rowFractals = (o.rows + kSide - 1) / kSide;
    std::copy_n(o.left, rowFractals * o.depth, left);
    for (uint32_t m1 = 0; o.lastColumns < kRowBytes && m1 < rowFractals; ++m1) {
        uint8_t* to = o.rowScratch + m1 * kSide * kRowBytes;
        const uint8_t*& last = left[m1 * o.depth + o.depth - 1];
        std::memset(to, 0, kSide * kRowBytes);
        for (uint32_t r = 0; r < std::min(kSide, o.rows - m1 * kSide); ++r) {
            std::memcpy(to + r * kRowBytes, last + r * kRowBytes, o.lastColumns);
        }
        last = to;
    }
    o.left = left;
    int32_t corrections[kMaxFractals * kSide];
    for (uint32_t first = 0; first < o.depth; first += kMaxDepth) {
        const uint32_t depth = std::min(kMaxDepth, o.depth - first);
        RowCorrections(o, first, depth, corrections);
        for (uint32_t stripe = 0; stripe < o.stripes; ++stripe) {
            MultiplyStripe(o, stripe, first, depth, corrections, o.accumulate || first > 0);
        }
    }
}

}  // namespace ascend_twin
