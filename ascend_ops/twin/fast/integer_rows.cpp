// Nibbles: a weight w becomes w + 8, 0 to 15, and meets signed digits in sums of 16 bits, which
// hold 136 pairs of them; 8 times the sum of a row is taken off at the end. Bytes: both sides are
// widened to 16 bits and summed in 32.
#include "integer_rows.h"

#include <algorithm>
#include <cstring>

#include "ascend_twin/integer_casts.h"
#include "integer_simd.h"

namespace ascend_twin {
namespace {

constexpr uint32_t kSide = 16;
constexpr uint32_t kRowBytes = 32;
constexpr uint32_t kMaxRows = 8;                            // of a pass
constexpr uint32_t kStreams = 4;                            // stripes that are read in turn
constexpr uint32_t kStreamFractals = 4;                     // of each, at a turn
constexpr uint32_t kPrefetchBytes = kStreamFractals * 512;  // the next turn's

// Row r of the left operand in one of its fractals.
const uint8_t* LeftRow(const IntegerOperands& o, uint32_t row, uint32_t fractal) {
    return o.left[row / kSide * o.depth + fractal] + row % kSide * kRowBytes;
}

// 64 values of 4 bits as bytes: those of low nibbles, then those of high ones.
void SplitNibbles(int8_t* to, const uint8_t* from) {
#if defined(__AVX2__)
    const __m256i pairs = LoadBytes32(from), mask = _mm256_set1_epi8(15);
    const __m256i eight = _mm256_set1_epi8(8);
    const __m256i low = _mm256_and_si256(pairs, mask);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), mask);
    auto* out = reinterpret_cast<__m256i*>(to);
    _mm256_storeu_si256(out, _mm256_sub_epi8(_mm256_xor_si256(low, eight), eight));
    _mm256_storeu_si256(out + 1, _mm256_sub_epi8(_mm256_xor_si256(high, eight), eight));
#else
    for (uint32_t i = 0; i < kRowBytes; ++i) {
        to[i] = static_cast<int8_t>(LowNibble(from[i]));
        to[kRowBytes + i] = static_cast<int8_t>(HighNibble(from[i]));
    }
#endif
}

// The sum of 64 digits.
int32_t SumOf(const int8_t* digits) {
#if defined(__AVX2__)
    const __m256i ones = _mm256_set1_epi8(1);
    const __m256i pairs =
        _mm256_add_epi16(_mm256_maddubs_epi16(ones, LoadBytes32(digits)),
                         _mm256_maddubs_epi16(ones, LoadBytes32(digits + kRowBytes)));
    const __m256i lanes = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
    return _mm_cvtsi128_si32(SumsOfFour(lanes, lanes, lanes, lanes));
#else
    int32_t sum = 0;
    for (uint32_t i = 0; i < 2 * kRowBytes; ++i) sum += digits[i];
    return sum;
#endif
}

// Rows [first, first + count) of digits as bytes: 32 low nibbles and 32 high ones a fractal, of
// `rows` rows side by side; those past `count` are 0. sums: of each row.
void SpreadNibbles(const IntegerOperands& o, uint32_t first, uint32_t count, uint32_t rows,
                   int8_t* to, int32_t* sums) {
    std::fill_n(sums, kMaxRows, 0);
    for (uint32_t f = 0; f < o.depth; ++f) {
        for (uint32_t r = 0; r < rows; ++r, to += 2 * kRowBytes) {
            if (r >= count) {
                std::memset(to, 0, 2 * kRowBytes);
                continue;
            }
            SplitNibbles(to, LeftRow(o, first + r, f));
            if (f + 1 == o.depth) {
                for (uint32_t k = o.lastColumns; k < 2 * kRowBytes; ++k) {
                    to[k % 2 * kRowBytes + k / 2] = 0;
                }
            }
            sums[r] += SumOf(to);
        }
    }
}

