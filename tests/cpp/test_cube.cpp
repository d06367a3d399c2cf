// LoadData, LoadDataWithTranspose and Mmad. L0A and L0B are seen through Mmad alone, so each load
// is judged by a product: L1 is filled by hand in NZ, the sum is a scalar loop over the matrices.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "run.h"

namespace {

using namespace glm2_test;
using AscendC::LocalTensor;
using AscendC::TPosition;

constexpr uint32_t kL1B = 256 * 1024;  // where B starts in L1

uint32_t Up(uint32_t value, uint32_t unit) { return (value + unit - 1) / unit * unit; }

// Row-major (rows, cols) to NZ with rows padded to 16 and columns to a fractal; the padding is NaN,
// which a product that reads it cannot hide.
template <typename T>
void FillNz(const LocalTensor<T>& l1, const std::vector<float>& matrix, uint32_t rows,
            uint32_t cols) {
    constexpr uint32_t c0 = 32 / sizeof(T);
    const uint32_t padded = Up(rows, 16);
    for (uint32_t r = 0; r < padded; ++r) {
        for (uint32_t c = 0; c < Up(cols, c0); ++c) {
            const float value = r < rows && c < cols ? matrix[r * cols + c] : std::nanf("");
            l1.SetValue(c / c0 * padded * c0 + r * c0 + c % c0, static_cast<T>(value));
        }
    }
}

struct Shape {
    uint32_t m, n, k;
};

// How B reaches L0B, and A reaches L0A.
enum class LoadB { kFromNK, kFromKN };
enum class LoadA { kByRows, kByColumns, kFromKM };

// A stored (M, K): L1 NZ to L0A ZZ, row fractal by row fractal.
template <typename T>
void LoadByRows(const LocalTensor<T>& l0a, const LocalTensor<T>& l1, uint32_t m, uint32_t k) {
    constexpr uint32_t c0 = 32 / sizeof(T), elems = 512 / sizeof(T);
    const uint32_t m1 = Up(m, 16) / 16, k1 = Up(k, c0) / c0;
    AscendC::LoadData2DParams params;
    params.repeatTimes = static_cast<uint8_t>(k1);
    params.srcStride = static_cast<uint16_t>(m1);
    for (uint32_t r = 0; r < m1; ++r) {
        params.startIndex = static_cast<uint16_t>(r);
        AscendC::LoadData(l0a[r * k1 * elems], l1, params);
    }
}

// The same, column by column with gaps in L0A.
template <typename T>
void LoadByColumns(const LocalTensor<T>& l0a, const LocalTensor<T>& l1, uint32_t m, uint32_t k) {
    constexpr uint32_t c0 = 32 / sizeof(T), elems = 512 / sizeof(T);
    const uint32_t m1 = Up(m, 16) / 16, k1 = Up(k, c0) / c0;
    AscendC::LoadData2DParams params;
    params.repeatTimes = static_cast<uint8_t>(m1);
    params.srcStride = 1;
    params.dstGap = static_cast<uint16_t>(k1 - 1);
    for (uint32_t c = 0; c < k1; ++c) {
        AscendC::LoadData(l0a[c * elems], l1[c * m1 * elems], params);
    }
}

// A stored (K, M), half: each fractal is transposed on its way.
template <typename T>
void LoadTransposedA(const LocalTensor<T>& l0a, const LocalTensor<T>& l1, uint32_t m, uint32_t k) {
    constexpr uint32_t elems = 256;
    const uint32_t m1 = Up(m, 16) / 16, k1 = Up(k, 16) / 16;
    AscendC::LoadData2DParams params;
    params.repeatTimes = static_cast<uint8_t>(k1);
    params.srcStride = 1;
    params.ifTranspose = true;
    for (uint32_t r = 0; r < m1; ++r) {
        AscendC::LoadData(l0a[r * k1 * elems], l1[r * k1 * elems], params);
    }
}

// B stored (N, K): L1 NZ to L0B ZN.
template <typename T>
void LoadFromNK(const LocalTensor<T>& l0b, const LocalTensor<T>& l1, uint32_t n, uint32_t k) {
    constexpr uint32_t c0 = 32 / sizeof(T), elems = 512 / sizeof(T);
    const uint32_t n1 = Up(n, 16) / 16;
    AscendC::LoadData2DParams params;
    params.repeatTimes = static_cast<uint8_t>(n1);
    params.srcStride = 1;
    for (uint32_t c = 0; c < Up(k, c0) / c0; ++c) {
        AscendC::LoadData(l0b[c * n1 * elems], l1[c * n1 * elems], params);
    }
}

// B stored (K, N). half: LoadData transposes. float: LoadDataWithTranspose on squares, whose two
// fractals lie side by side when L1 holds one NZ matrix for every 16 rows.
template <typename T>
void LoadFromKN(const LocalTensor<T>& l0b, const LocalTensor<T>& l1, uint32_t n, uint32_t k) {
    constexpr uint32_t elems = 256;
    const uint32_t n1 = Up(n, 16) / 16, k1 = Up(k, 16) / 16;
    AscendC::LoadData2DParams params;
    params.repeatTimes = static_cast<uint8_t>(n1);
    params.srcStride = static_cast<uint16_t>(k1);
    params.ifTranspose = true;
    for (uint32_t c = 0; c < k1; ++c) {
        AscendC::LoadData(l0b[c * n1 * elems], l1[c * elems], params);
    }
}

void LoadFromKN(const LocalTensor<float>& l0b, const LocalTensor<float>& l1, uint32_t n,
                uint32_t k) {
    constexpr uint32_t elems = 128;
    const uint32_t n1 = Up(n, 16) / 16;
    AscendC::LoadData2dTransposeParams params;
    params.repeatTimes = static_cast<uint8_t>(n1);
    params.srcStride = 1;
    params.dstGap = 0;
    params.dstFracGap = static_cast<uint16_t>(n1 - 1);
    for (uint32_t square = 0; square < Up(k, 16) / 16; ++square) {
        params.startIndex = static_cast<uint16_t>(square * n1);
        AscendC::LoadDataWithTranspose(l0b[square * 2 * n1 * elems], l1, params);
    }
}

void FillSquares(const LocalTensor<float>& l1, const std::vector<float>& matrix, uint32_t k,
                 uint32_t n) {
    for (uint32_t row = 0; row < Up(k, 16); row += 16) {
        const uint32_t rows = std::min(16u, k - row);
        const std::vector<float> part(matrix.begin() + row * n, matrix.begin() + (row + rows) * n);
        FillNz(l1[row * Up(n, 16)], part, rows, n);
    }
}

std::vector<float> Transposed(const std::vector<float>& matrix, uint32_t rows, uint32_t cols) {
    std::vector<float> out(matrix.size());
    for (uint32_t r = 0; r < rows; ++r) {
        for (uint32_t c = 0; c < cols; ++c) out[c * rows + r] = matrix[r * cols + c];
    }
    return out;
}

template <typename T>
void CheckProduct(const Shape& s, LoadA howA, LoadB howB, bool accumulate) {
    SCOPED_TRACE(testing::Message() << "m " << s.m << " n " << s.n << " k " << s.k);
    const std::vector<float> a = Integers(s.m * s.k, 1), b = Integers(s.k * s.n, 2);
    const uint32_t padded = Up(s.m, 16), cElems = padded * Up(s.n, 16);
    const std::vector<float> start = Integers(cElems, 3);
    std::vector<float> c;
    RunCube([&] {
        const LocalTensor<T> a1(TPosition::A1, 0, 65536), b1(TPosition::B1, kL1B, 65536);
        const LocalTensor<T> l0a(TPosition::A2, 0, 64 * 1024 / sizeof(T));
        const LocalTensor<T> l0b(TPosition::B2, 0, 64 * 1024 / sizeof(T));
        const LocalTensor<float> l0c(TPosition::CO1, 0, cElems);
        if (howA == LoadA::kFromKM) {
            if constexpr (sizeof(T) == 2) {
                FillNz(a1, Transposed(a, s.m, s.k), s.k, s.m);
                LoadTransposedA(l0a, a1, s.m, s.k);
            }
        } else {
            FillNz(a1, a, s.m, s.k);
            (howA == LoadA::kByRows ? LoadByRows<T> : LoadByColumns<T>)(l0a, a1, s.m, s.k);
        }
        if (howB == LoadB::kFromNK) {
            FillNz(b1, Transposed(b, s.k, s.n), s.n, s.k);
            LoadFromNK(l0b, b1, s.n, s.k);
        } else {
            if constexpr (sizeof(T) == 2) {
                FillNz(b1, b, s.k, s.n);
            } else {
                FillSquares(b1, b, s.k, s.n);
            }
            LoadFromKN(l0b, b1, s.n, s.k);
        }
        Fill(l0c, start);
        AscendC::MmadParams params;
        params.m = static_cast<uint16_t>(s.m);
        params.n = static_cast<uint16_t>(s.n);
        params.k = static_cast<uint16_t>(s.k);
        params.cmatrixInitVal = !accumulate;
        AscendC::Mmad(l0c, l0a, l0b, params);
        c = ValuesOf(l0c, cElems);
    });
    for (uint32_t row = 0; row < s.m; ++row) {
        for (uint32_t col = 0; col < s.n; ++col) {
            const uint32_t at = col / 16 * padded * 16 + row * 16 + col % 16;
            float want = accumulate ? start[at] : 0.0f;
            for (uint32_t i = 0; i < s.k; ++i) want += a[row * s.k + i] * b[i * s.n + col];
            ASSERT_EQ(c[at], want) << "row " << row << " column " << col;
        }
    }
}

const std::vector<Shape>& Shapes() {
    static const std::vector<Shape> shapes = {
        {16, 16, 16}, {2, 16, 16},   {5, 3, 7},      {16, 33, 1},   {17, 16, 31}, {32, 48, 64},
        {33, 65, 29}, {128, 128, 8}, {48, 112, 120}, {1, 128, 128}, {80, 16, 40}, {7, 128, 100},
    };
    return shapes;
}

template <typename T>
class Mmad : public testing::Test {};
using Elements = testing::Types<half, bfloat16_t, float>;
TYPED_TEST_SUITE(Mmad, Elements);

TYPED_TEST(Mmad, MultipliesByATransposedMatrix) {
    for (const Shape& shape : Shapes()) {
        CheckProduct<TypeParam>(shape, LoadA::kByRows, LoadB::kFromNK, false);
    }
}

TYPED_TEST(Mmad, MultipliesByAMatrixTransposedOnItsWay) {
    for (const Shape& shape : Shapes()) {
        CheckProduct<TypeParam>(shape, LoadA::kByRows, LoadB::kFromKN, false);
    }
}

TYPED_TEST(Mmad, AccumulatesOnRequest) {
    for (const Shape& shape : Shapes()) {
        CheckProduct<TypeParam>(shape, LoadA::kByRows, LoadB::kFromNK, true);
    }
}

TYPED_TEST(Mmad, TakesFractalsLoadedWithGaps) {
    for (const Shape& shape : Shapes()) {
        CheckProduct<TypeParam>(shape, LoadA::kByColumns, LoadB::kFromNK, false);
    }
}

TEST(LoadData, TransposesALeftOperand) {
    for (const Shape& shape : Shapes()) {
        CheckProduct<half>(shape, LoadA::kFromKM, LoadB::kFromNK, false);
        CheckProduct<bfloat16_t>(shape, LoadA::kFromKM, LoadB::kFromNK, false);
    }
}

// Against a sum in double: the float sums of one Mmad stay within their worst case.
TEST(MmadInFloat, RoundsAsFloatSumsDo) {
    constexpr uint32_t m = 16, n = 16, k = 128;
    const std::vector<float> a = Normals(m * k, 8), b = Normals(n * k, 9);
    std::vector<float> c;
    RunCube([&] {
        const LocalTensor<float> a1(TPosition::A1, 0, m * k), b1(TPosition::B1, kL1B, n * k);
        const LocalTensor<float> l0a(TPosition::A2, 0, m * k), l0b(TPosition::B2, 0, n * k);
        const LocalTensor<float> l0c(TPosition::CO1, 0, m * n);
        FillNz(a1, a, m, k);
        FillNz(b1, b, n, k);
        LoadByRows(l0a, a1, m, k);
        LoadFromNK(l0b, b1, n, k);
        AscendC::MmadParams params;
        params.m = m;
        params.n = n;
        params.k = k;
        AscendC::Mmad(l0c, l0a, l0b, params);
        c = ValuesOf(l0c, m * n);
    });
    for (uint32_t row = 0; row < m; ++row) {
        for (uint32_t col = 0; col < n; ++col) {
            double sum = 0.0, size = 0.0;
            for (uint32_t i = 0; i < k; ++i) {
                const double product = static_cast<double>(a[row * k + i]) * b[col * k + i];
                sum += product;
                size += std::abs(product);
            }
            EXPECT_LE(std::abs(c[row * 16 + col] - sum), size * k * 0x1p-24);
        }
    }
}

// ---- Products that wait for Fixpipe ------------------------------------------------------------

constexpr uint32_t kSide = 32;  // of the square matrices below

struct Squares {
    std::vector<float> a = Integers(kSide * kSide, 21), b = Integers(kSide * kSide, 22);

