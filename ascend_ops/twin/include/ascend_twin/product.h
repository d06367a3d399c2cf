// Products that Mmad has been asked for, kept until their result is wanted. Fixpipe computes them
// straight into GM, so that they never pass through L0C; whatever would overwrite their operands or
// look at their tile makes them happen in L0C first.
#ifndef ASCEND_TWIN_PRODUCT_H_
#define ASCEND_TWIN_PRODUCT_H_

#include <cstdint>

namespace ascend_twin {

struct CoreMemory;

// One summand: c += a (m, k) b (k, n). a is a panel [m1][k1][16][fractalK], b the first fractal of
// L0B, [k1][n1].
struct ProductPart {
    const float* a;
    uint32_t b;
    uint32_t k;
};

// The products that one L0C tile is the sum of.
struct PendingProduct {
    static constexpr uint32_t kMaxParts = 8;

    float* c = nullptr;  // the tile; null: nothing is pending
    uint32_t m = 0;
    uint32_t n = 0;
    uint32_t fractalK = 0;
    bool accumulate = false;  // the tile's old contents join in
    bool stored = false;      // Fixpipe has had it; it only serves another Fixpipe
    uint32_t numParts = 0;
    ProductPart parts[kMaxParts];
};

// c (m, n) = a (m, k) b (k, n), added to c where `accumulate`, whenever it is wanted.
void AddProduct(float* c, const ProductPart& part, uint32_t m, uint32_t n, uint32_t fractalK,
                bool accumulate);

// At the start of a launch: what an earlier one multiplied is gone, and its GM with it.
void ForgetProducts(CoreMemory* memory);

// Computes what is pending into its tile.
void FlushProduct();

// rows x cols of a tile to GM, row by row.
void StoreProduct(float* dst, uint32_t pitch, float* c, uint32_t rowsOfTile, uint32_t rows,
                  uint32_t cols);

// Before `floats` of L0A are loaded anew.
void BeforeLoadA(const float* panel, uint32_t floats);

// Before `count` fractals of L0B are; returns the first one's number.
uint32_t BeforeLoadB(const float* panel, uint32_t fractalElems, uint32_t count);

// Before bytes of L1 are overwritten: what L0B has of them is kept.
void BeforeL1Write(const void* begin, const void* end);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_PRODUCT_H_