// Rows of int8 as int16, 32 a fractal, `rows` rows side by side.
void SpreadBytes(const IntegerOperands& o, uint32_t rows, int16_t* to) {
    for (uint32_t f = 0; f < o.depth; ++f) {
        const uint32_t live = f + 1 == o.depth ? o.lastColumns : kRowBytes;
        for (uint32_t r = 0; r < rows; ++r, to += kRowBytes) {
            const uint8_t* from = LeftRow(o, r, f);
#if defined(__AVX2__)
            const auto* halves = reinterpret_cast<const __m128i*>(from);
            auto* wide = reinterpret_cast<__m256i*>(to);
            _mm256_storeu_si256(wide, _mm256_cvtepi8_epi16(_mm_loadu_si128(halves)));
            _mm256_storeu_si256(wide + 1, _mm256_cvtepi8_epi16(_mm_loadu_si128(halves + 1)));
#else
            for (uint32_t i = 0; i < kRowBytes; ++i) to[i] = static_cast<int8_t>(from[i]);
#endif
            for (uint32_t i = live; i < kRowBytes; ++i) to[i] = 0;
        }
    }
}

#if defined(__AVX2__)

// Asks for what lies as far ahead of `from`, line after line: the order that prefetchers know.
void PrefetchNext(const uint8_t* from, uint32_t bytes) {
    for (uint32_t line = 0; line < bytes; line += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(from + kPrefetchBytes + line), _MM_HINT_T0);
    }
}

// lanes[c][r], eight parts of the sum of each of `rows` rows of digits and `columns` columns of a
// stripe, each fractal's from `offset` bytes on.
template <uint32_t rows, uint32_t columns>
void NibbleTile(const uint8_t* const* right, uint32_t step, uint32_t offset, uint32_t depth,
                const int8_t* digits, __m256i* lanes) {
    const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x88)), mask = _mm256_set1_epi8(15);
    __m256i acc[rows][columns];
#pragma GCC unroll 8
    for (uint32_t at = 0; at < rows * columns; ++at) acc[at % rows][at / rows] = lanes[at];
    const uint8_t* ahead = right[0] + offset * depth;
    for (uint32_t f = 0; f < depth; ++f, digits += rows * 2 * kRowBytes) {
        const uint8_t* fractal = right[f * step] + offset;
        PrefetchNext(ahead, columns * kRowBytes);
        ahead += columns * kRowBytes;
#pragma GCC unroll 4
        for (uint32_t c = 0; c < columns; ++c) {
            const __m256i pairs = _mm256_xor_si256(LoadBytes32(fractal + c * kRowBytes), flip);
            const __m256i low = _mm256_and_si256(pairs, mask);
            const __m256i high = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), mask);
#pragma GCC unroll 8
            for (uint32_t r = 0; r < rows; ++r) {
                AddPairs(&acc[r][c], low, digits + r * 2 * kRowBytes);
                AddPairs(&acc[r][c], high, digits + r * 2 * kRowBytes + kRowBytes);
            }
        }
    }
    // Copies with constant indices only: else the accumulators would live in memory all along.
#pragma GCC unroll 8
    for (uint32_t at = 0; at < rows * columns; ++at) lanes[at] = acc[at % rows][at / rows];
}

template <uint32_t rows, uint32_t columns>
void ByteTile(const uint8_t* const* right, uint32_t step, uint32_t offset, uint32_t depth,
              const int16_t* left, __m256i* lanes) {
    __m256i acc[rows][columns];
#pragma GCC unroll 12
    for (uint32_t at = 0; at < rows * columns; ++at) acc[at % rows][at / rows] = lanes[at];
    const uint8_t* ahead = right[0] + offset * depth;
    for (uint32_t f = 0; f < depth; ++f, left += rows * kRowBytes) {
        const uint8_t* fractal = right[f * step] + offset;
        PrefetchNext(ahead, columns * kRowBytes);
        ahead += columns * kRowBytes;
#pragma GCC unroll 8
        for (uint32_t c = 0; c < columns; ++c) {
            const auto* column = reinterpret_cast<const __m128i*>(fractal + c * kRowBytes);
            const __m256i first = _mm256_cvtepi8_epi16(_mm_loadu_si128(column));
            const __m256i second = _mm256_cvtepi8_epi16(_mm_loadu_si128(column + 1));
#pragma GCC unroll 4
            for (uint32_t r = 0; r < rows; ++r) {
                AddWidePairs(&acc[r][c], first, left + r * kRowBytes);
                AddWidePairs(&acc[r][c], second, left + r * kRowBytes + kRowBytes / 2);
            }
        }
    }
#pragma GCC unroll 12
    for (uint32_t at = 0; at < rows * columns; ++at) lanes[at] = acc[at % rows][at / rows];
}

