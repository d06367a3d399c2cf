// The micro-kernel behind Mmad: a register tile of rows x 16 columns (two of them on AVX-512), k
// innermost.
#ifndef ASCEND_TWIN_FAST_REGISTER_TILE_H_
#define ASCEND_TWIN_FAST_REGISTER_TILE_H_

#include <algorithm>
#include <cstdint>

#include "matmul.h"
#include "simd.h"

namespace ascend_twin {

constexpr uint32_t kCols = 16;  // columns of a B or C fractal
constexpr uint32_t kVectorsPerFractal = kCols / kLanes;
// Accumulators fill the registers that are left beside a row of B and one broadcast.
constexpr uint32_t kMaxRows = kLanes == 16 ? 8 : (kLanes == 8 ? 6 : 4);
constexpr uint32_t kMaxFractals = kLanes == 16 ? 2 : 1;
constexpr uint32_t kBlockK = RightOperand::kBlockK;

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

// acc += column k of the left operand's rows times row k of the right one.
template <uint32_t rows, uint32_t fractals>
[[gnu::always_inline]] inline void MultiplyStep(Vector (&acc)[rows][fractals * kVectorsPerFractal],
                                                const float* a, uint64_t pitch, const float* b,
                                                uint32_t fractal) {
    constexpr uint32_t vectors = fractals * kVectorsPerFractal;
    Vector bRow[vectors];
    for (uint32_t v = 0; v < vectors; ++v) {
        bRow[v] = Load(b + (v / kVectorsPerFractal) * fractal + (v % kVectorsPerFractal) * kLanes);
    }
    for (uint32_t r = 0; r < rows; ++r) {
        const Vector scalar = Broadcast(a[r * pitch]);
        for (uint32_t v = 0; v < vectors; ++v) acc[r][v] += scalar * bRow[v];
    }
}

// c (rows, 16 * fractals) = left right, added to c where `accumulate`. The rows are `done` and on
// of the 16 of row fractal `row`. fractalK is that of the operands.
template <uint32_t rows, uint32_t fractals, uint32_t fractalK>
void TileOfDepth(const ProductTarget& c, const TileOperands& t, uint32_t row, uint32_t done,
                 bool accumulate) {
    constexpr uint32_t vectors = fractals * kVectorsPerFractal;
    constexpr uint32_t fractal = kCols * fractalK;
    const float* b = t.right;
    uint32_t chainLeft = ChainLength(fractalK);
    Vector acc[rows][vectors];
    const auto clear = [&] {
        for (uint32_t r = 0; r < rows; ++r) {
            for (uint32_t v = 0; v < vectors; ++v) acc[r][v] = Vector{};
        }
    };
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
    clear();
    for (uint32_t piece = 0; piece < t.pieces; ++piece) {
        const LeftPiece& left = t.left[piece];
        const uint64_t pitch = left.rowPitch;
        const float* a = left.data + row * left.row16Step + done * pitch;
        for (uint32_t k = left.k; k > 0; k -= std::min(k, fractalK)) {
            if (chainLeft == 0) {
                close();
                accumulate = true;
                chainLeft = ChainLength(fractalK);
                clear();
            }
            if (k >= fractalK && pitch == fractalK) {
#pragma GCC unroll 16
                for (uint32_t i = 0; i < fractalK; ++i) {
                    MultiplyStep<rows, fractals>(acc, a + i, fractalK, b + i * kCols, fractal);
                }
            } else {
                const uint32_t depth = std::min(k, fractalK);
                for (uint32_t i = 0; i < depth; ++i) {
                    MultiplyStep<rows, fractals>(acc, a + i, pitch, b + i * kCols, fractal);
                }
            }
            a += left.sliceStep;
            b += t.rightStep;
            chainLeft -= fractalK;
        }
    }
    close();
}

template <uint32_t rows, uint32_t fractals>
void Tile(const ProductTarget& c, const TileOperands& t, uint32_t row, uint32_t done,
          bool accumulate) {
    if (t.fractalK == 16) return TileOfDepth<rows, fractals, 16>(c, t, row, done, accumulate);
    TileOfDepth<rows, fractals, 8>(c, t, row, done, accumulate);
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

inline void TileOfFractals(uint32_t rows, uint32_t fractals, const ProductTarget& c,
                           const TileOperands& t, uint32_t row, uint32_t done, bool accumulate) {
    if (kMaxFractals == 2 && fractals == 2) {
        TileOfRows<kMaxFractals>(rows, c, t, row, done, accumulate);
    } else {
        TileOfRows<1>(rows, c, t, row, done, accumulate);
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

inline uint32_t Fractals(uint32_t size, uint32_t side) { return (size + side - 1) / side; }

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_REGISTER_TILE_H_
