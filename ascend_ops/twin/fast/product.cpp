// Keeps the products of one tile until Fixpipe wants them. One thread runs all roles of a core, and
// only its AIC multiplies, so what is pending belongs to the thread.
#include "ascend_twin/product.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "ascend_twin/core.h"
#include "matmul.h"
#include "panels.h"

namespace ascend_twin {
namespace {

CoreMemory* Memory() { return CurrentContext().memory; }

ProductTarget TileOf(const PendingProduct& product) {
    const uint32_t rowFractals = (product.m + kCols - 1) / kCols;
    return {product.c, kCols, kCols * kCols, rowFractals * kCols * kCols};
}

void Forget(CoreMemory* memory, const float* c) {
    std::replace(memory->movedOut, memory->movedOut + kMovedOut, c,
                 static_cast<const float*>(nullptr));
}

// A kernel that reads a tile again after Fixpipe took it is one that fast mode cannot serve.
void RequireInL0c(const CoreMemory* memory, const float* c) {
    const float* const* end = memory->movedOut + kMovedOut;
    if (std::find(memory->movedOut, end, c) == end) return;
    std::fputs(
        "twin: an L0C tile is read again after Fixpipe moved it out and its operands were "
        "overwritten; begin it anew with cmatrixInitVal\n",
        stderr);
    std::abort();
}

void Flush(CoreMemory* memory) {
    PendingProduct& p = memory->pending;
    if (p.c != nullptr && !p.stored) MatMul(TileOf(p), p, p.m, memory->l0b);
    if (p.stored) memory->movedOut[memory->nextMovedOut++ % kMovedOut] = p.c;
    p.c = nullptr;
    p.stored = false;
}

// Fractals of a part in L0B.
uint32_t FractalsOfB(const PendingProduct& p, const ProductPart& part) {
    return Fractals(part.k, p.fractalK) * Fractals(p.n, kCols);
}

// Before bytes of L1 are overwritten: what L0A has of them is kept.
void KeepBytes(IntegerOperand* operand, const uint8_t* begin, const uint8_t* end) {
    for (uint32_t at = 0; at < IntegerOperand::kFractals; ++at) {
        const uint8_t*& source = operand->source[at];
        if (source == nullptr || source >= end || source + kFractalBytes <= begin) continue;
        uint8_t* saved = operand->saved + at * kFractalBytes;
        std::memcpy(saved, source, kFractalBytes);
        source = saved;
    }
}

}  // namespace

void ForgetProducts(CoreMemory* memory) {
    memory->pending = PendingProduct();
    std::fill_n(memory->movedOut, kMovedOut, nullptr);
}

void FlushProduct() { Flush(Memory()); }

void AddProduct(float* c, const ProductPart& part, uint32_t m, uint32_t n, uint32_t fractalK,
                bool accumulate) {
    CoreMemory* memory = Memory();
    PendingProduct& pending = memory->pending;
    const bool same =
        pending.c == c && pending.m == m && pending.n == n && pending.fractalK == fractalK;
    if (accumulate && same && !pending.stored && pending.numParts < PendingProduct::kMaxParts) {
        pending.parts[pending.numParts++] = part;
        return;
    }
    if (!(same && !accumulate)) Flush(memory);
    if (accumulate) {
        RequireInL0c(memory, c);
    } else {
        Forget(memory, c);
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

void BeforeLoadA(const float* panel, uint32_t floats) {
    const PendingProduct& p = Memory()->pending;
    if (p.c == nullptr) return;
    const uint32_t rows = Fractals(p.m, kCols) * kCols;
    for (uint32_t i = 0; i < p.numParts; ++i) {
        const float* a = p.parts[i].a;
        const uint32_t used = rows * Fractals(p.parts[i].k, p.fractalK) * p.fractalK;
        if (a < panel + floats && panel < a + used) return FlushProduct();
    }
}

uint32_t BeforeLoadB(const float* panel, uint32_t fractalElems, uint32_t count) {
    const PendingProduct& p = Memory()->pending;
    const uint32_t first = static_cast<uint32_t>(panel - Memory()->l0b.panels) / fractalElems;
    for (uint32_t i = 0; p.c != nullptr && i < p.numParts; ++i) {
        const uint32_t b = p.parts[i].b;
        if (b < first + count && first < b + FractalsOfB(p, p.parts[i])) FlushProduct();
    }
    return first;
}

void BeforeL1Write(const void* begin, const void* end) {
    KeepBytes(&Memory()->integers, static_cast<const uint8_t*>(begin),
              static_cast<const uint8_t*>(end));
    RightOperand& right = Memory()->l0b;
    // The last byte of a fractal or square is at most this far from its first.
    constexpr uintptr_t kReach = 1024;
    const auto from = reinterpret_cast<uintptr_t>(begin) - (kReach - 1);
    const uintptr_t size = reinterpret_cast<uintptr_t>(end) - from;
    bool any = false;
    for (uint32_t at = 0; at < RightOperand::kFractals; ++at) {
        any |= reinterpret_cast<uintptr_t>(right.source[at]) - from < size;
    }
    if (!any) return;
    for (uint32_t at = 0; at < RightOperand::kFractals; ++at) {
        if (reinterpret_cast<uintptr_t>(right.source[at]) - from >= size) continue;
        const uint32_t fractalK = right.form[at] < FractalForm::kFloatRowsN ? 16 : 8;
        float* panel = right.panels + at * kCols * fractalK;
        FractalToPanelOfK(panel, right, at, fractalK);
        right.Place(at, {reinterpret_cast<const uint8_t*>(panel), 0}, FractalForm::kPanel);
    }
}

void StoreProduct(float* dst, uint32_t pitch, float* c, uint32_t rowsOfTile, uint32_t rows,
                  uint32_t cols) {
    CoreMemory* memory = Memory();
    PendingProduct& pending = memory->pending;
    const uint32_t width = (pending.n + kCols - 1) / kCols * kCols;
    if (pending.c == c && rows <= pending.m && cols == width && !pending.accumulate) {
        const ProductTarget target = {dst, pitch, kCols * pitch, kCols};
        MatMul(target, pending, rows, memory->l0b);
        pending.stored = true;
        return;
    }
    Flush(memory);
    RequireInL0c(memory, c);
    for (uint32_t row = 0; row < rows; ++row) {
        float* to = dst + static_cast<uint64_t>(row) * pitch;
        for (uint32_t col = 0; col < cols; col += kCols) {
            std::memcpy(to + col, c + (col / kCols * rowsOfTile + row) * kCols,
                        kCols * sizeof(float));
        }
    }
}

}  // namespace ascend_twin
