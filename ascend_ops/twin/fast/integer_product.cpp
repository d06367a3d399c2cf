// Integer products: of int4b_t, and of few rows of int8, straight from the fractals; of many rows
// of int8 through panels (integer_panels.h).
#include <algorithm>
#include <cstring>

#include "ascend_twin/integer_casts.h"
#include "ascend_twin/integers.h"
#include "ascend_twin/product.h"
#include "integer_panels.h"
#include "integer_rows.h"

namespace ascend_twin {
namespace {

constexpr uint32_t kSide = 16;  // of a square of c

const uint8_t* const* RightSources(const CoreMemory* memory, uint32_t first) {
    return reinterpret_cast<const uint8_t* const*>(memory->l0b.source) + first;
}

}  // namespace

void MultiplyIntegers(CoreMemory* memory, const IntegerProduct& p) {
    const uint32_t columns = p.bits == 8 ? 32 : 64;  // of k in a fractal
    IntegerOperands o;
    o.left = memory->integers.source + p.a;
    o.right = RightSources(memory, p.b);
    o.stripes = (p.n + kSide - 1) / kSide;
    o.depth = (p.k + columns - 1) / columns;
    o.lastColumns = p.k - (o.depth - 1) * columns;
    o.c = p.c;
    o.stripeStep = (p.m + kSide - 1) / kSide * kSide * kSide;
    o.rows = p.m;
    o.accumulate = p.accumulate;
    o.rowScratch = memory->integers.rows;
    o.columnScratch = memory->integers.columns;
    if (p.bits == 4) {
        MultiplyNibbles(o);
    } else if (p.m <= kFewIntegerRows) {
        MultiplyFewBytes(o);
    } else {
        MultiplyBytes(o);
    }
}

}  // namespace ascend_twin
