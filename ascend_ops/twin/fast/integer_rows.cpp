// Nibbles: a weight w becomes w + 8, 0 to 15, and meets signed digits in sums of 16 bits, which hold
// 136 pairs of them; 8 times the sum of a row is taken off at the end. Bytes: both sides are
// widened to 16 bits and summed in 32.
#include "integer_rows.h"

#include <algorithm>
#include <cstring>

#include "ascend_twin/integer_casts.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace ascend_twin {
namespace {

constexpr uint32_t kSide = 16;
constexpr uint32_t kRowBytes = 32;
constexpr uint32_t kMaxRows = 8;  // of a pass

// Row r of the left operand in one of its fractals.
const uint8_t* LeftRow(const IntegerOperands& o, uint32_t row, uint32_t fractal) {
    return o.left[row / kSide * o.depth + fractal] + row % kSide * kRowBytes;
}

void Put(const IntegerOperands& o, uint32_t row, uint32_t stripe, uint32_t column, int32_t value) {
    int32_t* to = o.c + uint64_t{stripe} * o.stripeStep + row * kSide + column;
    *to = o.accumulate ? *to + value : value;
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
            const uint8_t* from = LeftRow(o, first + r, f);
            for (uint32_t i = 0; i < kRowBytes; ++i) {
                to[i] = static_cast<int8_t>(LowNibble(from[i]));
                to[kRowBytes + i] = static_cast<int8_t>(HighNibble(from[i]));
            }
            if (f + 1 == o.depth) {
                for (uint32_t k = o.lastColumns; k < 2 * kRowBytes; ++k) {
                    to[k % 2 * kRowBytes + k / 2] = 0;
                }
            }
            int32_t sum = 0;
            for (uint32_t i = 0; i < 2 * kRowBytes; ++i) sum += to[i];
            sums[r] += sum;
        }
    }
}

// Rows of int8 as int16, 32 a fractal, `rows` rows side by side.
void SpreadBytes(const IntegerOperands& o, uint32_t rows, int16_t* to) {
    for (uint32_t f = 0; f < o.depth; ++f) {
        const uint32_t live = f + 1 == o.depth ? o.lastColumns : kRowBytes;
        for (uint32_t r = 0; r < rows; ++r, to += kRowBytes) {
            const uint8_t* from = LeftRow(o, r, f);
            for (uint32_t i = 0; i < kRowBytes; ++i) {
                to[i] = i < live ? static_cast<int8_t>(from[i]) : int16_t{0};
            }
        }
    }
}

#if defined(__AVX2__)

__m256i LoadBytes(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

// The sum of eight int32.
int32_t SumLanes(__m256i lanes) {
    const __m128i four =
        _mm_add_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

// sums[r][c] of `rows` rows of digits and `columns` columns of a stripe, each fractal's from
// `offset` bytes on.
template <uint32_t rows, uint32_t columns>
void NibbleTile(const uint8_t* const* right, uint32_t step, uint32_t offset, uint32_t depth,
                const int8_t* digits, int32_t sums[][kSide]) {
    const __m256i flip = _mm256_set1_epi8(static_cast<char>(0x88)), mask = _mm256_set1_epi8(15);
    __m256i acc[rows][columns] = {};
    for (uint32_t f = 0; f < depth; ++f, digits += rows * 2 * kRowBytes) {
        const uint8_t* fractal = right[f * step] + offset;
        for (uint32_t line = 0; line < columns * kRowBytes; line += 64) {
            _mm_prefetch(reinterpret_cast<const char*>(fractal + kPrefetchBytes + line),
                         _MM_HINT_T0);
        }
        for (uint32_t c = 0; c < columns; ++c) {
            const __m256i pairs = _mm256_xor_si256(LoadBytes(fractal + c * kRowBytes), flip);
            const __m256i low = _mm256_and_si256(pairs, mask);
            const __m256i high = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), mask);
            for (uint32_t r = 0; r < rows; ++r) {
                const int8_t* row = digits + r * 2 * kRowBytes;
                acc[r][c] =
                    _mm256_add_epi16(acc[r][c], _mm256_maddubs_epi16(low, LoadBytes(row)));
                acc[r][c] = _mm256_add_epi16(
                    acc[r][c], _mm256_maddubs_epi16(high, LoadBytes(row + kRowBytes)));
            }
        }
    }
    const __m256i ones = _mm256_set1_epi16(1);
    for (uint32_t r = 0; r < rows; ++r) {
        for (uint32_t c = 0; c < columns; ++c) {
            sums[r][c] = SumLanes(_mm256_madd_epi16(acc[r][c], ones));
        }
    }
}

