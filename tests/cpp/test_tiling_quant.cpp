// Tilings of quant_matmul: they fit, cover every stripe and token, and cut where the kernel can.
#include <gtest/gtest.h>

#include <algorithm>

#include "quant_matmul/op_host/quant_matmul_tiling.h"

namespace {

using namespace ascend_ops;

struct Case {
    WeightFormat format;
    uint32_t groupSize;
    uint32_t activationBits;
};
constexpr Case kCases[] = {
    {WeightFormat::kFloat16, 0, 16}, {WeightFormat::kInt8, 0, 16},  {WeightFormat::kInt8, 0, 8},
    {WeightFormat::kInt4, 0, 16},    {WeightFormat::kInt4, 0, 8},   {WeightFormat::kInt4, 128, 16},
    {WeightFormat::kInt4, 128, 8},   {WeightFormat::kInt4, 64, 16}, {WeightFormat::kInt4, 64, 8},
    {WeightFormat::kInt4, 32, 16},   {WeightFormat::kInt4, 32, 8}};

void ExpectSound(const QuantMatmulArgs& args, const CoreLimits& limits) {
    QuantMatmulTilingData t;
    const Status status = ComputeQuantMatmulTiling(args, limits, &t);
    ASSERT_TRUE(status.ok()) << status.message;
    const uint64_t route = QuantMatmulRoute(args);
    const QuantMatmulBytes bytes = QuantMatmulBytesOf(t, route, args.type);
    EXPECT_LE(std::max(bytes.tokensUb, bytes.widenUb + bytes.outputUb), limits.ubBytes);
    EXPECT_LE(bytes.l1, limits.l1Bytes);
    EXPECT_LE(bytes.l0a, limits.l0aBytes);
    EXPECT_LE(bytes.l0b, limits.l0bBytes);
    EXPECT_LE(bytes.l0c, limits.l0cBytes);
    // Every stripe has a core, and no core is idle.
    EXPECT_LE(t.numCores, limits.numCores);
    EXPECT_GE(t.numCores * t.tilesPerCore * t.stripesPerTile, t.numStripes);
    EXPECT_LT((t.numCores - 1) * t.tilesPerCore * t.stripesPerTile, t.numStripes);
    // Sums are of whole groups; chunks of whole groups where there are several, and of whole packed
    // fractals.
    EXPECT_EQ(t.groupFractals * t.numSums, t.fractals);
    EXPECT_EQ(t.chunkFractals % t.widening, 0u);
    if (t.numSums > 1) {
        EXPECT_EQ(t.chunkFractals, t.groupsPerPart * t.groupFractals);
    }
    // What the API's fields hold: repeats of LoadData, m, n and k of Mmad, strides of vector calls.
    EXPECT_LE(std::max(t.stepFractals, t.stripesPerTile), 255u);
    EXPECT_LE(t.stepFractals * 64, 4095u);
    EXPECT_LE(t.outputRows * t.stripesPerTile, 4095u);
    EXPECT_EQ(t.piece % 64, 0u);
    EXPECT_LE(t.piece, 4096u);  // 64 repeats, whose maxima are one repeat again
    // The workspace's parts follow one another and are aligned.
    for (const uint64_t place : {t.coreScales, t.coreTiles, t.coreParts, t.coreBytes, t.partBytes,
                                 t.tileBytes, t.workspaceCore}) {
        EXPECT_EQ(place % 512, 0u);
    }
    EXPECT_LE(t.coreTiles + t.tileSlots * t.tileBytes, t.coreParts);
    EXPECT_LE(t.coreParts + t.partSlots * t.partBytes, t.coreBytes);
    EXPECT_EQ(t.workspaceCore + t.numCores * t.coreBytes, t.workspaceTotal);
}

TEST(QuantMatmulTiling, EveryFormatAndShapeFits) {
    for (const bool overlap : {false, true}) {
        for (const uint32_t cores : {1u, 2u, 7u, 24u}) {
            for (const Case& c : kCases) {
                for (const DataType type :
                     {DataType::kFloat16, DataType::kBfloat16, DataType::kFloat32}) {
                    for (const uint32_t tokens : {0u, 1u, 2u, 8u, 9u, 16u, 17u, 129u, 4096u}) {
                        for (const uint32_t rows : {1u, 16u, 100u, 4608u, 65024u}) {
                            for (const uint32_t columns : {128u, 384u, 4096u, 13696u, 16384u}) {
                                CoreLimits limits;
                                limits.numCores = cores;
                                limits.overlap = overlap;
                                QuantMatmulArgs args;
                                args.type = type;
                                args.format = c.format;
                                args.groupSize = c.groupSize;
                                args.activationBits = c.activationBits;
                                args.numTokens = tokens;
                                args.outFeatures = rows;
                                args.inFeatures = columns;
                                ExpectSound(args, limits);
                                if (HasFailure()) return;
                            }
                        }
                    }
                }
            }
        }
    }
}

// The last bits of float32 sums must not tell how many cores there were.
TEST(QuantMatmulTiling, SumsAreCutAlikeOnAnyNumberOfCores) {
    for (const uint32_t tokens : {1u, 100u}) {
        QuantMatmulArgs args;
        args.format = WeightFormat::kFloat16;
        args.numTokens = tokens;
        args.outFeatures = 272;
        args.inFeatures = 4096;
        QuantMatmulTilingData first, other;
        CoreLimits limits;
        limits.numCores = 1;
        ASSERT_TRUE(ComputeQuantMatmulTiling(args, limits, &first).ok());
        for (const uint32_t cores : {2u, 5u, 24u}) {
            limits.numCores = cores;
            ASSERT_TRUE(ComputeQuantMatmulTiling(args, limits, &other).ok());
            EXPECT_EQ(other.chunkFractals, first.chunkFractals);
            EXPECT_EQ(other.stepFractals, first.stepFractals);
        }
    }
}

TEST(QuantMatmulTiling, RowsThatShareABlockAreWrittenByOneAiv) {
    QuantMatmulArgs args;
    args.format = WeightFormat::kInt8;
    args.activationBits = 8;
    args.numTokens = 3;
    args.inFeatures = 64;
    QuantMatmulTilingData t;
    args.outFeatures = 4096;
    ASSERT_TRUE(ComputeQuantMatmulTiling(args, CoreLimits(), &t).ok());
    EXPECT_EQ(t.serialOutput, 0u);
    args.outFeatures = 4097;
    ASSERT_TRUE(ComputeQuantMatmulTiling(args, CoreLimits(), &t).ok());
    EXPECT_EQ(t.serialOutput, 1u);
    EXPECT_EQ(t.numCores, 1u);
}

TEST(QuantMatmulTiling, WrongCallsAreRefused) {
    QuantMatmulArgs good;
    good.format = WeightFormat::kInt4;
    good.numTokens = 1;
    good.inFeatures = 256;
    good.outFeatures = 16;
    const auto message = [](const QuantMatmulArgs& args) {
        QuantMatmulTilingData t;
        const Status status = ComputeQuantMatmulTiling(args, CoreLimits(), &t);
        EXPECT_EQ(status.code, StatusCode::kInvalidShape);
        return status.message;
    };
    QuantMatmulArgs args = good;
    args.inFeatures = kMaxInFeatures + 1;
    EXPECT_NE(message(args).find("in_features is 16385"), std::string::npos);
    args = good;
    args.outFeatures = 0;
    EXPECT_NE(message(args).find("out_features is 0"), std::string::npos);
    args = good;
    args.groupSize = 96;
    EXPECT_NE(message(args).find("the group is 96 of 256"), std::string::npos);
    args = good;
    args.format = WeightFormat::kInt8;
    args.groupSize = 128;
    EXPECT_NE(message(args).find("of an int4 weight"), std::string::npos);
    args = good;
    args.format = WeightFormat::kFloat16;
    args.activationBits = 8;
    EXPECT_NE(message(args).find("activation_bits is 8"), std::string::npos);
}

TEST(QuantMatmulTiling, LimitsThatHoldNothingAreRefused) {
    QuantMatmulArgs args;
    args.format = WeightFormat::kInt8;
    args.activationBits = 8;
    args.numTokens = 100;
    args.inFeatures = 4096;
    args.outFeatures = 4096;
    CoreLimits limits;
    limits.ubBytes = 1024;
    QuantMatmulTilingData t;
    EXPECT_EQ(ComputeQuantMatmulTiling(args, limits, &t).code, StatusCode::kNoFit);
}

}  // namespace
