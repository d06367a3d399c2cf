// Plans of the tilings: their sums are what the tilings count with, to the byte.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "ascend_ops/tiling_plan.h"

namespace {

using namespace ascend_ops;

constexpr std::array<int32_t, 3> kOffsets = {0, 300, 307};
constexpr std::array<int32_t, 2> kLengths = {300, 4096};

using Planner = std::function<Status(const CoreLimits&, TilingPlan*)>;

Planner Attention(DataType type, uint32_t headDim, bool overlap = true) {
    FlashAttentionArgs args;
    args.qType = args.cacheType = type;
    args.cuSeqlensQ = kOffsets.data();
    args.seqLenKv = kLengths.data();
    args.numTokens = 307;
    args.numSeqs = 2;
    args.numHeads = 32;
    args.numKvHeads = 2;
    args.headDim = headDim;
    args.pageSize = 128;
    args.maxPages = 32;
    return [args, overlap](CoreLimits limits, TilingPlan* plan) {
        limits.overlap = overlap;
        return PlanFlashAttention(args, limits, plan);
    };
}

Planner Grad(DataType type, uint32_t headDim, bool overlap = true) {
    FlashAttentionGradArgs args;
    args.type = type;
    args.cuSeqlensQ = args.cuSeqlensKv = kOffsets.data();
    args.numSeqs = 2;
    args.numHeads = 32;
    args.numKvHeads = 2;
    args.headDim = headDim;
    return [args, overlap](CoreLimits limits, TilingPlan* plan) {
        limits.overlap = overlap;
        return PlanFlashAttentionGrad(args, limits, plan);
    };
}

Planner Norm(DataType type, uint32_t hiddenSize, bool hasResidual) {
    static float present = 0.0f;
    RmsNormArgs args;
    args.type = type;
    args.numRows = 4096;
    args.hiddenSize = hiddenSize;
    if (hasResidual) args.residual = args.total = &present;
    return [args](const CoreLimits& limits, TilingPlan* plan) {
        return PlanRmsNorm(args, limits, plan);
    };
}

Planner Rope(uint32_t headDim) {
    RopeAppendArgs args;
    args.numTokens = 64;
    args.numSeqs = 1;
    args.numHeads = 32;
    args.numKvHeads = 2;
    args.headDim = headDim;
    args.rotaryDim = headDim / 2;
    args.pageSize = 128;
    return [args](const CoreLimits& limits, TilingPlan* plan) {
        return PlanRopeAppend(args, limits, plan);
    };
}

Planner Gate(DataType type, uint32_t rows, uint32_t width) {
    SwigluArgs args;
    args.type = type;
    args.numRows = rows;
    args.width = width;
    return [args](const CoreLimits& limits, TilingPlan* plan) {
        return PlanSwiglu(args, limits, plan);
    };
}

uint32_t* LimitOf(CoreLimits* limits, const std::string& memory) {
    if (memory == "ub") return &limits->ubBytes;
    if (memory == "l1") return &limits->l1Bytes;
    if (memory == "l0a") return &limits->l0aBytes;
    return memory == "l0b" ? &limits->l0bBytes : &limits->l0cBytes;
}

// A memory of exactly the plan's bytes leaves the plan as it is; one byte less does not.
void ExpectExact(const Planner& planner) {
    TilingPlan plan;
    ASSERT_TRUE(planner({}, &plan).ok());
    for (const std::string memory : {"ub", "l1", "l0a", "l0b", "l0c"}) {
        const uint64_t bytes = PlannedBytes(plan.buffers, memory);
        if (bytes == 0) continue;
        CoreLimits limits;
        ASSERT_LE(bytes, CapacityBytes(limits, memory)) << memory;
        *LimitOf(&limits, memory) = static_cast<uint32_t>(bytes);
        TilingPlan same;
        ASSERT_TRUE(planner(limits, &same).ok()) << memory;
        EXPECT_EQ(same.tiles, plan.tiles) << memory;
        --*LimitOf(&limits, memory);
        TilingPlan other;
        const Status status = planner(limits, &other);
        if (status.ok()) {
            EXPECT_NE(other.tiles, plan.tiles) << memory;
        }
    }
}

TEST(TilingPlan, SumsAreThoseOfTheTilings) {
    for (const DataType type : {DataType::kFloat16, DataType::kBfloat16, DataType::kFloat32}) {
        for (const uint32_t headDim : {64u, 128u, 256u}) {
            for (const bool overlap : {true, false}) {
                ExpectExact(Attention(type, headDim, overlap));
                if (headDim < 256) ExpectExact(Grad(type, headDim, overlap));
            }
        }
        for (const uint32_t hiddenSize : {100u, 4096u, 11264u}) {
            ExpectExact(Norm(type, hiddenSize, false));
            ExpectExact(Norm(type, hiddenSize, true));
        }
    }
    for (const uint32_t headDim : {16u, 128u, 256u}) ExpectExact(Rope(headDim));
}

// The second sequence of Attention() has 7 queries and 4096 keys; the first, 300 queries.
TEST(TilingPlan, SplitKeysShowTheirPartsAndTheirMemory) {
    for (const DataType type : {DataType::kFloat16, DataType::kFloat32}) {
        TilingPlan plan;
        ASSERT_TRUE(Attention(type, 128)({}, &plan).ok());
        EXPECT_EQ(plan.split.keysPerPart, 1024u);
        EXPECT_EQ(plan.split.sequences, 1u);
        EXPECT_EQ(plan.split.parts, 4u);
        EXPECT_EQ(plan.split.workspaceBytes, 4u * 2 * (7 * 16) * (128 + 2) * sizeof(float));
        const uint64_t step = PlannedBytes(plan.buffers, "ub_combine");
        // Per row of eight: three accumulators and o; per row state of two parts, two blocks of
        // eight floats and four values.
        EXPECT_EQ(step, 8u * (128 * (12 + SizeOf(type)) + 16 + 64 + 16));
        EXPECT_LE(step, PlannedBytes(plan.buffers, "ub"));
        EXPECT_EQ(CapacityBytes({}, "ub_combine"), CoreLimits().ubBytes);
        CoreLimits whole;
        whole.splitKeys = 0;
        TilingPlan uncut;
        ASSERT_TRUE(Attention(type, 128)(whole, &uncut).ok());
        EXPECT_EQ(uncut.split.sequences, 0u);
        EXPECT_EQ(uncut.split.workspaceBytes, 0u);
        EXPECT_EQ(PlannedBytes(uncut.buffers, "ub_combine"), 0u);
    }
}

TEST(TilingPlan, SwigluTakesWhatItsTileNeeds) {
    for (const DataType type : {DataType::kFloat16, DataType::kFloat32}) {
        TilingPlan plan;
        ASSERT_TRUE(Gate(type, 512, 13696)({}, &plan).ok());
        const uint64_t elems = plan.tiles[2].second;
        EXPECT_EQ(plan.tiles[2].first, "tile_elems");
        EXPECT_EQ(PlannedBytes(plan.buffers, "ub"), elems * 20);
        EXPECT_LE(PlannedBytes(plan.buffers, "ub"), CoreLimits().ubBytes);
    }
}

std::string ReasonOf(const Planner& planner, const CoreLimits& limits = {}) {
    TilingPlan plan;
    EXPECT_TRUE(planner(limits, &plan).ok());
    return plan.reason;
}

TEST(TilingPlan, SaysWhatTheNextLargerTileWouldNeed) {
    CoreLimits wide;
    wide.l1Bytes = wide.ubBytes = 1u << 30;
    EXPECT_EQ(ReasonOf(Attention(DataType::kFloat16, 128)),
              "block_m holds 8 tokens x 16 heads that share a KV head; with block_n 512, L1 needs "
              "819200 bytes, but holds 524032");
    EXPECT_EQ(ReasonOf(Attention(DataType::kFloat16, 128), wide),
              "block_m holds 8 tokens x 16 heads that share a KV head; block_n 256 is the largest "
              "that is tried");
    EXPECT_EQ(ReasonOf(Grad(DataType::kFloat16, 128)),
              "block_m 128, block_n 128, vec_rows 32 are the largest that are tried");
    EXPECT_EQ(ReasonOf(Grad(DataType::kFloat32, 256, false)).substr(0, 5), "with ");
    EXPECT_NE(ReasonOf(Grad(DataType::kFloat32, 256, false)).find("bytes, but holds"),
              std::string::npos);
    EXPECT_EQ(ReasonOf(Rope(128)), "one pass holds all heads");
    CoreLimits narrow;
    narrow.ubBytes = 32 * 1024;
    EXPECT_NE(ReasonOf(Rope(128), narrow).find("UB needs"), std::string::npos);
    EXPECT_NE(ReasonOf(Norm(DataType::kFloat32, 11264, true)).find("with two buffers, UB needs"),
              std::string::npos);
    EXPECT_NE(ReasonOf(Norm(DataType::kFloat16, 4096, false)).find("more than 16 KB of x"),
              std::string::npos);
    EXPECT_NE(ReasonOf(Gate(DataType::kFloat16, 512, 13696)).find("more than 16 KB of gate"),
              std::string::npos);
    EXPECT_EQ(ReasonOf(Gate(DataType::kFloat16, 1, 16)), "one tile holds the whole output");
}

TEST(TilingPlan, IsRefusedAsTheTilingRefuses) {
    TilingPlan plan;
    CoreLimits limits;
    limits.l1Bytes = 16 * 1024;
    const Status status = Attention(DataType::kFloat16, 128)(limits, &plan);
    EXPECT_EQ(status.code, StatusCode::kNoFit);
    EXPECT_NE(status.message.find("lower head_dim"), std::string::npos);
    FlashAttentionArgs mixed;
    mixed.qType = DataType::kFloat16;
    mixed.cacheType = DataType::kFloat32;
    EXPECT_EQ(PlanFlashAttention(mixed, {}, &plan).code, StatusCode::kInvalidShape);
}

}  // namespace
