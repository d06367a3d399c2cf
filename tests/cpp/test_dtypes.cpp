// half and bfloat16_t conversions over every pattern, and ExpOf against the C library in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernel_operator.h"

namespace {

constexpr uint32_t kPatterns = 65536;
constexpr uint32_t kInfinity = 0x7c00;

// binary16 by its definition, in double.
double SlowHalf(uint32_t bits) {
    const double sign = bits & 0x8000u ? -1.0 : 1.0;
    const int exponent = static_cast<int>(bits >> 10 & 0x1fu);
    const double fraction = static_cast<double>(bits & 0x3ffu) / 1024.0;
    if (exponent == 31) {
        return fraction != 0.0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
    }
    if (exponent == 0) return sign * std::ldexp(fraction, -14);
    return sign * std::ldexp(1.0 + fraction, exponent - 15);
}

std::vector<uint16_t> AllPatterns() {
    std::vector<uint16_t> bits(kPatterns);
    for (uint32_t i = 0; i < kPatterns; ++i) bits[i] = static_cast<uint16_t>(i);
    return bits;
}

// Both conversions to half: of one value, and of the middle of a run long enough for SIMD.
std::vector<uint16_t> ToHalf(const std::vector<float>& values) {
    std::vector<uint16_t> bulk(values.size());
    ascend_twin::FloatToHalf(bulk.data(), values.data(), static_cast<uint32_t>(values.size()));
    for (size_t i = 0; i < values.size(); ++i) {
        const uint16_t one = ascend_twin::FloatToHalfBits(values[i]);
        if (std::isnan(values[i])) {
            EXPECT_TRUE(std::isnan(SlowHalf(one)) && std::isnan(SlowHalf(bulk[i])));
        } else {
            EXPECT_EQ(one, bulk[i]) << values[i];
        }
    }
    return bulk;
}

// bfloat16 by its definition, in double.
double SlowBfloat16(uint32_t bits) {
    const double sign = bits & 0x8000u ? -1.0 : 1.0;
    const int exponent = static_cast<int>(bits >> 7 & 0xffu);
    const double fraction = static_cast<double>(bits & 0x7fu) / 128.0;
    if (exponent == 255) {
        return fraction != 0.0 ? std::nan("") : sign * std::numeric_limits<double>::infinity();
    }
    if (exponent == 0) return sign * std::ldexp(fraction, -126);
    return sign * std::ldexp(1.0 + fraction, exponent - 127);
}

TEST(Bfloat16, EveryPatternWidensExactly) {
    const std::vector<uint16_t> bits = AllPatterns();
    std::vector<float> wide(kPatterns);
    ascend_twin::Bfloat16ToFloat(wide.data(), bits.data(), kPatterns);
    for (uint32_t i = 0; i < kPatterns; ++i) {
        const double want = SlowBfloat16(i);
        if (std::isnan(want)) {
            EXPECT_TRUE(std::isnan(wide[i])) << i;
        } else {
            EXPECT_EQ(wide[i], want) << i;
            EXPECT_EQ(std::signbit(wide[i]), (i & 0x8000u) != 0) << i;
        }
    }
}

TEST(Bfloat16, NarrowsToTheNearestTiesToEven) {
    // Between each pattern and the next: themselves, and a quarter, half and three quarters of the
    // way.
    std::vector<float> values;
    std::vector<uint16_t> want;
    for (uint32_t i = 0; i < 0x7f7fu; ++i) {
        const double low = SlowBfloat16(i), high = SlowBfloat16(i + 1);
        for (const double part : {0.0, 0.25, 0.5, 0.75}) {
            values.push_back(static_cast<float>(low + part * (high - low)));
            const bool up = part > 0.5 || (part == 0.5 && i % 2 == 1);
            want.push_back(static_cast<uint16_t>(i + up));
            values.push_back(-values.back());
            want.push_back(static_cast<uint16_t>((i + up) | 0x8000u));
        }
    }
    std::vector<uint16_t> got(values.size());
    ascend_twin::FloatToBfloat16(got.data(), values.data(), static_cast<uint32_t>(values.size()));
    EXPECT_EQ(got, want);
}

TEST(Bfloat16, InfinityAndNanStayWhatTheyAre) {
    const float infinity = std::numeric_limits<float>::infinity();
    EXPECT_EQ(ascend_twin::FloatToBfloat16Bits(infinity), 0x7f80);
    EXPECT_EQ(ascend_twin::FloatToBfloat16Bits(-infinity), 0xff80);
    EXPECT_EQ(ascend_twin::FloatToBfloat16Bits(3.4e38f), 0x7f80);  // rounds up past the largest
    for (const uint32_t bits : {0x7f800001u, 0x7fffffffu, 0xffc00000u}) {
        const uint16_t narrow = ascend_twin::FloatToBfloat16Bits(ascend_twin::FloatOf(bits));
        EXPECT_TRUE(std::isnan(SlowBfloat16(narrow))) << bits;
    }
}

TEST(Half, EveryPatternWidensExactly) {
    const std::vector<uint16_t> bits = AllPatterns();
    std::vector<float> bulk(kPatterns);
    ascend_twin::HalfToFloat(bulk.data(), bits.data(), kPatterns);
    for (uint32_t i = 0; i < kPatterns; ++i) {
        const double want = SlowHalf(i);
        const float one = ascend_twin::HalfBitsToFloat(bits[i]);
        if (std::isnan(want)) {
            EXPECT_TRUE(std::isnan(one) && std::isnan(bulk[i])) << i;
        } else {
            EXPECT_EQ(one, want) << i;
            EXPECT_EQ(bulk[i], want) << i;
            EXPECT_EQ(std::signbit(one), std::signbit(want)) << i;
        }
    }
}

TEST(Half, EveryPatternComesBack) {
    std::vector<float> values(kPatterns);
    for (uint32_t i = 0; i < kPatterns; ++i) values[i] = static_cast<float>(SlowHalf(i));
    const std::vector<uint16_t> bits = ToHalf(values);
    for (uint32_t i = 0; i < kPatterns; ++i) {
        if (!std::isnan(values[i])) {
            EXPECT_EQ(bits[i], i);
        }
    }
}

// Between each two neighbours: the midpoint goes to the even one, the floats beside it do not.
TEST(Half, NarrowingRoundsToNearestEven) {
    for (const float sign : {1.0f, -1.0f}) {
        std::vector<float> below, middle, above;
        for (uint32_t bits = 0; bits < kInfinity; ++bits) {
            const double next = bits + 1 == kInfinity ? 65536.0 : SlowHalf(bits + 1);
            const float mid = static_cast<float>((SlowHalf(bits) + next) / 2.0);
            below.push_back(sign * std::nextafter(mid, 0.0f));
            middle.push_back(sign * mid);
            above.push_back(sign * std::nextafter(mid, 1e9f));
        }
        const std::vector<uint16_t> low = ToHalf(below), even = ToHalf(middle),
                                    high = ToHalf(above);
        const uint32_t signBit = sign < 0.0f ? 0x8000u : 0u;
        for (uint32_t bits = 0; bits < kInfinity; ++bits) {
            EXPECT_EQ(low[bits], bits | signBit);
            EXPECT_EQ(even[bits], (bits + bits % 2) | signBit);
            EXPECT_EQ(high[bits], (bits + 1) | signBit);
        }
    }
}

TEST(Half, OverflowIsInfiniteAndNanStays) {
    constexpr float inf = std::numeric_limits<float>::infinity();
    const std::vector<uint16_t> bits =
        ToHalf({65519.0f, 65520.0f, 1e30f, inf, -inf, std::nanf(""), -std::nanf("7"), 1e-30f});
    EXPECT_EQ(bits[0], 0x7bff);
    EXPECT_EQ(bits[1], kInfinity);
    EXPECT_EQ(bits[2], kInfinity);
    EXPECT_EQ(bits[3], kInfinity);
    EXPECT_EQ(bits[4], kInfinity | 0x8000u);
    EXPECT_EQ(bits[7], 0);
}

TEST(Half, AnyCountConvertsThatManyElements) {
    const std::vector<uint16_t> bits = AllPatterns();
    for (uint32_t count = 0; count < 40; ++count) {
        std::vector<float> wide(41, -1.0f);
        ascend_twin::HalfToFloat(wide.data(), bits.data() + 0x3c00, count);
        EXPECT_EQ(wide[count], -1.0f);
        std::vector<uint16_t> narrow(41, 9);
        ascend_twin::FloatToHalf(narrow.data(), wide.data(), count);
        EXPECT_EQ(narrow[count], 9);
        for (uint32_t i = 0; i < count; ++i) EXPECT_EQ(narrow[i], 0x3c00 + i);
    }
}

double UlpsFromExp(float got, float x) {
    const double want = std::exp(static_cast<double>(x));
    const int exponent = std::max(std::ilogb(want), -126);
    return std::abs(static_cast<double>(got) - want) / std::ldexp(1.0, exponent - 23);
}

double UlpsOfExp(float x) { return UlpsFromExp(ascend_twin::ExpOf(x), x); }

TEST(Exp, IsWithinAnUlpOrSoWhereItIsFinite) {
    double worst = 0.0;
    for (float x = -103.9f; x < 88.72f; x += 1.0f / 8192.0f) worst = std::max(worst, UlpsOfExp(x));
    std::mt19937 engine(1);
    std::uniform_real_distribution<float> exponent(-30.0f, 6.4f);
    for (uint32_t i = 0; i < 1000000; ++i) {
        const float x = std::exp2(exponent(engine));
        worst = std::max({worst, UlpsOfExp(-x), UlpsOfExp(std::min(x, 88.72f))});
    }
    EXPECT_LE(worst, 1.1);
}

TEST(Exp, EndsAsTheFunctionDoes) {
    constexpr float inf = std::numeric_limits<float>::infinity();
    EXPECT_EQ(ascend_twin::ExpOf(0.0f), 1.0f);
    EXPECT_EQ(ascend_twin::ExpOf(-inf), 0.0f);
    EXPECT_EQ(ascend_twin::ExpOf(-104.0f), 0.0f);
    EXPECT_EQ(ascend_twin::ExpOf(-3.0e38f), 0.0f);
    EXPECT_EQ(ascend_twin::ExpOf(88.73f), inf);
    EXPECT_EQ(ascend_twin::ExpOf(inf), inf);
    EXPECT_TRUE(std::isnan(ascend_twin::ExpOf(std::nanf(""))));
    EXPECT_GT(ascend_twin::ExpOf(-103.0f), 0.0f);  // subnormal results are kept
}

// Some targets have a quicker way for runs of ordinary values.
TEST(Exp, OfManyIsThatOfEach) {
    constexpr float inf = std::numeric_limits<float>::infinity();
    constexpr float special[] = {-inf, inf, -104.0f, 88.73f, -95.0f, -3.0e38f, std::nanf("")};
    std::mt19937 engine(2);
    std::uniform_real_distribution<float> uniform(-100.0f, 88.7f);
    double worst = 0.0;
    for (uint32_t round = 0; round < 2000; ++round) {
        float from[61], to[62];
        to[61] = 9.0f;
        // Nearly all of the narrow ones go the quick way, with and without hidden ones among them.
        const float width = round % 3 == 0 ? 0.1f : 1.0f;
        for (float& x : from) x = uniform(engine) * width;
        if (round % 2 == 0) from[engine() % 61] = special[round / 2 % 7];
        ascend_twin::ExpEach(to, from, 61);
        for (uint32_t i = 0; i < 61; ++i) {
            const float each = ascend_twin::ExpOf(from[i]);
            if (std::isnan(from[i])) {
                EXPECT_TRUE(std::isnan(to[i]));
            } else if (std::isinf(each) || each == 0.0f) {
                EXPECT_EQ(to[i], each);
            } else {
                worst = std::max(worst, UlpsFromExp(to[i], from[i]));
            }
        }
        EXPECT_EQ(to[61], 9.0f);
    }
    EXPECT_LE(worst, 1.1);
}

}  // namespace