template <uint32_t rows, uint32_t columns>
void ByteTile(const uint8_t* const* right, uint32_t step, uint32_t offset, uint32_t depth,
              const int16_t* left, int32_t sums[][kSide]) {
    __m256i acc[rows][columns] = {};
    for (uint32_t f = 0; f < depth; ++f, left += rows * kRowBytes) {
        const uint8_t* fractal = right[f * step] + offset;
        for (uint32_t line = 0; line < columns * kRowBytes; line += 64) {
            _mm_prefetch(reinterpret_cast<const char*>(fractal + kPrefetchBytes + line),
                         _MM_HINT_T0);
        }
        for (uint32_t c = 0; c < columns; ++c) {
            const auto* column = reinterpret_cast<const __m128i*>(fractal + c * kRowBytes);
            const __m256i first = _mm256_cvtepi8_epi16(_mm_loadu_si128(column));
            const __m256i second = _mm256_cvtepi8_epi16(_mm_loadu_si128(column + 1));
            for (uint32_t r = 0; r < rows; ++r) {
                const int16_t* row = left + r * kRowBytes;
                acc[r][c] =
                    _mm256_add_epi32(acc[r][c], _mm256_madd_epi16(first, LoadBytes(row)));
                acc[r][c] = _mm256_add_epi32(
                    acc[r][c], _mm256_madd_epi16(second, LoadBytes(row + kRowBytes / 2)));
            }
        }
    }
    for (uint32_t r = 0; r < rows; ++r) {
        for (uint32_t c = 0; c < columns; ++c) sums[r][c] = SumLanes(acc[r][c]);
    }
}

#else

template <uint32_t rows, uint32_t columns>
void NibbleTile(const uint8_t* const* right, uint32_t step, uint32_t offset, uint32_t depth,
                const int8_t* digits, int32_t sums[][kSide]) {
    for (uint32_t r = 0; r < rows; ++r) std::fill_n(sums[r], columns, 0);
    for (uint32_t f = 0; f < depth; ++f, digits += rows * 2 * kRowBytes) {
        for (uint32_t c = 0; c < columns; ++c) {
            const uint8_t* pairs = right[f * step] + offset + c * kRowBytes;
            for (uint32_t r = 0; r < rows; ++r) {
                const int8_t* row = digits + r * 2 * kRowBytes;
                int32_t sum = 0;
                for (uint32_t i = 0; i < kRowBytes; ++i) {
                    sum += ((pairs[i] & 15) ^ 8) * row[i] +
                           ((pairs[i] >> 4) ^ 8) * row[kRowBytes + i];
                }
                sums[r][c] += sum;
            }
        }
    }
}

template <uint32_t rows, uint32_t columns>
void ByteTile(const uint8_t* const* right, uint32_t step, uint32_t offset, uint32_t depth,
              const int16_t* left, int32_t sums[][kSide]) {
    for (uint32_t r = 0; r < rows; ++r) std::fill_n(sums[r], columns, 0);
    for (uint32_t f = 0; f < depth; ++f, left += rows * kRowBytes) {
        for (uint32_t c = 0; c < columns; ++c) {
            const auto* bytes =
                reinterpret_cast<const int8_t*>(right[f * step] + offset + c * kRowBytes);
            for (uint32_t r = 0; r < rows; ++r) {
                const int16_t* row = left + r * kRowBytes;
                int32_t sum = 0;
                for (uint32_t i = 0; i < kRowBytes; ++i) sum += bytes[i] * row[i];
                sums[r][c] += sum;
            }
        }
    }
}

#endif

// All columns for `rows` rows, of which `count` are real.
template <uint32_t rows, uint32_t columns>
void NibblePass(const IntegerOperands& o, uint32_t first, uint32_t count) {
    auto* digits = reinterpret_cast<int8_t*>(o.rowScratch);
    int32_t rowSums[kMaxRows];
    SpreadNibbles(o, first, count, rows, digits, rowSums);
    int32_t sums[rows][kSide];
    for (uint32_t stripe = 0; stripe < o.stripes; ++stripe) {
        for (uint32_t column = 0; column < kSide; column += columns) {
            NibbleTile<rows, columns>(o.right + stripe, o.stripes, column * kRowBytes, o.depth,
                                      digits, sums);
            for (uint32_t r = 0; r < count; ++r) {
                for (uint32_t c = 0; c < columns; ++c) {
                    Put(o, first + r, stripe, column + c, sums[r][c] - 8 * rowSums[r]);
                }
            }
        }
    }
}

template <uint32_t rows, uint32_t columns>
void BytePass(const IntegerOperands& o) {
    auto* left = reinterpret_cast<int16_t*>(o.rowScratch);
    SpreadBytes(o, rows, left);
    int32_t sums[rows][kSide];
    for (uint32_t stripe = 0; stripe < o.stripes; ++stripe) {
        for (uint32_t column = 0; column < kSide; column += columns) {
            ByteTile<rows, columns>(o.right + stripe, o.stripes, column * kRowBytes, o.depth, left,
                                    sums);
            for (uint32_t r = 0; r < rows; ++r) {
                for (uint32_t c = 0; c < columns; ++c) Put(o, r, stripe, column + c, sums[r][c]);
            }
        }
    }
}

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
            return BytePass<1, 8>(o);
        case 2:
            return BytePass<2, 4>(o);
        case 3:
            return BytePass<3, 2>(o);
        default:
            return BytePass<4, 2>(o);
    }
}

}  // namespace ascend_twin
