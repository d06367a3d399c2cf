// Widens and turns what LoadData has left in L0B, from L1 or from GM.
#include "panels.h"

#include <algorithm>
#include <cstring>

#include "ascend_twin/transpose.h"

namespace ascend_twin {
namespace {

// 16 rows of 16 elements of 16 bits, as floats.
template <typename T>
void WidenRows(float* to, const void* from, uint32_t pitch) {
    const T* row = static_cast<const T*>(from);
    for (uint32_t r = 0; r < kCols; ++r) {
        ToFloats(to + r * kCols, row + r * (pitch / sizeof(T)), kCols);
    }
}

// Bytes that one row of a fractal covers; a float fractal by rows of k is two in one.
uint32_t RowBytes(FractalForm form) {
    return form == FractalForm::kFloatRowsK ? 2 * kRowBytes : kRowBytes;
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

}  // namespace

void TurnFractal(float* to, const float* from, uint32_t pitch, uint32_t cols) {
    for (uint32_t c = 0; c < cols; c += 8) {
        Transpose8(to + c * kCols, kCols, from + c, pitch);
        Transpose8(to + c * kCols + 8, kCols, from + 8 * pitch + c, pitch);
    }
}

bool LiesByRows(FractalForm form) {
    return form == FractalForm::kHalfRowsN || form == FractalForm::kBfloat16RowsN ||
           form == FractalForm::kFloatRowsN;
}

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

void FractalToPanelOfK(float* panel, const RightOperand& right, uint32_t at, uint32_t fractalK) {
    const void* source = right.source[at];
    const uint32_t pitch = right.pitch[at];
    alignas(64) uint16_t turned[kCols * kCols];
    switch (right.form[at]) {
        case FractalForm::kPanel:
            std::memcpy(panel, source, kCols * fractalK * sizeof(float));
            break;
        case FractalForm::kBytes:
            std::memcpy(panel, source, kFractalBytes);
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

LeftPiece RowsOfN(float* rows, const RightOperand& right, const uint32_t* slices, uint32_t depth,
                  uint32_t col, uint32_t k, uint32_t fractalK) {
    uint32_t at[kBlockK / 8] = {};
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

void GatherSlab(float* panels, const RightOperand& right, uint32_t first, uint32_t slices,
                uint32_t colFractals, uint32_t fractalK) {
    const uint32_t fractal = kCols * fractalK;
    uint32_t at[kMaxSlabCols];
    float* to[kMaxSlabCols];
    for (uint32_t slice = 0; slice < slices; ++slice) {
        for (uint32_t col = 0; col < colFractals; ++col) {
            const uint32_t panel = col / kMaxFractals * kMaxFractals;
            const uint32_t width = std::min(kMaxFractals, colFractals - panel);
            at[col] = first++;
            to[col] = panels + (panel * slices + slice * width + col - panel) * fractal;
        }
        const FractalForm form = right.form[at[0]];
        if (LiesByRows(form) || !AreOneView(right, at, colFractals)) {
            for (uint32_t col = 0; col < colFractals; ++col) {
                FractalToPanelOfK(to[col], right, at[col], fractalK);
            }
            continue;
        }
        const auto* row = static_cast<const uint8_t*>(right.source[at[0]]);
        const uint32_t width = RowBytes(form);
        for (uint32_t k = 0; k < fractalK; ++k, row += right.pitch[at[0]]) {
            for (uint32_t col = 0; col < colFractals; ++col) {
                if (form == FractalForm::kFloatRowsK) {
                    std::memcpy(to[col] + k * kCols, row + col * width, kCols * sizeof(float));
                } else {
                    Widen(to[col] + k * kCols, row + col * width, form, kCols);
                }
            }
        }
    }
}

}  // namespace ascend_twin
