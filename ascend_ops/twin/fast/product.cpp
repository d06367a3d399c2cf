// Keeps the products of one tile until Fixpipe wants them. One thread runs all roles of a core, and
// only its AIC multiplies, so what is pending belongs to the thread.
#include "ascend_twin/product.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace ascend_twin {
namespace {

constexpr uint32_t kCols = 16;
constexpr uint32_t kMovedOut = 8;

thread_local PendingProduct tPending;
// Tiles that went to GM without ever lying in L0C: nothing may read them there.
thread_local const float* tMovedOut[kMovedOut];
thread_local uint32_t tNextMovedOut = 0;

ProductTarget TileOf(const PendingProduct& product) {
    const uint32_t rowFractals = (product.m + kCols - 1) / kCols;
    return {product.c, kCols, kCols * kCols, rowFractals * kCols * kCols};
}

void Forget(const float* c) {
    std::replace(tMovedOut, tMovedOut + kMovedOut, c, static_cast<const float*>(nullptr));
}

// A kernel that reads a tile again after Fixpipe took it is one that fast mode cannot serve.
void RequireInL0c(const float* c) {
    if (std::find(tMovedOut, tMovedOut + kMovedOut, c) == tMovedOut + kMovedOut) return;
    std::fputs(
        "twin: an L0C tile is read again after Fixpipe moved it out and its operands were "
        "overwritten; begin it anew with cmatrixInitVal\n",
        stderr);
    std::abort();
}

void Drop() {
    if (tPending.stored) tMovedOut[tNextMovedOut++ % kMovedOut] = tPending.c;
    tPending.c = nullptr;
    tPending.stored = false;
}

}  // namespace

void FlushProduct() {
    if (tPending.c != nullptr && !tPending.stored) {
        MatMulPanels(TileOf(tPending), tPending.parts, tPending.numParts, tPending.m, tPending.n,
                     tPending.fractalK, tPending.accumulate);
    }
    Drop();
}

void AddProduct(float* c, const ProductPart& part, uint32_t m, uint32_t n, uint32_t fractalK,
                bool accumulate) {
    PendingProduct& pending = tPending;
    const bool same =
        pending.c == c && pending.m == m && pending.n == n && pending.fractalK == fractalK;
    if (accumulate && same && !pending.stored && pending.numParts < PendingProduct::kMaxParts) {
        pending.parts[pending.numParts++] = part;
        return;
    }
    if (!(same && !accumulate)) FlushProduct();
    if (accumulate) {
        RequireInL0c(c);
    } else {
        Forget(c);
    }
    pending.c = c;
    pending.m = m;
    pending.n = n;
    pending.fractalK = fractalK;
    pending.accumulate = accumulate;
    pending.stored = false;
    pending.numParts = 1;
    pending.parts[0] = part;
}

void KeepOperands(const float* begin, const float* end) {
    const PendingProduct& pending = tPending;
    if (pending.c == nullptr) return;
    const uint32_t rows = (pending.m + kCols - 1) / kCols * kCols;
    const uint32_t cols = (pending.n + kCols - 1) / kCols * kCols;
    for (uint32_t i = 0; i < pending.numParts; ++i) {
        const ProductPart& part = pending.parts[i];
        const uint64_t depth =
            (part.k + pending.fractalK - 1) / pending.fractalK * pending.fractalK;
        const bool apart = (part.a + depth * rows <= begin || end <= part.a) &&
                           (part.b + depth * cols <= begin || end <= part.b);
        if (!apart) {
            FlushProduct();
            return;
        }
    }
}

void StoreProduct(float* dst, uint32_t pitch, float* c, uint32_t rowsOfTile, uint32_t rows,
                  uint32_t cols) {
    PendingProduct& pending = tPending;
    const uint32_t width = (pending.n + kCols - 1) / kCols * kCols;
    if (pending.c == c && rows <= pending.m && cols == width && !pending.accumulate) {
        const ProductTarget target = {dst, pitch, kCols * pitch, kCols};
        MatMulPanels(target, pending.parts, pending.numParts, rows, cols, pending.fractalK, false);
        pending.stored = true;
        return;
    }
    FlushProduct();
    RequireInL0c(c);
    for (uint32_t row = 0; row < rows; ++row) {
        float* to = dst + static_cast<uint64_t>(row) * pitch;
        for (uint32_t col = 0; col < cols; col += kCols) {
            std::memcpy(to + col, c + (col / kCols * rowsOfTile + row) * kCols,
                        kCols * sizeof(float));
        }
    }
}

}  // namespace ascend_twin
