// Products of any size: a few columns of B at a time become a panel, which all rows of A meet.
#include "matmul.h"

#include <algorithm>

#include "few_rows.h"
#include "panels.h"
#include "register_tile.h"

namespace ascend_twin {
namespace {

// Up to kBlockK of k from part `*part` on, of which `*done` are done: the pieces of the left
// operand, and the right one's columns [col, col + fractals) in the panel.
void GatherBlock(TileOperands* t, float* panel, const PendingProduct& p, RightOperand& right,
                 uint32_t col, uint32_t fractals, uint32_t* part, uint32_t* done) {
    const uint32_t fractal = kCols * p.fractalK, colFractals = Fractals(p.n, kCols);
    t->pieces = 0;
    for (uint32_t room = kBlockK; room > 0 && *part < p.numParts;) {
        const ProductPart& from = p.parts[*part];
        const uint32_t depth = std::min(room, from.k - *done);
        const uint32_t deep = Fractals(depth, p.fractalK);
        const uint32_t first = from.b + *done / p.fractalK * colFractals + col;
        for (uint32_t at = 0; at < deep * fractals; ++at, panel += fractal) {
            const uint32_t k1 = at / fractals, at1 = col + at % fractals;
            const uint32_t source = first + k1 * colFractals + at % fractals;
            PrefetchNext(right, source, k1, at1, fractals, colFractals);
            FractalToPanelOfK(panel, right, source, p.fractalK);
        }
        t->left[t->pieces++] = {from.a + *done * kCols, depth, fractal, p.fractalK,
                                Fractals(from.k, p.fractalK) * fractal};
        room -= deep * p.fractalK;
        *done += depth;
        if (*done == from.k) {
            ++*part;
            *done = 0;
        }
    }
}

// Rows of a lead: rows of A times the columns of B, as many columns at a time as a register tile
// has.
void RowsLead(const ProductTarget& target, const PendingProduct& p, uint32_t m,
              RightOperand& right) {
    const uint32_t rowFractals = Fractals(m, kCols), colFractals = Fractals(p.n, kCols);
    TileOperands t;
    t.right = right.columns;
    t.fractalK = p.fractalK;
    for (uint32_t col = 0; col < colFractals; col += kMaxFractals) {
        const uint32_t fractals = std::min(kMaxFractals, colFractals - col);
        t.rightStep = fractals * kCols * p.fractalK;
        bool join = p.accumulate;
        for (uint32_t part = 0, k = 0; part < p.numParts; join = true) {
            GatherBlock(&t, right.columns, p, right, col, fractals, &part, &k);
            for (uint32_t row = 0; row < rowFractals; ++row) {
                ForPasses(std::min(kCols, m - row * kCols), [&](uint32_t done, uint32_t rows) {
                    ProductTarget c = target;
                    c.data += static_cast<uint64_t>(row) * target.rowFractalStep +
                              static_cast<uint64_t>(col) * target.colFractalStep +
                              static_cast<uint64_t>(done) * target.rowPitch;
                    TileOfFractals(rows, fractals, c, t, row, done, join);
                });
            }
        }
    }
}

}  // namespace

void MatMul(const ProductTarget& target, const PendingProduct& product, uint32_t m,
            RightOperand& right) {
    if (!MultiplyFewRows(target, product, m, right)) RowsLead(target, product, m, right);
}

}  // namespace ascend_twin
