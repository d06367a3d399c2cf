// Vector calls on UB: count forms, and mask forms with repeats and strides, against scalar loops.
#include <algorithm>
#include <cmath>
#include <limits>

#include "run.h"

namespace {

using namespace glm2_test;
using AscendC::BinaryRepeatParams;
using AscendC::LocalTensor;

constexpr uint32_t kElems = 4096;
constexpr uint32_t kDst = 0, kSrc0 = kElems * 4, kSrc1 = 2 * kElems * 4;

using Binary = void (*)(const LocalTensor<float>&, const LocalTensor<float>&,
                        const LocalTensor<float>&, const int32_t&);
using BinaryMasked = void (*)(const LocalTensor<float>&, const LocalTensor<float>&,
                              const LocalTensor<float>&, uint64_t, uint8_t,
                              const BinaryRepeatParams&);
using Scalar = void (*)(const LocalTensor<float>&, const LocalTensor<float>&, const float&,
                        const int32_t&);

struct BinaryCase {
    const char* name;
    Binary count;
    BinaryMasked masked;
    float (*want)(float, float);
};

float Larger(float a, float b) { return a > b ? a : b; }
float Smaller(float a, float b) { return a < b ? a : b; }

const BinaryCase kBinaries[] = {
    {"Add", AscendC::Add<float>, AscendC::Add<float>, [](float a, float b) { return a + b; }},
    {"Sub", AscendC::Sub<float>, AscendC::Sub<float>, [](float a, float b) { return a - b; }},
    {"Mul", AscendC::Mul<float>, AscendC::Mul<float>, [](float a, float b) { return a * b; }},
    {"Div", AscendC::Div<float>, AscendC::Div<float>, [](float a, float b) { return a / b; }},
    {"Max", AscendC::Max<float>, AscendC::Max<float>, Larger},
    {"Min", AscendC::Min<float>, AscendC::Min<float>, Smaller},
};

TEST(Binary, CountFormTakesThatManyElements) {
    const std::vector<float> a = Normals(kElems, 1), b = Normals(kElems, 2);
    for (const BinaryCase& op : kBinaries) {
        for (const int32_t count : {1, 7, 64, 65, 1000}) {
            std::vector<float> got;
            RunVector([&] {
                const auto dst = Ub<float>(kDst, kElems);
                const auto src0 = Ub<float>(kSrc0, kElems), src1 = Ub<float>(kSrc1, kElems);
                Fill(dst, a);
                Fill(src0, a);
                Fill(src1, b);
                op.count(dst, src0, src1, count);
                got = ValuesOf(dst, kElems);
            });
            for (uint32_t i = 0; i < kElems; ++i) {
                const float want = i < static_cast<uint32_t>(count) ? op.want(a[i], b[i]) : a[i];
                ASSERT_EQ(got[i], want) << op.name << " count " << count << " at " << i;
            }
        }
    }
}

struct MaskCase {
    uint64_t mask;
    uint8_t repeat;
    BinaryRepeatParams params;
};

const MaskCase kMasks[] = {
    {64, 1, {1, 1, 1, 8, 8, 8}},
    {64, 5, {1, 1, 1, 8, 8, 8}},
    {1, 3, {1, 1, 1, 8, 8, 8}},
    {19, 4, {1, 1, 1, 8, 8, 8}},
    {64, 4, {1, 1, 1, 16, 9, 8}},  // rows further apart than they
                                   // are long
    {64, 6, {1, 1, 0, 8, 8, 1}},   // one block for a whole row: a value a row
    {40, 6, {1, 1, 0, 5, 5, 1}},
    {64, 6, {1, 1, 1, 8, 8, 0}},    // one row for every repeat
    {64, 3, {2, 1, 3, 16, 8, 24}},  // blocks apart
    {28, 3, {2, 3, 1, 16, 24, 8}},
};

TEST(Binary, MaskFormFollowsBlocksAndRepeats) {
    const std::vector<float> a = Normals(kElems, 3), b = Normals(kElems, 4);
    for (const BinaryCase& op : kBinaries) {
        for (const MaskCase& c : kMasks) {
            std::vector<float> want(kElems, 5.0f), got;
            for (uint32_t r = 0; r < c.repeat; ++r) {
                for (uint32_t i = 0; i < c.mask; ++i) {
                    const auto at = [&](uint32_t blockStride, uint32_t repeatStride) {
                        return r * repeatStride * 8 + i / 8 * blockStride * 8 + i % 8;
                    };
                    want[at(c.params.dstBlkStride, c.params.dstRepStride)] =
                        op.want(a[at(c.params.src0BlkStride, c.params.src0RepStride)],
                                b[at(c.params.src1BlkStride, c.params.src1RepStride)]);
                }
            }
            RunVector([&] {
                const auto dst = Ub<float>(kDst, kElems);
                const auto src0 = Ub<float>(kSrc0, kElems), src1 = Ub<float>(kSrc1, kElems);
                Fill(dst, std::vector<float>(kElems, 5.0f));
                Fill(src0, a);
                Fill(src1, b);
                op.masked(dst, src0, src1, c.mask, c.repeat, c.params);
                got = ValuesOf(dst, kElems);
            });
            ASSERT_EQ(got, want) << op.name << " mask " << c.mask;
        }
    }
}

TEST(Binary, MayWorkInPlace) {
    const std::vector<float> a = Normals(128, 5), b = Normals(8, 6);
    RunVector([&] {
        const auto tile = Ub<float>(0, 128), blocks = Ub<float>(1024, 16);
        Fill(tile, a);
        Fill(blocks, std::vector<float>(16, 2.0f));
        AscendC::Mul(tile, tile, blocks, 64, 2, {1, 1, 0, 8, 8, 1});
        AscendC::Add(tile, tile, tile, 128);
        for (uint32_t i = 0; i < 128; ++i) EXPECT_EQ(tile.GetValue(i), 4.0f * a[i]);
    });
}

TEST(Binary, ANanOperandGivesNan) {
    RunVector([&] {
        const auto a = Ub<float>(0, 8), b = Ub<float>(32, 8), dst = Ub<float>(64, 8);
        Fill(a, {std::nanf(""), 1.0f});
        Fill(b, {1.0f, std::nanf("")});
        for (const Binary op : {Binary{AscendC::Max<float>}, Binary{AscendC::Min<float>}}) {
            op(dst, a, b, 2);
            EXPECT_TRUE(std::isnan(dst.GetValue(0)));
            EXPECT_TRUE(std::isnan(dst.GetValue(1)));
        }
    });
}

TEST(ScalarOperand, AppliesToEveryElement) {
    const std::vector<float> a = Normals(100, 7);
    const float value = 0.25f;
    const struct {
        Scalar call;
        float (*want)(float, float);
    } cases[] = {
        {AscendC::Adds<float>, [](float x, float y) { return x + y; }},
        {AscendC::Muls<float>, [](float x, float y) { return x * y; }},
        {AscendC::Maxs<float>, Larger},
        {AscendC::Mins<float>, Smaller},
    };
    RunVector([&] {
        const auto src = Ub<float>(0, 128), dst = Ub<float>(1024, 128);
        Fill(src, a);
        for (const auto& c : cases) {
            Fill(dst, std::vector<float>(100, 9.0f));
            c.call(dst, src, value, 99);
            for (uint32_t i = 0; i < 99; ++i) EXPECT_EQ(dst.GetValue(i), c.want(a[i], value));
            EXPECT_EQ(dst.GetValue(99), 9.0f);
        }
    });
}

TEST(Unary, ExpAndLnTakeThatManyElements) {
    const std::vector<float> a = Normals(70, 8);
    RunVector([&] {
        const auto src = Ub<float>(0, 128), dst = Ub<float>(1024, 128);
        Fill(src, a);
        Fill(dst, std::vector<float>(70, 9.0f));
        AscendC::Exp(dst, src, 69);
        for (uint32_t i = 0; i < 69; ++i) {
            EXPECT_NEAR(dst.GetValue(i), std::exp(a[i]), 2e-7f * std::exp(a[i]));
        }
        EXPECT_EQ(dst.GetValue(69), 9.0f);
        AscendC::Ln(dst, dst, 69);
        for (uint32_t i = 0; i < 69; ++i) EXPECT_NEAR(dst.GetValue(i), a[i], 1e-6f);
        Fill(src, {0.0f});
        AscendC::Ln(dst, src, 1);
        EXPECT_EQ(dst.GetValue(0), -std::numeric_limits<float>::infinity());
    });
}

TEST(Unary, SqrtIsRoundedCorrectlyAndTakesThatManyElements) {
    std::vector<float> a = Normals(70, 13);
    for (float& value : a) value *= value;
    a[0] = -1.0f;
    a[1] = 0.0f;
    a[2] = 0x1p-149f;
    a[3] = std::numeric_limits<float>::infinity();
    RunVector([&] {
        const auto src = Ub<float>(0, 128), dst = Ub<float>(1024, 128);
        Fill(src, a);
        Fill(dst, std::vector<float>(70, 9.0f));
        AscendC::Sqrt(dst, src, 69);
        EXPECT_TRUE(std::isnan(dst.GetValue(0)));
        for (uint32_t i = 1; i < 69; ++i) {
            const double exact = std::sqrt(static_cast<double>(a[i]));
            EXPECT_EQ(dst.GetValue(i), static_cast<float>(exact));
        }
        EXPECT_EQ(dst.GetValue(69), 9.0f);
        AscendC::Sqrt(src, src, 2);  // in place
        EXPECT_EQ(src.GetValue(1), 0.0f);
    });
}

TEST(Duplicate, CountFormServesAnyType) {
    RunVector([&] {
        const auto halves = Ub<half>(0, 32);
        AscendC::Duplicate(halves, half(3.0f), 32);
        AscendC::Duplicate(halves, half(-1.0f), 5);
        for (uint32_t i = 0; i < 32; ++i) {
            EXPECT_EQ(static_cast<float>(halves.GetValue(i)), i < 5 ? -1.0f : 3.0f);
        }
    });
}

TEST(Duplicate, MaskBitsChooseElementsOfEachRepeat) {
    const uint64_t patterns[] = {0, 1, ~0ull, 0x8000000000000001ull, 0x00ff00ff12345678ull};
    for (const uint64_t bits : patterns) {
        for (const auto& [blockStride, repeatStride] :
             {std::pair<uint16_t, uint8_t>{1, 8}, {1, 32}, {2, 16}, {3, 30}}) {
            std::vector<float> want(kElems, 5.0f), got;
            for (uint32_t r = 0; r < 4; ++r) {
                for (uint32_t i = 0; i < 64; ++i) {
                    if ((bits >> i & 1u) == 0) continue;
                    want[r * repeatStride * 8 + i / 8 * blockStride * 8 + i % 8] = -2.0f;
                }
            }
            RunVector([&] {
                const auto dst = Ub<float>(0, kElems);
                Fill(dst, std::vector<float>(kElems, 5.0f));
                uint64_t mask[2] = {bits, 0};
                AscendC::Duplicate<float>(dst, -2.0f, mask, 4, blockStride, repeatStride);
                got = ValuesOf(dst, kElems);
            });
            EXPECT_EQ(got, want);
        }
    }
}

TEST(Duplicate, TheSecondMaskWordIsForTheUpperHalves) {
    RunVector([&] {
        const auto dst = Ub<half>(0, 128);
        AscendC::Duplicate(dst, half(0.0f), 128);
        uint64_t mask[2] = {1ull << 3, 1ull << 5};
        AscendC::Duplicate<half>(dst, half(1.0f), mask, 1, 1, 8);
        for (uint32_t i = 0; i < 128; ++i) {
            EXPECT_EQ(static_cast<float>(dst.GetValue(i)), i == 3 || i == 69 ? 1.0f : 0.0f);
        }
    });
}

TEST(Brcb, SpreadsEachElementOverABlock) {
    const std::vector<float> a = Normals(24, 9);
    for (const auto& [blockStride, repeatStride] :
         {std::pair<uint16_t, uint16_t>{1, 8}, {2, 16}, {1, 10}}) {
        RunVector([&] {
            const auto src = Ub<float>(0, 32), dst = Ub<float>(1024, 1024);
            Fill(src, a);
            AscendC::Brcb(dst, src, 3, {blockStride, repeatStride});
            for (uint32_t i = 0; i < 24; ++i) {
                const uint32_t block = i / 8 * repeatStride + i % 8 * blockStride;
                for (uint32_t j = 0; j < 8; ++j) EXPECT_EQ(dst.GetValue(block * 8 + j), a[i]);
            }
        });
    }
}

TEST(Cast, WidensExactlyAndNarrowsToNearestEven) {
    const std::vector<float> a = Normals(100, 10);
    RunVector([&] {
        const auto wide = Ub<float>(0, 128), back = Ub<float>(1024, 128);
        const auto narrow = Ub<half>(2048, 128);
        Fill(wide, a);
        AscendC::Cast(narrow, wide, AscendC::RoundMode::CAST_RINT, 100);
        AscendC::Cast(back, narrow, AscendC::RoundMode::CAST_NONE, 100);
        for (uint32_t i = 0; i < 100; ++i) {
            EXPECT_EQ(narrow.GetValue(i).bits, ascend_twin::FloatToHalfBits(a[i]));
            EXPECT_EQ(back.GetValue(i), static_cast<float>(half(a[i])));
        }
    });
}

TEST(ReduceRepeat, GivesOneValueARepeat) {
    const std::vector<float> a = Integers(kElems, 11);
    const struct {
        int32_t mask, repeats, dstRepeat, srcBlock, srcRepeat;
    } cases[] = {{64, 5, 1, 1, 8},  {64, 5, 3, 1, 32}, {13, 4, 1, 1, 8},
                 {64, 3, 1, 2, 16}, {1, 2, 1, 1, 8},   {50, 7, 2, 3, 24}};
    using AscendC::ReduceType;
    constexpr auto kOrder = AscendC::ReduceOrder::ORDER_ONLY_VALUE;
    for (const auto& c : cases) {
        RunVector([&] {
            const auto src = Ub<float>(0, kElems);
            const auto sum = Ub<float>(kSrc0, 64), max = Ub<float>(kSrc0 + 256, 64);
            const auto min = Ub<float>(kSrc0 + 512, 64), old = Ub<float>(kSrc0 + 768, 64);
            Fill(src, a);
            AscendC::ReduceRepeat<ReduceType::SUM>(sum, src, c.mask, c.repeats, c.dstRepeat,
                                                   c.srcBlock, c.srcRepeat);
            AscendC::ReduceRepeat<ReduceType::MAX>(max, src, c.mask, c.repeats, c.dstRepeat,
                                                   c.srcBlock, c.srcRepeat, kOrder);
            AscendC::ReduceRepeat<ReduceType::MIN>(min, src, c.mask, c.repeats, c.dstRepeat,
                                                   c.srcBlock, c.srcRepeat, kOrder);
            for (int32_t r = 0; r < c.repeats; ++r) {
                float total = 0.0f, high = -1e9f, low = 1e9f;
                for (int32_t i = 0; i < c.mask; ++i) {
                    const int32_t at = r * c.srcRepeat * 8 + i / 8 * c.srcBlock * 8 + i % 8;
                    const float value = a[static_cast<size_t>(at)];
                    total += value;
                    high = Larger(high, value);
                    low = Smaller(low, value);
                }
                const auto at = static_cast<uint32_t>(r * c.dstRepeat);
                EXPECT_EQ(sum.GetValue(at), total);
                EXPECT_EQ(max.GetValue(at), high);
                EXPECT_EQ(min.GetValue(at), low);
            }
            // The names of CANN 8.x are the same calls.
            AscendC::WholeReduceSum(old, src, c.mask, c.repeats, 1, c.srcBlock, c.srcRepeat);
            EXPECT_EQ(old.GetValue(1), sum.GetValue(static_cast<uint32_t>(c.dstRepeat)));
            AscendC::WholeReduceMax(old, src, c.mask, c.repeats, 1, c.srcBlock, c.srcRepeat,
                                    kOrder);
            EXPECT_EQ(old.GetValue(1), max.GetValue(static_cast<uint32_t>(c.dstRepeat)));
        });
    }
}

TEST(ReduceRepeat, SumsAsABinaryTree) {
    // 2^24 + 1 + 1 ...: in order every 1 is lost, in a tree they meet first.
    std::vector<float> values(64, 1.0f);
    values[0] = 0x1p24f;
    RunVector([&] {
        const auto src = Ub<float>(0, 64), dst = Ub<float>(1024, 8);
        Fill(src, values);
        AscendC::ReduceRepeat<AscendC::ReduceType::SUM>(dst, src, 64, 1, 1, 1, 8);
        EXPECT_GT(dst.GetValue(0), 0x1p24f + 32.0f);
    });
}

TEST(Gather, TakesByteOffsetsFromABase) {
    const std::vector<float> a = Normals(64, 12);
    RunVector([&] {
        const auto src = Ub<float>(0, 64), dst = Ub<float>(1024, 64);
        const auto offsets = Ub<uint32_t>(2048, 64);
        Fill(src, a);
        for (uint32_t i = 0; i < 20; ++i) offsets.SetValue(i, (i ^ 1u) * 4u);
        AscendC::Gather(dst, src, offsets, 40u, 20);
        for (uint32_t i = 0; i < 20; ++i) EXPECT_EQ(dst.GetValue(i), a[10 + (i ^ 1u)]);
    });
}

}  // namespace