    // a b, added to itself `times` times.
    std::vector<float> Product(float times) const {
        std::vector<float> c(kSide * kSide);
        for (uint32_t row = 0; row < kSide; ++row) {
            for (uint32_t col = 0; col < kSide; ++col) {
                for (uint32_t i = 0; i < kSide; ++i) {
                    c[row * kSide + col] += times * a[row * kSide + i] * b[col * kSide + i];
                }
            }
        }
        return c;
    }
};

// What a test does with loaded operands: L0A and L0B hold two copies of them each.
struct CubeState {
    LocalTensor<half> a1, b1, l0a[2], l0b[2];
    LocalTensor<float> l0c;

    explicit CubeState(const Squares& squares)
        : a1(TPosition::A1, 0, 4096),
          b1(TPosition::B1, kL1B, 4096),
          l0c(TPosition::CO1, 0, kSide * kSide) {
        FillNz(a1, squares.a, kSide, kSide);
        FillNz(b1, squares.b, kSide, kSide);
        for (uint32_t i = 0; i < 2; ++i) {
            l0a[i] = LocalTensor<half>(TPosition::A2, i * 4096, kSide * kSide);
            l0b[i] = LocalTensor<half>(TPosition::B2, i * 4096, kSide * kSide);
            Load(i);
        }
    }

