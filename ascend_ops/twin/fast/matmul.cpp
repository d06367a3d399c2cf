// The micro-kernel behind Mmad: a register tile of rows x 16 columns (two of them on AVX-512), k
// innermost, on the fractal panels that LoadData leaves in L0A and L0B.
#include <algorithm>
#include <cstdint>

#include "ascend_twin/product.h"
#include "simd.h"

namespace ascend_twin {
namespace {

constexpr uint32_t kCols = 16;  // columns of a B or C fractal
constexpr uint32_t kVectorsPerFractal = kCols / kLanes;
// Accumulators fill the registers that are left beside a row of B and one broadcast.
constexpr uint32_t kMaxRows = kLanes == 16 ? 8 : (kLanes == 8 ? 6 : 4);
constexpr uint32_t kMaxFractals = kLanes == 16 ? 2 : 1;

struct PanelShape {
    uint32_t k;
    uint32_t fractalK;
    uint32_t bStep;  // floats from one k fractal of B to the next
};

// k that one chain of float32 additions covers. Float operands keep 24 bits, so there the rounding
// of long chains shows: they are cut at 32. Under half operands, with 11 bits, it does not.
constexpr uint32_t ChainLength(uint32_t fractalK) { return fractalK == 8 ? 32 : 0xffffffffu; }

// c (rows, 16 * fractals); a points at row 0 of the tile inside its row fractal, whose k fractals
// follow one another.
template <uint32_t rows, uint32_t fractals>
void Tile(const ProductTarget& c, const float* a, const float* b, const PanelShape& shape,
          bool accumulate) {
    constexpr uint32_t vectors = fractals * kVectorsPerFractal;
    const uint32_t bFractal = kCols * shape.fractalK;
    const uint32_t chain = ChainLength(shape.fractalK);
    for (uint32_t begin = 0; begin < shape.k;) {
        const uint32_t end = begin + std::min(chain, shape.k - begin);
        Vector acc[rows][vectors] = {};
        for (uint32_t k0 = begin; k0 < end; k0 += shape.fractalK) {
            const uint32_t depth = std::min(shape.fractalK, end - k0);
            for (uint32_t k = 0; k < depth; ++k) {
                Vector bRow[vectors];
                for (uint32_t v = 0; v < vectors; ++v) {
                    bRow[v] = Load(b + (v / kVectorsPerFractal) * bFractal + k * kCols +
                                   (v % kVectorsPerFractal) * kLanes);
                }
                for (uint32_t r = 0; r < rows; ++r) {
                    const Vector scalar = Broadcast(a[r * shape.fractalK + k]);
                    for (uint32_t v = 0; v < vectors; ++v) acc[r][v] += scalar * bRow[v];
                }
            }
            a += kCols * shape.fractalK;
            b += shape.bStep;
        }
        const bool join = accumulate || begin > 0;
        for (uint32_t r = 0; r < rows; ++r) {
            for (uint32_t v = 0; v < vectors; ++v) {
                float* to = c.data + (v / kVectorsPerFractal) * c.colFractalStep +
                            static_cast<uint64_t>(r) * c.rowPitch +
                            (v % kVectorsPerFractal) * kLanes;
                Store(to, join ? Load(to) + acc[r][v] : acc[r][v]);
            }
        }
        begin = end;
    }
}

template <uint32_t fractals>
void TileOfRows(uint32_t rows, const ProductTarget& c, const float* a, const float* b,
                const PanelShape& shape, bool accumulate) {
    switch (rows) {
        case 1:
            return Tile<1, fractals>(c, a, b, shape, accumulate);
        case 2:
            return Tile<2, fractals>(c, a, b, shape, accumulate);
        case 3:
            return Tile<3, fractals>(c, a, b, shape, accumulate);
        case 4:
            return Tile<4, fractals>(c, a, b, shape, accumulate);
        case 5:
            return Tile<5, fractals>(c, a, b, shape, accumulate);
        case 6:
            return Tile<6, fractals>(c, a, b, shape, accumulate);
        case 7:
            return Tile<7, fractals>(c, a, b, shape, accumulate);
        default:
            return Tile<8, fractals>(c, a, b, shape, accumulate);
    }
}

// All parts of rows [done, done + rows) of one row fractal, and of one or two column fractals.
void SumParts(const ProductTarget& c, const ProductPart* parts, uint32_t numParts, uint32_t row,
              uint32_t done, uint32_t rows, uint32_t col, uint32_t fractals, uint32_t colFractals,
              uint32_t fractalK, bool accumulate) {
    for (uint32_t i = 0; i < numParts; ++i) {
        const ProductPart& part = parts[i];
        const uint32_t depthFractals = (part.k + fractalK - 1) / fractalK;
        const PanelShape shape = {part.k, fractalK, colFractals * kCols * fractalK};
        const float* a = part.a + (row * depthFractals * kCols + done) * fractalK;
        const float* b = part.b + col * kCols * fractalK;
        if (kMaxFractals == 2 && fractals == 2) {
            TileOfRows<kMaxFractals>(rows, c, a, b, shape, accumulate || i > 0);
        } else {
            TileOfRows<1>(rows, c, a, b, shape, accumulate || i > 0);
        }
    }
}

}  // namespace

void MatMulPanels(const ProductTarget& target, const ProductPart* parts, uint32_t numParts,
                  uint32_t m, uint32_t n, uint32_t fractalK, bool accumulate) {
    const uint32_t rowFractals = (m + kCols - 1) / kCols;
    const uint32_t colFractals = (n + kCols - 1) / kCols;
    for (uint32_t col = 0; col < colFractals; col += kMaxFractals) {
        const uint32_t fractals = std::min(kMaxFractals, colFractals - col);
        for (uint32_t row = 0; row < rowFractals; ++row) {
            const uint32_t rows = std::min(kCols, m - row * kCols);
            const uint32_t passes = (rows + kMaxRows - 1) / kMaxRows;
            uint32_t done = 0;
            for (uint32_t pass = 0; pass < passes; ++pass) {
                // 16 rows go as 6 + 5 + 5, not 6 + 6 + 4: equal passes keep the FMA units busy.
                const uint32_t live = (rows - done + passes - pass - 1) / (passes - pass);
                ProductTarget c = target;
                c.data += static_cast<uint64_t>(row) * target.rowFractalStep +
                          static_cast<uint64_t>(col) * target.colFractalStep +
                          static_cast<uint64_t>(done) * target.rowPitch;
                SumParts(c, parts, numParts, row, done, live, col, fractals, colFractals, fractalK,
                         accumulate);
                done += live;
            }
        }
    }
}

}  // namespace ascend_twin
