// int8 and int4b_t on the twin: Mmad against a loop over int64, casts against tables and formulas.
#include <algorithm>
#include <cmath>

#include "run.h"

namespace {

using namespace glm2_test;
using AscendC::int4b_t;
using AscendC::LocalTensor;
using AscendC::TPosition;

constexpr uint32_t kL1B = 256 * 1024;  // where B starts in L1

struct Shape {
    uint32_t m, n, k;
};

uint32_t Up(uint32_t value, uint32_t unit) { return (value + unit - 1) / unit * unit; }

// Values of all sizes, extremes as often as everything else.
std::vector<int32_t> Values(uint32_t count, int32_t low, int32_t high, uint32_t seed) {
    std::mt19937 engine(seed);
    std::vector<int32_t> values(count);
    for (int32_t& value : values) {
        const auto any = static_cast<int32_t>(engine() % static_cast<uint32_t>(high - low + 1));
        value = engine() % 2 == 0 ? low + any : (any % 2 == 0 ? low : high);
    }
    return values;
}

// (rows, depth) to NZ, fractals of 16 rows and 32 bytes; what fills them up are the highest values,
// which a product that reads it cannot hide.
void FillNz(const LocalTensor<int8_t>& l1, const std::vector<int32_t>& matrix, uint32_t rows,
            uint32_t depth, uint32_t bits) {
    const uint32_t padded = Up(rows, 16), perByte = 8 / bits, columns = 32 * perByte;
    const auto at = [&](uint32_t r, uint32_t c) {
        return r < rows && c < depth ? matrix[r * depth + c] : (bits == 8 ? 127 : 7);
    };
    for (uint32_t r = 0; r < padded; ++r) {
        for (uint32_t c = 0; c < Up(depth, columns); c += perByte) {
            const int32_t byte = bits == 8 ? at(r, c) : (at(r, c) & 15) | at(r, c + 1) * 16;
            const uint32_t to = c / columns * padded * 32 + r * 32 + c % columns / perByte;
            l1.SetValue(to, static_cast<int8_t>(byte));
        }
    }
}

// A by rows to L0A ZZ, B stored (N, K) to L0B ZN.
void LoadOperands(const LocalTensor<int8_t>& l0a, const LocalTensor<int8_t>& l0b,
                  const LocalTensor<int8_t>& l1a, const LocalTensor<int8_t>& l1b, uint32_t m1,
                  uint32_t n1, uint32_t k1) {
    AscendC::LoadData2DParams params;
    params.repeatTimes = static_cast<uint8_t>(k1);
    params.srcStride = static_cast<uint16_t>(m1);
    for (uint32_t r = 0; r < m1; ++r) {
        params.startIndex = static_cast<uint16_t>(r);
        AscendC::LoadData(l0a[r * k1 * 512], l1a, params);
    }
    params.repeatTimes = static_cast<uint8_t>(n1);
    params.srcStride = 1;
    for (uint32_t k = 0; k < k1; ++k) {
        params.startIndex = static_cast<uint16_t>(k * n1);
        AscendC::LoadData(l0b[k * n1 * 512], l1b, params);
    }
}

// Twice the product of A and B: one Mmad that begins the sum and one that adds to it. `spoil`: L1
// is overwritten in between, which must not be seen.
std::vector<int32_t> Multiply(const std::vector<int32_t>& a, const std::vector<int32_t>& b,
                              const Shape& s, uint32_t bits, bool spoil) {
    const uint32_t m1 = Up(s.m, 16) / 16, n1 = Up(s.n, 16) / 16;
    const uint32_t k1 = Up(s.k, 256 / bits) / (256 / bits);
    std::vector<int32_t> c(s.m * n1 * 16, -1);
    RunCube([&] {
        const LocalTensor<int8_t> l1a(TPosition::A1, 0, m1 * k1 * 512);
        const LocalTensor<int8_t> l1b(TPosition::B1, kL1B, n1 * k1 * 512);
        const LocalTensor<int8_t> l0a(TPosition::A2, 0, m1 * k1 * 512);
        const LocalTensor<int8_t> l0b(TPosition::B2, 0, n1 * k1 * 512);
        const LocalTensor<int32_t> l0c(TPosition::CO1, 0, m1 * n1 * 256);
        FillNz(l1a, a, s.m, s.k, bits);
        FillNz(l1b, b, s.n, s.k, bits);
        LoadOperands(l0a, l0b, l1a, l1b, m1, n1, k1);
        AscendC::MmadParams params;
        params.m = static_cast<uint16_t>(s.m);
        params.n = static_cast<uint16_t>(s.n);
        params.k = static_cast<uint16_t>(s.k);
        for (uint32_t pass = 0; pass < 2; ++pass) {
            params.cmatrixInitVal = pass == 0;
            if (bits == 8) {
                AscendC::Mmad(l0c, l0a, l0b, params);
            } else {
                AscendC::Mmad(l0c, l0a.ReinterpretCast<int4b_t>(), l0b.ReinterpretCast<int4b_t>(),
                              params);
            }
            if (!spoil) continue;
            for (uint32_t i = 0; i < m1 * k1 * 512; ++i) l1a.SetValue(i, 99);
            for (uint32_t i = 0; i < n1 * k1 * 512; ++i) l1b.SetValue(i, 99);
        }
        AscendC::FixpipeParamsV220 out;
        out.nSize = static_cast<uint16_t>(n1 * 16);
        out.mSize = static_cast<uint16_t>(s.m);
        out.srcStride = static_cast<uint16_t>(m1 * 16);
        out.dstStride = n1 * 16;
        AscendC::Fixpipe<int32_t, int32_t, AscendC::CFG_ROW_MAJOR>(Gm(c), l0c, out);
    });
    return c;
}

void ExpectExact(const Shape& s, uint32_t bits, int32_t low, int32_t high, bool spoil = false) {
    const int32_t least = bits == 8 ? -128 : -8, most = bits == 8 ? 127 : 7;
    const std::vector<int32_t> a = Values(s.m * s.k, least, most, s.m + s.k);
    const std::vector<int32_t> b = Values(s.n * s.k, low, high, s.n + 7 * s.k);
    const std::vector<int32_t> c = Multiply(a, b, s, bits, spoil);
    for (uint32_t m = 0; m < s.m; ++m) {
        for (uint32_t n = 0; n < s.n; ++n) {
            int64_t sum = 0;
            for (uint32_t k = 0; k < s.k; ++k) sum += int64_t{a[m * s.k + k]} * b[n * s.k + k];
            ASSERT_EQ(c[m * Up(s.n, 16) + n], 2 * sum) << bits << " bits, m " << s.m << " n " << s.n
                                                       << " k " << s.k << " at " << m << ", " << n;
        }
    }
}

// Every number of rows that a loop takes alone, and past it; depths inside, at and past a fractal.
constexpr uint32_t kRows[] = {2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33, 128};
constexpr Shape kDepths[] = {{0, 16, 1},  {0, 16, 31},  {0, 48, 32},   {0, 80, 63},  {0, 16, 64},
                             {0, 32, 65}, {0, 16, 257}, {0, 128, 256}, {0, 16, 1024}};

void ForShapes(uint32_t bits, int32_t low, int32_t high) {
    for (const uint32_t m : kRows) {
        for (const Shape& depth : kDepths) {
            const Shape s = {m, depth.n, depth.k};
            const uint32_t fractals = Up(s.k, 256 / bits) / (256 / bits);
            if (std::max(Up(s.m, 16), Up(s.n, 16)) / 16 * fractals > 128) continue;
            ExpectExact(s, bits, low, high);
        }
    }
}

TEST(IntegerMmad, BytesAreExact) { ForShapes(8, -128, 127); }

// Weights that fit 4 bits take another way.
TEST(IntegerMmad, BytesThatFitNibblesAreExact) { ForShapes(8, -8, 7); }

TEST(IntegerMmad, NibblesAreExact) { ForShapes(4, -8, 7); }

TEST(IntegerMmad, AStripeIsJudgedByItself) {
    const Shape s = {32, 48, 96};
    const std::vector<int32_t> a = Values(s.m * s.k, -128, 127, 1);
    std::vector<int32_t> b = Values(s.n * s.k, -8, 7, 2);
    b[20 * s.k + 95] = 8;  // of the second stripe, one weight too many
    b[40 * s.k] = -9;
    const std::vector<int32_t> c = Multiply(a, b, s, 8, false);
    for (uint32_t m = 0; m < s.m; ++m) {
        for (uint32_t n = 0; n < s.n; ++n) {
            int64_t sum = 0;
            for (uint32_t k = 0; k < s.k; ++k) sum += int64_t{a[m * s.k + k]} * b[n * s.k + k];
            ASSERT_EQ(c[m * s.n + n], 2 * sum) << m << ", " << n;
        }
    }
}

TEST(IntegerMmad, OperandsOutliveWhatL1Held) {
    for (const uint32_t bits : {4u, 8u}) {
        for (const uint32_t m : {2u, 40u}) {
            ExpectExact({m, 32, 192}, bits, bits == 8 ? -128 : -8, bits == 8 ? 127 : 7, true);
        }
    }
}

// The deepest sums of 16 bits that nibbles make: none may overflow.
TEST(IntegerMmad, TheDeepestNibblesDoNotOverflow) {
    const Shape s = {2, 16, 63 * 64};
    const std::vector<int32_t> a(s.m * s.k, -8), b(s.n * s.k, -8);
    for (const int32_t sum : Multiply(a, b, s, 4, false)) {
        ASSERT_EQ(sum, 2 * 64 * static_cast<int32_t>(s.k));
    }
}

// Weights of a launch's inputs are referred to where they lie; what L1 held there before is not
// seen, and a copy that is not of whole fractals is made.
TEST(IntegerViews, InputsAreReadWhereTheyLie) {
    std::vector<int8_t> weight(4 * 512 + 96);
    for (uint32_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<int8_t>(i % 251);
    ascend_twin::LaunchConfig config = {
        "test", ascend_twin::KernelType::kMixAic1Aiv2, 1, 0, {weight.data()}};
    const auto kernel = [&] {
        if ASCEND_IS_AIC {
            const LocalTensor<int8_t> l1(TPosition::B1, 1024, 4 * 512 + 64);
            for (uint32_t i = 0; i < 4 * 512 + 64; ++i) l1.SetValue(i, 0);
            AscendC::DataCopy(l1, Gm(weight), 4 * 512);
            const ascend_twin::CoreMemory* memory = ascend_twin::CurrentContext().memory;
            EXPECT_EQ(memory->l1Views[3].rows, reinterpret_cast<uint8_t*>(weight.data()) + 512);
            EXPECT_EQ(l1.GetValue(700), weight[700]);  // settles what was referred to
            AscendC::DataCopy(l1, Gm(weight)[64], 4 * 512 + 32);
            EXPECT_EQ(l1.GetValue(700), weight[764]);
        }
    };
    ASSERT_EQ(ascend_twin::Launch(config, kernel), "");
}

TEST(IntegerCast, NibblesToHalfAndBack) {
    RunVector([] {
        constexpr uint32_t kCount = 214;  // past whole vectors
        const auto pairs = Ub<int8_t>(0, kCount / 2);
        for (uint32_t i = 0; i < kCount / 2; ++i) pairs.SetValue(i, static_cast<int8_t>(37 * i));
        const auto wide = Ub<half>(1024, kCount);
        AscendC::Cast(wide, pairs.ReinterpretCast<int4b_t>(), AscendC::RoundMode::CAST_NONE,
                      kCount);
        for (uint32_t i = 0; i < kCount; ++i) {
            const int32_t byte = static_cast<uint8_t>(37 * (i / 2));
            const int32_t nibble = i % 2 == 0 ? byte & 15 : byte >> 4;  // low nibble first
            ASSERT_EQ(static_cast<float>(wide.GetValue(i)),
                      static_cast<float>(nibble < 8 ? nibble : nibble - 16));
        }
        const auto back = Ub<int8_t>(2048, kCount / 2);
        AscendC::Cast(back.ReinterpretCast<int4b_t>(), wide, AscendC::RoundMode::CAST_RINT, kCount);
        ASSERT_EQ(ValuesOf(back, kCount / 2), ValuesOf(pairs, kCount / 2));
    });
}

TEST(IntegerCast, BytesToHalfAndBack) {
    RunVector([] {
        const auto bytes = Ub<int8_t>(0, 256);
        for (uint32_t i = 0; i < 256; ++i) bytes.SetValue(i, static_cast<int8_t>(i));
        const auto wide = Ub<half>(1024, 256);
        AscendC::Cast(wide, bytes, AscendC::RoundMode::CAST_NONE, 253);
        for (uint32_t i = 0; i < 253; ++i) {
            ASSERT_EQ(static_cast<float>(wide.GetValue(i)), static_cast<float>(bytes.GetValue(i)));
        }
        const auto back = Ub<int8_t>(4096, 256);
        AscendC::Cast(back, wide, AscendC::RoundMode::CAST_RINT, 253);
        ASSERT_EQ(ValuesOf(back, 253), ValuesOf(bytes, 253));
    });
}

TEST(IntegerCast, NarrowingRoundsToEvenAndSaturates) {
    RunVector([] {
        const std::vector<float> values = {0.5f,   1.5f,   -2.5f,   126.5f,
                                           127.5f, 300.0f, -300.0f, -8.5f};
        std::vector<half> halves;
        for (uint32_t i = 0; i < 40; ++i) halves.push_back(half(values[i % 8]));
        const auto from = Ub<half>(0, 40);
        Fill(from, halves);
        const auto bytes = Ub<int8_t>(1024, 40);
        AscendC::Cast(bytes, from, AscendC::RoundMode::CAST_RINT, 40);
        const int8_t wanted[] = {0, 2, -2, 126, 127, 127, -128, -8};
        for (uint32_t i = 0; i < 40; ++i) ASSERT_EQ(bytes.GetValue(i), wanted[i % 8]) << i;

        const auto floats = Ub<float>(2048, 11);
        std::vector<float> wide = {2.5f,  -3.5f, 1e9f, -1e9f, 3e9f, -3e9f,
                                   0.49f, -0.5f, 7.5f, 8.5f,  3e9f};
        Fill(floats, wide);
        const auto integers = Ub<int32_t>(4096, 11);
        AscendC::Cast(integers, floats, AscendC::RoundMode::CAST_RINT, 11);
        const std::vector<int32_t> rounded = {
            2, -4, 1000000000, -1000000000, 2147483520, -2147483647 - 1, 0, 0, 8, 8, 2147483520};
        ASSERT_EQ(ValuesOf(integers, 11), rounded);
        const auto back = Ub<float>(8192, 11);
        AscendC::Cast(back, integers, AscendC::RoundMode::CAST_RINT, 11);
        for (uint32_t i = 0; i < 11; ++i) {
            ASSERT_EQ(back.GetValue(i), static_cast<float>(rounded[i]));
        }
    });
}

TEST(VectorAbs, DropsTheSign) {
    RunVector([] {
        const auto from = Ub<float>(0, 4);
        Fill(from, {-1.5f, 2.0f, -0.0f, -INFINITY});
        const auto to = Ub<float>(64, 4);
        AscendC::Abs(to, from, 4);
        ASSERT_EQ(ValuesOf(to, 4), (std::vector<float>{1.5f, 2.0f, 0.0f, INFINITY}));
        ASSERT_FALSE(std::signbit(to.GetValue(2)));
    });
}

}  // namespace
