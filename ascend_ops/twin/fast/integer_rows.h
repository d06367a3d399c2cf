// Integer products that read the right operand's fractals as they lie: decoding consists of them.
#ifndef ASCEND_TWIN_FAST_INTEGER_ROWS_H_
#define ASCEND_TWIN_FAST_INTEGER_ROWS_H_

#include <cstdint>

namespace ascend_twin {

// c = or += left right. A fractal is 16 rows, of m or n, with 32 bytes of k inside.
struct IntegerOperands {
    const uint8_t* const* left;   // fractals [m1][depth]
    const uint8_t* const* right;  // fractals [depth][stripes]
    uint32_t stripes;             // of 16 columns
    uint32_t depth;               // fractals along k
    uint32_t lastColumns;         // of the last fractal that count, of 32 or 64
    int32_t* c;                   // squares of 16 x 16: those of a stripe one below the other
    uint32_t stripeStep;          // int32 from one stripe's first square to the next one's
    uint32_t rows;
    bool accumulate;
    uint8_t* rowScratch;     // as large as L0A
    uint8_t* columnScratch;  // 16 KB
};

constexpr uint32_t kFewIntegerRows = 4;

// Two values of 4 bits a byte, low nibble first.
void MultiplyNibbles(const IntegerOperands& operands);

// int8, up to kFewIntegerRows rows.
void MultiplyFewBytes(const IntegerOperands& operands);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_INTEGER_ROWS_H_
