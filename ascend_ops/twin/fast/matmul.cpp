// The micro-kernel behind Mmad: a register tile of rows x 16 columns (two of them on AVX-512), k
// innermost, on the fractals that LoadData has left in L0A and L0B.
#include "matmul.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd.h"
#include "transpose.h"

namespace ascend_twin {
namespace {

constexpr uint32_t kCols = 16;  // columns of a B or C fractal
constexpr uint32_t kVectorsPerFractal = kCols / kLanes;
// Accumulators fill the registers that are left beside a row of B and one broadcast.
constexpr uint32_t kMaxRows = kLanes == 16 ? 8 : (kLanes == 8 ? 6 : 4);
constexpr uint32_t kMaxFractals = kLanes == 16 ? 2 : 1;
constexpr uint32_t kBlockK = RightOperand::kBlockK;
constexpr uint32_t kFewRows = 16;

// A piece of the left operand along k: fractals that follow one another, rows with k inside, and
// `rowStep` floats from 16 rows to the next 16.
struct LeftPiece {
    const float* data;
    uint32_t rowStep;
    uint32_t k;
};

// One product of a register tile. The right operand's fractals are k with 16 columns inside,
// `rightStep` floats apart.
struct TileOperands {
    LeftPiece left[PendingProduct::kMaxParts];
    uint32_t pieces;
    const float* right;
    uint32_t rightStep;
    uint32_t fractalK;
};

// k that one chain of float32 additions covers. Float operands keep 24 bits, so there the rounding
// of long chains shows: they are cut at 32. Under half operands, with 11 bits, it does not.
constexpr uint32_t ChainLength(uint32_t fractalK) { return fractalK == 8 ? 32 : 1u << 31; }

// c (rows, 16 * fractals) = left right, added to c where `accumulate`. The rows are `done` and on
// of the 16 of row fractal `row`.
template <uint32_t rows, uint32_t fractals>
void Tile(const ProductTarget& c, const TileOperands& t, uint32_t row, uint32_t done,
          bool accumulate) {
    constexpr uint32_t vectors = fractals * kVectorsPerFractal;
    const uint32_t fractal = kCols * t.fractalK;
    const float* b = t.right;
    uint32_t chainLeft = ChainLength(t.fractalK);
    Vector acc[rows][vectors] = {};
    const auto close = [&] {
        for (uint32_t r = 0; r < rows; ++r) {
            for (uint32_t v = 0; v < vectors; ++v) {
                float* to = c.data + (v / kVectorsPerFractal) * c.colFractalStep +
                            static_cast<uint64_t>(r) * c.rowPitch +
                            (v % kVectorsPerFractal) * kLanes;
                Store(to, accumulate ? Load(to) + acc[r][v] : acc[r][v]);
            }
        }
    };
    for (uint32_t piece = 0; piece < t.pieces; ++piece) {
        const float* a = t.left[piece].data + row * t.left[piece].rowStep + done * t.fractalK;
        for (uint32_t k0 = 0; k0 < t.left[piece].k; k0 += t.fractalK) {
            if (chainLeft == 0) {
                close();
                accumulate = true;
                chainLeft = ChainLength(t.fractalK);
                for (auto& row : acc) {
                    for (Vector& sum : row) sum = Vector{};
                }
            }
            const uint32_t depth = std::min(t.fractalK, t.left[piece].k - k0);
            for (uint32_t k = 0; k < depth; ++k) {
                Vector bRow[vectors];
                for (uint32_t v = 0; v < vectors; ++v) {
                    bRow[v] = Load(b + (v / kVectorsPerFractal) * fractal + k * kCols +
                                   (v % kVectorsPerFractal) * kLanes);
                }
                for (uint32_t r = 0; r < rows; ++r) {
                    const Vector scalar = Broadcast(a[r * t.fractalK + k]);
                    for (uint32_t v = 0; v < vectors; ++v) acc[r][v] += scalar * bRow[v];
                }
            }
            a += fractal;
            b += t.rightStep;
            chainLeft -= t.fractalK;
        }
    }
    close();
}

template <uint32_t fractals>
void TileOfRows(uint32_t rows, const ProductTarget& c, const TileOperands& t, uint32_t row,
                uint32_t done, bool accumulate) {
    switch (rows) {
        case 1:
            return Tile<1, fractals>(c, t, row, done, accumulate);
        case 2:
            return Tile<2, fractals>(c, t, row, done, accumulate);
        case 3:
            return Tile<3, fractals>(c, t, row, done, accumulate);
        case 4:
            return Tile<4, fractals>(c, t, row, done, accumulate);
        case 5:
            return Tile<5, fractals>(c, t, row, done, accumulate);
        case 6:
            return Tile<6, fractals>(c, t, row, done, accumulate);
        case 7:
            return Tile<7, fractals>(c, t, row, done, accumulate);
        default:
            return Tile<8, fractals>(c, t, row, done, accumulate);
    }
}

// Calls body(first row, rows) for the passes over up to 16 rows. 16 rows go as 6 + 5 + 5, not
// 6 + 6 + 4: equal passes keep the FMA units busy.
template <typename Body>
void ForPasses(uint32_t rows, const Body& body) {
    const uint32_t passes = (rows + kMaxRows - 1) / kMaxRows;
    uint32_t done = 0;
    for (uint32_t pass = 0; pass < passes; ++pass) {
        const uint32_t live = (rows - done + passes - pass - 1) / (passes - pass);
        body(done, live);
        done += live;
    }
}

uint32_t Fractals(uint32_t size, uint32_t side) { return (size + side - 1) / side; }

// to[c][r] = from[r][c], 16 rows of 8 or 16 floats.
void TurnFractal(float* to, const float* from, uint32_t cols) {
    for (uint32_t c = 0; c < cols; c += 8) {
        Transpose8(to + c * kCols, kCols, from + c, cols);
        Transpose8(to + c * kCols + 8, kCols, from + 8 * cols + c, cols);
    }
}

// A fractal of L0B that lies by rows of n, as rows of n in float.
void FractalByRows(float* rows, const RightOperand& right, uint32_t at) {
    if (right.form[at] == FractalForm::kHalfRowsN) {
        ToFloats(rows, static_cast<const half*>(right.source[at]), kCols * kCols);
    } else if (right.form[at] == FractalForm::kBfloat16RowsN) {
        ToFloats(rows, static_cast<const bfloat16_t*>(right.source[at]), kCols * kCols);
    } else {
        std::memcpy(rows, right.source[at], kCols * 8 * sizeof(float));
    }
}

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
            FractalToPanelOfK(panel, right, first + at / fractals * colFractals + at % fractals,
                              p.fractalK);
        }
        t->left[t->pieces++] = {from.a + *done * kCols, Fractals(from.k, p.fractalK) * fractal,
                                depth};
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
                    if (kMaxFractals == 2 && fractals == 2) {
                        TileOfRows<kMaxFractals>(rows, c, t, row, done, join);
                    } else {
                        TileOfRows<1>(rows, c, t, row, done, join);
                    }
                });
            }
        }
    }
}

