// Products that Mmad has been asked for, kept until their result is wanted. Fixpipe computes them
// straight into GM, so that they never pass through L0C; whatever touches their operands or their
// tile before makes them happen in L0C first.
#ifndef ASCEND_TWIN_PRODUCT_H_
#define ASCEND_TWIN_PRODUCT_H_

#include <cstdint>

namespace ascend_twin {

// Where a product goes: 16 x 16 squares of a row pitch, some floats apart.
struct ProductTarget {
    float* data;
    uint32_t rowPitch;        // from one row to the next
    uint32_t rowFractalStep;  // from one square to the one below
    uint32_t colFractalStep;  // from one square to the one on its right
};

// One summand: c += a (m, k) b (k, n), a and b fractal panels.
struct ProductPart {
    const float* a;
    const float* b;
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

// target (m, n) = the sum of the parts, and of what it holds where `accumulate`. a is
// [m1][k1][16][fractalK], b is [k1][n1][fractalK][16].
void MatMulPanels(const ProductTarget& target, const ProductPart* parts, uint32_t numParts,
                  uint32_t m, uint32_t n, uint32_t fractalK, bool accumulate);

// c (m, n) = a (m, k) b (k, n), added to c where `accumulate`, whenever it is wanted.
void AddProduct(float* c, const ProductPart& part, uint32_t m, uint32_t n, uint32_t fractalK,
                bool accumulate);

// Computes what is pending into its tile.
void FlushProduct();

// Before L0A or L0B is overwritten from `begin` to `end`.
void KeepOperands(const float* begin, const float* end);

// rows x cols of a tile to GM, row by row.
void StoreProduct(float* dst, uint32_t pitch, float* c, uint32_t rowsOfTile, uint32_t rows,
                  uint32_t cols);

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_PRODUCT_H_