    void Load(uint32_t i) const {
        LoadByRows(l0a[i], a1, kSide, kSide);
        LoadFromNK(l0b[i], b1, kSide, kSide);
    }

    void Multiply(uint32_t i, bool fresh) const {
        AscendC::MmadParams params;
        params.m = params.n = params.k = kSide;
        params.cmatrixInitVal = fresh;
        AscendC::Mmad(l0c, l0a[i], l0b[i], params);
    }

    void Store(std::vector<float>& gm, uint32_t rows = kSide) const {
        AscendC::FixpipeParamsV220 params;
        params.nSize = kSide;
        params.mSize = static_cast<uint16_t>(rows);
        params.srcStride = kSide;
        params.dstStride = kSide;
        params.ndNum = 1;
        AscendC::Fixpipe<float, float, AscendC::CFG_ROW_MAJOR>(glm2_test::Gm(gm), l0c, params);
    }
};

TEST(Products, GoStraightToGm) {
    const Squares squares;
    std::vector<float> gm(kSide * kSide);
    RunCube([&] {
        const CubeState cube(squares);
        cube.Multiply(0, true);
        cube.Multiply(1, false);
        cube.Store(gm);
    });
    EXPECT_EQ(gm, squares.Product(2.0f));
}

TEST(Products, AreComputedBeforeTheirOperandsAreOverwritten) {
    const Squares squares;
    std::vector<float> gm(kSide * kSide);
    RunCube([&] {
        const CubeState cube(squares);
        for (uint32_t i = 0; i < 5; ++i) {
            if (i > 0) {
                FillNz(cube.a1, Integers(kSide * kSide, 40 + i), kSide, kSide);
                cube.Load(0);  // other numbers
                FillNz(cube.a1, squares.a, kSide, kSide);
                cube.Load(0);
            }
            cube.Multiply(0, i == 0);
        }
        cube.Store(gm);
    });
    EXPECT_EQ(gm, squares.Product(5.0f));
}

TEST(Products, MayBeMoreThanAreKept) {
    const Squares squares;
    std::vector<float> gm(kSide * kSide);
    RunCube([&] {
        const CubeState cube(squares);
        for (uint32_t i = 0; i < 21; ++i) cube.Multiply(i % 2, i == 0);
        cube.Store(gm);
    });
    EXPECT_EQ(gm, squares.Product(21.0f));
}

TEST(Products, ThatNobodyWantedAreForgotten) {
    const Squares squares;
    std::vector<float> gm(kSide * kSide);
    RunCube([&] {
        const CubeState cube(squares);
        cube.Multiply(0, true);
        cube.Multiply(1, true);
        cube.Store(gm);
    });
    EXPECT_EQ(gm, squares.Product(1.0f));
}

TEST(Products, MayBeStoredTwiceAndInPart) {
    const Squares squares;
    std::vector<float> first(kSide * kSide), second(kSide * kSide, -1.0f);
    RunCube([&] {
        const CubeState cube(squares);
        cube.Multiply(0, true);
        cube.Store(first);
        cube.Store(second, 5);
    });
    std::vector<float> want = squares.Product(1.0f);
    EXPECT_EQ(first, want);
    std::fill(want.begin() + 5 * kSide, want.end(), -1.0f);
    EXPECT_EQ(second, want);
}

TEST(Products, JoinWhatTheTileHolds) {
    const Squares squares;
    std::vector<float> gm(kSide * kSide);
    RunCube([&] {
        const CubeState cube(squares);
        Fill(cube.l0c, std::vector<float>(kSide * kSide, 3.0f));
        cube.Multiply(0, false);
        cube.Store(gm);
    });
    std::vector<float> want = squares.Product(1.0f);
    for (float& value : want) value += 3.0f;
    EXPECT_EQ(gm, want);
}

TEST(Products, OfAnEarlierLaunchAreForgotten) {
    const Squares squares;
    std::vector<float> gm(kSide * kSide);
    RunCube([&] {
        const CubeState cube(squares);
        cube.Multiply(0, true);
        cube.Store(gm);
        cube.Load(0);  // the tile has left L0C
    });
    RunCube([&] {
        const CubeState cube(squares);
        Fill(cube.l0c, std::vector<float>(kSide * kSide, 3.0f));
        cube.Multiply(0, false);
        cube.Store(gm);
    });
    std::vector<float> want = squares.Product(1.0f);
    for (float& value : want) value += 3.0f;
    EXPECT_EQ(gm, want);
}

TEST(ProductsDeathTest, ThatAreGoneCannotBeAddedTo) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    const Squares squares;
    const auto kernel = [&] {
        std::vector<float> gm(kSide * kSide);
        RunCube([&] {
            const CubeState cube(squares);
            cube.Multiply(0, true);
            cube.Store(gm);
            cube.Load(0);  // the operands are gone, and the sum never lay in L0C
            cube.Multiply(0, false);
        });
    };
    EXPECT_DEATH(kernel(), "read again after Fixpipe moved it out");
}

}  // namespace