// Few rows, and B by rows of n: the rows of A are the lanes and those of B are broadcast, so that B
// need not be turned. The result comes out transposed, 16 x 16 at a time.
void ColumnsLead(const ProductTarget& target, const PendingProduct& p, uint32_t m,
                 RightOperand& right) {
    float* turned = right.turned;
    float* rows = right.columns;
    alignas(64) float square[kCols * kCols];
    alignas(64) float result[kCols * kCols];
    const ProductPart& part = p.parts[0];
    const uint32_t colFractals = Fractals(p.n, kCols), depth = Fractals(part.k, p.fractalK);
    const uint32_t fractal = kCols * p.fractalK;
    for (uint32_t k1 = 0; k1 < depth; ++k1) {
        TurnFractal(turned + k1 * fractal, part.a + k1 * fractal, p.fractalK);
    }
    TileOperands t;
    t.left[0] = {rows, 0, part.k};
    t.pieces = 1;
    t.right = turned;
    t.rightStep = fractal;
    t.fractalK = p.fractalK;
    for (uint32_t col = 0; col < colFractals; ++col) {
        for (uint32_t k1 = 0; k1 < depth; ++k1) {
            FractalByRows(rows + k1 * fractal, right, part.b + k1 * colFractals + col);
        }
        ForPasses(kCols, [&](uint32_t done, uint32_t live) {
            const ProductTarget c = {square + done * kCols, kCols, 0, 0};
            TileOfRows<1>(live, c, t, 0, done, false);
        });
        TurnFractal(result, square, kCols);
        for (uint32_t row = 0; row < m; ++row) {
            float* to = target.data + static_cast<uint64_t>(row) * target.rowPitch +
                        static_cast<uint64_t>(col) * target.colFractalStep;
            for (uint32_t n = 0; n < kCols; ++n) {
                to[n] = p.accumulate ? to[n] + result[row * kCols + n] : result[row * kCols + n];
            }
        }
    }
}

bool LiesByRows(const PendingProduct& p, const RightOperand& right) {
    const ProductPart& part = p.parts[0];
    const uint32_t count = Fractals(part.k, p.fractalK) * Fractals(p.n, kCols);
    return std::all_of(right.form + part.b, right.form + part.b + count, [](FractalForm form) {
        return form == FractalForm::kHalfRowsN || form == FractalForm::kBfloat16RowsN ||
               form == FractalForm::kFloatRowsN;
    });
}

}  // namespace

void FractalToPanelOfK(float* panel, const RightOperand& right, uint32_t at, uint32_t fractalK) {
    const void* source = right.source[at];
    alignas(64) uint16_t turned[kCols * kCols];
    switch (right.form[at]) {
        case FractalForm::kPanel:
            std::memcpy(panel, source, kCols * fractalK * sizeof(float));
            break;
        case FractalForm::kHalfRowsK:
            ToFloats(panel, static_cast<const half*>(source), kCols * kCols);
            break;
        case FractalForm::kBfloat16RowsK:
            ToFloats(panel, static_cast<const bfloat16_t*>(source), kCols * kCols);
            break;
        case FractalForm::kHalfRowsN:
            Transpose16(turned, static_cast<const uint16_t*>(source));
            HalfToFloat(panel, turned, kCols * kCols);
            break;
        case FractalForm::kBfloat16RowsN:
            Transpose16(turned, static_cast<const uint16_t*>(source));
            Bfloat16ToFloat(panel, turned, kCols * kCols);
            break;
        case FractalForm::kFloatRowsN:
            TurnFractal(panel, static_cast<const float*>(source), fractalK);
            break;
        default: {
            const bool lower = right.form[at] == FractalForm::kFloatLower;
            const float* square = static_cast<const float*>(source) + (lower ? 64 : 0);
            for (uint32_t k = 0; k < 8; ++k) {
                std::memcpy(panel + k * kCols, square + k * 8, 8 * sizeof(float));
                std::memcpy(panel + k * kCols + 8, square + 128 + k * 8, 8 * sizeof(float));
            }
        }
    }
}

void MatMul(const ProductTarget& target, const PendingProduct& product, uint32_t m,
            RightOperand& right) {
    if (product.numParts == 1 && product.m <= kFewRows && product.parts[0].k <= kBlockK &&
        LiesByRows(product, right)) {
        ColumnsLead(target, product, m, right);
    } else {
        RowsLead(target, product, m, right);
    }
}

}  // namespace ascend_twin
