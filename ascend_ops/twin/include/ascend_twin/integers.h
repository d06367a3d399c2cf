// Integer operands of the cube: int8 and int4b_t fractals in L0A and L0B, sums in int32.
#ifndef ASCEND_TWIN_INTEGERS_H_
#define ASCEND_TWIN_INTEGERS_H_

#include <cstdint>
#include <cstring>

#include "ascend_twin/core.h"
#include "ascend_twin/l1_views.h"
#include "ascend_twin/params.h"

namespace ascend_twin {

// c (m, n), 16 x 16 squares in NZ, = or += a (m, k) b (k, n). `a` and `b` are the first fractals in
// L0A, [m1][k1], and L0B, [k1][n1]. Depth past k is never read.
struct IntegerProduct {
    int32_t* c;
    uint32_t a;
    uint32_t b;
    uint32_t m;
    uint32_t n;
    uint32_t k;
    uint32_t bits;  // of an operand: 8 or 4
    bool accumulate;
};
void MultiplyIntegers(CoreMemory* memory, const IntegerProduct& product);

// The fractal at `to` of L0A or L0B is what lies at `from` of L1.
inline const uint8_t* LocateBytes(CoreMemory* memory, const uint8_t* from) {
    const FractalView view = Locate(memory, from);
    if (view.pitch == kBlockBytes) return view.rows;
    SettleL1(memory, from, kFractalBytes);
    return from;
}

// rows x cols of a tile of int32 to GM, row by row.
inline void StoreIntegers(int32_t* dst, uint32_t pitch, const int32_t* c, uint32_t rowsOfTile,
                          uint32_t rows, uint32_t cols) {
    for (uint32_t row = 0; row < rows; ++row) {
        int32_t* to = dst + static_cast<uint64_t>(row) * pitch;
        for (uint32_t col = 0; col < cols; col += 16) {
            std::memcpy(to + col, c + (col / 16 * rowsOfTile + row) * 16, 16 * sizeof(int32_t));
        }
    }
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_INTEGERS_H_