// Columns [column, column + 4) of a row: sums of lanes, `rows` apart, less a correction.
void PutFour(const IntegerOperands& o, uint32_t row, uint32_t stripe, uint32_t column,
             const __m256i* lanes, uint32_t rows, int32_t correction) {
    __m128i sums = SumsOfFour(lanes[0], lanes[rows], lanes[2 * rows], lanes[3 * rows]);
    sums = _mm_sub_epi32(sums, _mm_set1_epi32(correction));
    auto* to =
        reinterpret_cast<__m128i*>(o.c + uint64_t{stripe} * o.stripeStep + row * kSide + column);
    if (o.accumulate) sums = _mm_add_epi32(sums, _mm_loadu_si128(to));
    _mm_storeu_si128(to, sums);
}

// Calls tile(first fractal, fractals, stripe, column, lanes) until all of some stripes is done: a
// few fractals of each of them in turn, for memory is read fastest in several streams. Then
// put(stripe, column, lanes) for every four columns. lanes: of four columns, [4][rows].
template <uint32_t rows, uint32_t columns, typename Tile, typename PutColumns>
void WalkStripes(const IntegerOperands& o, const Tile& tile, const PutColumns& put) {
    __m256i lanes[kStreams * kSide * rows];
    for (uint32_t first = 0; first < o.stripes; first += kStreams) {
        const uint32_t count = std::min(kStreams, o.stripes - first);
        std::fill_n(lanes, count * kSide * rows, _mm256_setzero_si256());
        for (uint32_t f = 0; f < o.depth; f += kStreamFractals) {
            const uint32_t depth = std::min(kStreamFractals, o.depth - f);
            for (uint32_t i = 0; i < count; ++i) {
                for (uint32_t column = 0; column < kSide; column += columns) {
                    tile(f, depth, first + i, column, lanes + (i * kSide + column) * rows);
                }
            }
        }
        for (uint32_t i = 0; i < count; ++i) {
            for (uint32_t column = 0; column < kSide; column += 4) {
                put(first + i, column, lanes + (i * kSide + column) * rows);
            }
        }
    }
}

// All columns for `rows` rows, of which `count` are real.
template <uint32_t rows, uint32_t columns>
void NibblePass(const IntegerOperands& o, uint32_t first, uint32_t count) {
    auto* digits = reinterpret_cast<int8_t*>(o.rowScratch);
    int32_t rowSums[kMaxRows];
    SpreadNibbles(o, first, count, rows, digits, rowSums);
    const __m256i ones = _mm256_set1_epi16(1);
    WalkStripes<rows, columns>(
        o,
        [&](uint32_t f, uint32_t depth, uint32_t stripe, uint32_t column, __m256i* lanes) {
            NibbleTile<rows, columns>(o.right + f * o.stripes + stripe, o.stripes,
                                      column * kRowBytes, depth, digits + f * rows * 2 * kRowBytes,
                                      lanes);
        },
        [&](uint32_t stripe, uint32_t column, __m256i* lanes) {
            for (uint32_t i = 0; i < 4 * rows; ++i) lanes[i] = _mm256_madd_epi16(lanes[i], ones);
            for (uint32_t r = 0; r < count; ++r) {
                PutFour(o, first + r, stripe, column, lanes + r, rows, 8 * rowSums[r]);
            }
        });
}

