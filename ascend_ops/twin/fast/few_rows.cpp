// Few rows of A meet all of B: B is read once, in the order in which it lies in memory.
#include "few_rows.h"

#include <algorithm>

#include "direct_tile.h"
#include "dot_rows.h"
#include "panels.h"
#include "register_tile.h"

namespace ascend_twin {
namespace {

constexpr uint32_t kFewRows = 16;
// Rows of k that all columns are served from before the next ones: a column's share of them, every
// 256 bytes a line, finds room in the few sets of the nearest cache that such lines fall into.
constexpr uint32_t kDirectSlab = 64;

// Few rows, and B by rows of n: the rows of A are the lanes and those of B are broadcast, so that B
// need not be turned. The result comes out transposed, 16 x 16 at a time.
void ColumnsLead(const ProductTarget& target, const PendingProduct& p, uint32_t m,
                 RightOperand& right) {
    float* turned = right.turned;
    alignas(64) float square[kCols * kCols];
    alignas(64) float result[kCols * kCols];
    const uint32_t colFractals = Fractals(p.n, kCols), fractal = kCols * p.fractalK;
    uint32_t slices[kBlockK / 8];  // of the depth: first fractal in L0B
    uint32_t depth = 0, k = 0;
    for (uint32_t i = 0; i < p.numParts; k += p.parts[i++].k) {
        const ProductPart& part = p.parts[i];
        for (uint32_t k1 = 0; k1 < Fractals(part.k, p.fractalK); ++k1, ++depth) {
            TurnFractal(turned + depth * fractal, part.a + k1 * fractal, p.fractalK, p.fractalK);
            slices[depth] = part.b + k1 * colFractals;
        }
    }
    TileOperands t;
    t.pieces = 1;
    t.right = turned;
    t.rightStep = fractal;
    t.fractalK = p.fractalK;
    for (uint32_t col = 0; col < colFractals; ++col) {
        t.left[0] = RowsOfN(right.columns, right, slices, depth, col, k, p.fractalK);
        ForPasses(kCols, [&](uint32_t done, uint32_t live) {
            const ProductTarget c = {square + done * kCols, kCols, 0, 0};
            TileOfRows<1>(live, c, t, 0, done, false);
        });
        TurnFractal(result, square, kCols, kCols);
        for (uint32_t row = 0; row < m; ++row) {
            float* to = target.data + static_cast<uint64_t>(row) * target.rowPitch +
                        static_cast<uint64_t>(col) * target.colFractalStep;
            for (uint32_t n = 0; n < kCols; ++n) {
                to[n] = p.accumulate ? to[n] + result[row * kCols + n] : result[row * kCols + n];
            }
        }
    }
}

// Few rows, and B by rows of k: all columns of a slab of B are read before the next one is.
void SlabsLead(const ProductTarget& target, const PendingProduct& p, uint32_t m,
               RightOperand& right) {
    const uint32_t colFractals = Fractals(p.n, kCols), fractal = kCols * p.fractalK;
    TileOperands t;
    t.pieces = 1;
    t.fractalK = p.fractalK;
    bool join = p.accumulate;
    for (uint32_t i = 0; i < p.numParts; ++i) {
        const ProductPart& part = p.parts[i];
        for (uint32_t k = 0; k < part.k; k += kSlab, join = true) {
            const uint32_t depth = std::min(kSlab, part.k - k);
            const uint32_t slices = Fractals(depth, p.fractalK);
            GatherSlab(right.columns, right, part.b + k / p.fractalK * colFractals, slices,
                       colFractals, p.fractalK);
            t.left[0] = {part.a + k * kCols, depth, fractal, p.fractalK, 0};
            for (uint32_t col = 0; col < colFractals; col += kMaxFractals) {
                const uint32_t fractals = std::min(kMaxFractals, colFractals - col);
                t.right = right.columns + col * slices * fractal;
                t.rightStep = fractals * fractal;
                ForPasses(m, [&](uint32_t done, uint32_t rows) {
                    ProductTarget c = target;
                    c.data += static_cast<uint64_t>(col) * target.colFractalStep +
                              static_cast<uint64_t>(done) * target.rowPitch;
                    TileOfFractals(rows, fractals, c, t, 0, done, join);
                });
            }
        }
    }
}

// Few rows, and B of 16 bits by rows of k: it is widened in registers, a slab of rows after the
// other.
template <typename T>
void ColumnsDirect(const ProductTarget& target, const PendingProduct& p, uint32_t m,
                   const RightOperand& right) {
    const uint32_t colFractals = Fractals(p.n, kCols), fractal = kCols * kCols;
    bool resume = false;
    for (uint32_t i = 0; i < p.numParts; ++i) {
        const ProductPart& part = p.parts[i];
        for (uint32_t k = 0; k < part.k; k += kDirectSlab, resume = true) {
            const LeftPiece left = {part.a + k * kCols, std::min(kDirectSlab, part.k - k), fractal,
                                    kCols, 0};
            for (uint32_t col = 0; col < colFractals; ++col) {
                FractalView slices[kDirectSlab / kCols] = {};
                for (uint32_t k1 = 0; k1 < Fractals(left.k, kCols); ++k1) {
                    const uint32_t at = part.b + (k / kCols + k1) * colFractals + col;
                    PrefetchNext(right, at, k1, col, 1, colFractals);
                    slices[k1] = {static_cast<const uint8_t*>(right.source[at]), right.pitch[at]};
                }
                ForPasses(m, [&](uint32_t done, uint32_t rows) {
                    ProductTarget c = target;
                    c.data += static_cast<uint64_t>(col) * target.colFractalStep +
                              static_cast<uint64_t>(done) * target.rowPitch;
                    DirectTileOfRows<T>(rows, c, left, slices, done, resume);
                });
            }
        }
    }
}

// Whether all of B lies in one form.
bool LiesAs(FractalForm form, const PendingProduct& p, const RightOperand& right) {
    for (uint32_t i = 0; i < p.numParts; ++i) {
        const uint32_t deep = Fractals(p.parts[i].k, p.fractalK);
        const FractalForm* first = right.form + p.parts[i].b;
        const auto same = [form](FractalForm other) { return other == form; };
        if (!std::all_of(first, first + deep * Fractals(p.n, kCols), same)) return false;
    }
    return true;
}

// Whether ColumnsLead can serve a product: few rows, parts that end where fractals do, B by rows.
bool ColumnsMayLead(const PendingProduct& p, const RightOperand& right) {
    uint32_t k = 0;
    for (uint32_t i = 0; i < p.numParts; k += p.parts[i++].k) {
        const ProductPart& part = p.parts[i];
        const FractalForm* form = right.form + part.b;
        const uint32_t count = Fractals(part.k, p.fractalK) * Fractals(p.n, kCols);
        if (k % p.fractalK != 0 || !std::all_of(form, form + count, LiesByRows)) return false;
    }
    return p.m <= kFewRows && k <= kBlockK;
}

}  // namespace

bool MultiplyFewRows(const ProductTarget& target, const PendingProduct& product, uint32_t m,
                     RightOperand& right) {
    if (MultiplyDotRows(target, product, m, right)) return true;
    if (ColumnsMayLead(product, right)) {
        ColumnsLead(target, product, m, right);
        return true;
    }
    if (m > kFewRows) return false;
    if (!product.accumulate && LiesAs(FractalForm::kHalfRowsK, product, right)) {
        ColumnsDirect<half>(target, product, m, right);
        return true;
    }
    if (!product.accumulate && LiesAs(FractalForm::kBfloat16RowsK, product, right)) {
        ColumnsDirect<bfloat16_t>(target, product, m, right);
        return true;
    }
    if (product.fractalK != 8 || Fractals(product.n, kCols) > kMaxSlabCols) return false;
    SlabsLead(target, product, m, right);
    return true;
}

}  // namespace ascend_twin
