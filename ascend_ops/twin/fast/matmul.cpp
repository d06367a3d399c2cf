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
constexpr uint32_t kRowBytes = 32;  // of a fractal
constexpr uint32_t kSlab = 64;      // rows of k
constexpr uint32_t kMaxSlabCols = sizeof(RightOperand::columns) / sizeof(float) / kSlab / kCols;

// A piece of the left operand along k, in slices of a fractal's width. Steps count floats.
struct LeftPiece {
    const float* data;
    uint32_t k;
    uint32_t sliceStep;  // from one slice to the next
    uint32_t rowPitch;   // from one row to the next
    uint32_t row16Step;  // from 16 rows to the next 16
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
        const LeftPiece& left = t.left[piece];
        const uint32_t pitch = left.rowPitch;
        const float* a = left.data + row * left.row16Step + done * pitch;
        for (uint32_t k0 = 0; k0 < left.k; k0 += t.fractalK) {
            if (chainLeft == 0) {
                close();
                accumulate = true;
                chainLeft = ChainLength(t.fractalK);
                for (auto& row : acc) {
                    for (Vector& sum : row) sum = Vector{};
                }
            }
            const uint32_t depth = std::min(t.fractalK, left.k - k0);
            for (uint32_t k = 0; k < depth; ++k) {
                Vector bRow[vectors];
                for (uint32_t v = 0; v < vectors; ++v) {
                    bRow[v] = Load(b + (v / kVectorsPerFractal) * fractal + k * kCols +
                                   (v % kVectorsPerFractal) * kLanes);
                }
                for (uint32_t r = 0; r < rows; ++r) {
                    const Vector scalar = Broadcast(a[r * pitch + k]);
                    for (uint32_t v = 0; v < vectors; ++v) acc[r][v] += scalar * bRow[v];
                }
            }
            a += left.sliceStep;
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
void TurnFractal(float* to, const float* from, uint32_t pitch, uint32_t cols) {
    for (uint32_t c = 0; c < cols; c += 8) {
        Transpose8(to + c * kCols, kCols, from + c, pitch);
        Transpose8(to + c * kCols + 8, kCols, from + 8 * pitch + c, pitch);
    }
}

// 16 rows of 16 elements of 16 bits, as floats.
template <typename T>
void WidenRows(float* to, const void* from, uint32_t pitch) {
    const T* row = static_cast<const T*>(from);
    for (uint32_t r = 0; r < kCols; ++r) {
        ToFloats(to + r * kCols, row + r * (pitch / sizeof(T)), kCols);
    }
}

bool LiesByRows(FractalForm form) {
    return form == FractalForm::kHalfRowsN || form == FractalForm::kBfloat16RowsN ||
           form == FractalForm::kFloatRowsN;
}

// Bytes that one row of a fractal covers; a float fractal by rows of k is two in one.
uint32_t RowBytes(FractalForm form) {
    return form == FractalForm::kFloatRowsK ? 2 * kRowBytes : kRowBytes;
}

// While columns `col` and on of a view are read, `step` fractals wide, asks the memory for the next
// ones. `at` is a fractal of theirs, `k1` its number along k.
void PrefetchNext(const RightOperand& right, uint32_t at, uint32_t k1, uint32_t col, uint32_t step,
                  uint32_t colFractals) {
    const uint32_t pitch = right.pitch[at];
    if (pitch <= kRowBytes) return;
    const FractalForm form = right.form[at];
    uint32_t ahead = step, rows = kCols, pair = 0;
    if (LiesByRows(form)) {
        pair = k1;  // two fractals side by side share their lines
    } else if (form == FractalForm::kFloatRowsK) {
        rows = 8;
    } else {
        pair = col;
        ahead = 2;
    }
    if (pair % 2 != 0 || col + ahead >= colFractals) return;
    const uint8_t* row = static_cast<const uint8_t*>(right.source[at + ahead]);
    for (uint32_t r = 0; r < rows; ++r, row += pitch) __builtin_prefetch(row, 0, 2);
}

// A fractal of L0B that lies by rows of n, as rows of n in float.
void FractalByRows(float* rows, const RightOperand& right, uint32_t at) {
    const void* source = right.source[at];
    const uint32_t pitch = right.pitch[at];
    if (right.form[at] == FractalForm::kHalfRowsN) {
        WidenRows<half>(rows, source, pitch);
    } else if (right.form[at] == FractalForm::kBfloat16RowsN) {
        WidenRows<bfloat16_t>(rows, source, pitch);
    } else {
        const uint8_t* row = static_cast<const uint8_t*>(source);
        for (uint32_t n = 0; n < kCols; ++n) std::memcpy(rows + n * 8, row + n * pitch, kRowBytes);
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

// Whether the fractals in a row of `count` lie side by side in GM, so that their rows are one.
bool AreOneView(const RightOperand& right, const uint32_t* at, uint32_t count) {
    const auto* first = static_cast<const uint8_t*>(right.source[at[0]]);
    const uint32_t pitch = right.pitch[at[0]], width = RowBytes(right.form[at[0]]);
    if (pitch <= kRowBytes) return false;
    for (uint32_t i = 1; i < count; ++i) {
        if (right.source[at[i]] != first + i * width || right.pitch[at[i]] != pitch) return false;
    }
    return true;
}

// Elements of 16 bits, as floats.
void Widen(float* to, const void* from, FractalForm form, uint32_t count) {
    if (form == FractalForm::kHalfRowsN || form == FractalForm::kHalfRowsK) {
        ToFloats(to, static_cast<const half*>(from), count);
    } else {
        ToFloats(to, static_cast<const bfloat16_t*>(from), count);
    }
}

// 16 rows of n with all `k` inside, as a left operand of floats. Whole rows are read one after the
// other, as memory likes it; floats stay where they are.
LeftPiece RowsOfN(float* rows, const RightOperand& right, const uint32_t* slices, uint32_t depth,
                  uint32_t col, uint32_t k, uint32_t fractalK) {
    uint32_t at[kBlockK / 8];
    for (uint32_t i = 0; i < depth; ++i) at[i] = slices[i] + col;
    if (!AreOneView(right, at, depth)) {
        const uint32_t fractal = kCols * fractalK;
        for (uint32_t i = 0; i < depth; ++i) FractalByRows(rows + i * fractal, right, at[i]);
        return {rows, k, fractal, fractalK, 0};
    }
    const auto* source = static_cast<const uint8_t*>(right.source[at[0]]);
    const uint32_t pitch = right.pitch[at[0]];
    if (right.form[at[0]] == FractalForm::kFloatRowsN) {
        const uint32_t floats = pitch / static_cast<uint32_t>(sizeof(float));
        return {reinterpret_cast<const float*>(source), k, fractalK, floats, 0};
    }
    const uint32_t width = depth * fractalK;
    for (uint32_t n = 0; n < kCols; ++n) {
        Widen(rows + n * width, source + n * pitch, right.form[at[0]], width);
    }
    return {rows, k, fractalK, width, 0};
}

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

// Rows of k, a slab of them at a time, as panels of 16 columns. Whole rows are read one after the
// other where they lie in GM.
void GatherSlab(float* panels, const RightOperand& right, uint32_t first, uint32_t slices,
                uint32_t colFractals, uint32_t fractalK) {
    const uint32_t fractal = kCols * fractalK, panel = slices * fractal;
    uint32_t at[kMaxSlabCols];
    for (uint32_t slice = 0; slice < slices; ++slice, panels += fractal) {
        for (uint32_t col = 0; col < colFractals; ++col) at[col] = first++;
        const FractalForm form = right.form[at[0]];
        if (LiesByRows(form) || !AreOneView(right, at, colFractals)) {
            for (uint32_t col = 0; col < colFractals; ++col) {
                FractalToPanelOfK(panels + col * panel, right, at[col], fractalK);
            }
            continue;
        }
        const auto* row = static_cast<const uint8_t*>(right.source[at[0]]);
        const uint32_t width = RowBytes(form);
        for (uint32_t k = 0; k < fractalK; ++k, row += right.pitch[at[0]]) {
            for (uint32_t col = 0; col < colFractals; ++col) {
                float* to = panels + col * panel + k * kCols;
                if (form == FractalForm::kFloatRowsK) {
                    std::memcpy(to, row + col * width, kCols * sizeof(float));
                } else {
                    Widen(to, row + col * width, form, kCols);
                }
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
    t.rightStep = fractal;
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
            for (uint32_t col = 0; col < colFractals; ++col) {
                t.right = right.columns + col * slices * fractal;
                ForPasses(m, [&](uint32_t done, uint32_t rows) {
                    ProductTarget c = target;
                    c.data += static_cast<uint64_t>(col) * target.colFractalStep +
                              static_cast<uint64_t>(done) * target.rowPitch;
                    TileOfRows<1>(rows, c, t, 0, done, join);
                });
            }
        }
    }
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

void FractalToPanelOfK(float* panel, const RightOperand& right, uint32_t at, uint32_t fractalK) {
    const void* source = right.source[at];
    const uint32_t pitch = right.pitch[at];
    alignas(64) uint16_t turned[kCols * kCols];
    switch (right.form[at]) {
        case FractalForm::kPanel:
            std::memcpy(panel, source, kCols * fractalK * sizeof(float));
            break;
        case FractalForm::kHalfRowsK:
            WidenRows<half>(panel, source, pitch);
            break;
        case FractalForm::kBfloat16RowsK:
            WidenRows<bfloat16_t>(panel, source, pitch);
            break;
        case FractalForm::kHalfRowsN:
            Transpose16(turned, static_cast<const uint16_t*>(source), pitch / 2);
            HalfToFloat(panel, turned, kCols * kCols);
            break;
        case FractalForm::kBfloat16RowsN:
            Transpose16(turned, static_cast<const uint16_t*>(source), pitch / 2);
            Bfloat16ToFloat(panel, turned, kCols * kCols);
            break;
        case FractalForm::kFloatRowsN:
            TurnFractal(panel, static_cast<const float*>(source), pitch / 4, fractalK);
            break;
        default: {
            // In L1 the right half of a row lies in the square's second fractal.
            const auto* left = static_cast<const uint8_t*>(source);
            const uint8_t* rest = left + (pitch == kRowBytes ? kFractalBytes : kRowBytes);
            for (uint32_t k = 0; k < 8; ++k, panel += kCols, left += pitch, rest += pitch) {
                std::memcpy(panel, left, kRowBytes);
                std::memcpy(panel + 8, rest, kRowBytes);
            }
        }
    }
}

void MatMul(const ProductTarget& target, const PendingProduct& product, uint32_t m,
            RightOperand& right) {
    if (ColumnsMayLead(product, right)) {
        ColumnsLead(target, product, m, right);
    } else if (m <= kFewRows && product.fractalK == 8 &&
               Fractals(product.n, kCols) <= kMaxSlabCols) {
        SlabsLead(target, product, m, right);
    } else {
        RowsLead(target, product, m, right);
    }
}

}  // namespace ascend_twin