template <uint32_t rows, uint32_t columns>
void BytePass(const IntegerOperands& o) {
    auto* left = reinterpret_cast<int16_t*>(o.rowScratch);
    SpreadBytes(o, rows, left);
    WalkStripes<rows, columns>(
        o,
        [&](uint32_t f, uint32_t depth, uint32_t stripe, uint32_t column, __m256i* lanes) {
            ByteTile<rows, columns>(o.right + f * o.stripes + stripe, o.stripes, column * kRowBytes,
                                    depth, left + f * rows * kRowBytes, lanes);
        },
        [&](uint32_t stripe, uint32_t column, const __m256i* lanes) {
            for (uint32_t r = 0; r < rows; ++r) PutFour(o, r, stripe, column, lanes + r, rows, 0);
        });
}

#else

// One column for some rows: `weights` of it as signed values, `values` a fractal, meet the rows'.
template <typename Row>
void PlainColumn(const IntegerOperands& o, uint32_t first, uint32_t count, uint32_t rows,
                 uint32_t stripe, uint32_t column, const Row* left, bool nibbles) {
    const uint32_t values = nibbles ? 2 * kRowBytes : kRowBytes;
    for (uint32_t r = 0; r < count; ++r) {
        int32_t* to = o.c + uint64_t{stripe} * o.stripeStep + (first + r) * kSide + column;
        int32_t sum = o.accumulate ? *to : 0;
        for (uint32_t f = 0; f < o.depth; ++f) {
            const uint8_t* w = o.right[f * o.stripes + stripe] + column * kRowBytes;
            const Row* row = left + (f * rows + r) * values;
            for (uint32_t i = 0; i < kRowBytes; ++i) {
                sum += nibbles ? LowNibble(w[i]) * row[i] + HighNibble(w[i]) * row[kRowBytes + i]
                               : static_cast<int8_t>(w[i]) * row[i];
            }
        }
        *to = sum;
    }
}

template <uint32_t rows, uint32_t columns>
void NibblePass(const IntegerOperands& o, uint32_t first, uint32_t count) {
    auto* digits = reinterpret_cast<int8_t*>(o.rowScratch);
    int32_t rowSums[kMaxRows];
    SpreadNibbles(o, first, count, rows, digits, rowSums);
    for (uint32_t stripe = 0; stripe < o.stripes; ++stripe) {
        for (uint32_t c = 0; c < kSide; ++c) {
            PlainColumn(o, first, count, rows, stripe, c, digits, true);
        }
    }
}

template <uint32_t rows, uint32_t columns>
void BytePass(const IntegerOperands& o) {
    auto* left = reinterpret_cast<int16_t*>(o.rowScratch);
    SpreadBytes(o, rows, left);
    for (uint32_t stripe = 0; stripe < o.stripes; ++stripe) {
        for (uint32_t c = 0; c < kSide; ++c) {
            PlainColumn(o, 0, rows, rows, stripe, c, left, false);
        }
    }
}

#endif

}  // namespace

void MultiplyNibbles(const IntegerOperands& o) {
    for (uint32_t first = 0; first < o.rows; first += kMaxRows) {
        const uint32_t count = std::min(kMaxRows, o.rows - first);
        if (count > 4) {
            NibblePass<8, 1>(o, first, count);
        } else if (count > 2) {
            NibblePass<4, 2>(o, first, count);
        } else {
            NibblePass<2, 4>(o, first, count);
        }
    }
}

void MultiplyFewBytes(const IntegerOperands& o) {
    switch (o.rows) {
        case 1:
            return BytePass<1, 4>(o);
        case 2:
            return BytePass<2, 4>(o);
        case 3:
            return BytePass<3, 4>(o);
        default:
            return BytePass<4, 2>(o);
    }
}

}  // namespace ascend_twin
