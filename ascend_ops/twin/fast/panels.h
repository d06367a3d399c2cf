// Fractals of L0B as floats, in the order in which a register tile wants them.
#ifndef ASCEND_TWIN_FAST_PANELS_H_
#define ASCEND_TWIN_FAST_PANELS_H_

#include <cstdint>

#include "ascend_twin/core.h"
#include "register_tile.h"

namespace ascend_twin {

constexpr uint32_t kRowBytes = 32;  // of a fractal

// to[c][r] = from[r][c], 16 rows of 8 or 16 floats.
void TurnFractal(float* to, const float* from, uint32_t pitch, uint32_t cols);

// Whether a fractal is rows of n with k inside.
bool LiesByRows(FractalForm form);

// While columns `col` and on of a view are read, `step` fractals wide, asks the memory for the next
// ones. `at` is a fractal of theirs, `k1` its number along k.
void PrefetchNext(const RightOperand& right, uint32_t at, uint32_t k1, uint32_t col, uint32_t step,
                  uint32_t colFractals);

// One fractal as a panel: fractalK rows of 16 n.
void FractalToPanelOfK(float* panel, const RightOperand& right, uint32_t at, uint32_t fractalK);

// 16 rows of n with all `k` inside, column `col` of each of `depth` slices, as a left operand of
// floats. Whole rows are read one after the other, as memory likes it; floats stay where they are.
LeftPiece RowsOfN(float* rows, const RightOperand& right, const uint32_t* slices, uint32_t depth,
                  uint32_t col, uint32_t k, uint32_t fractalK);

// Some slices of k, as panels as wide as a register tile, one after the other. Whole rows are read
// one after the other where they lie in GM. At most kMaxSlabCols columns of fractals.
constexpr uint32_t kSlab = 64;  // rows of k
constexpr uint32_t kMaxSlabCols = sizeof(RightOperand::columns) / sizeof(float) / kSlab / kCols;
void GatherSlab(float* panels, const RightOperand& right, uint32_t first, uint32_t slices,
                uint32_t colFractals, uint32_t fractalK);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_PANELS_H_
