// Tiling of attention: what is refused, and that every tile chosen fits the memories of a core.
#include <algorithm>
#include <array>
#include <string>

#include "flash_attention/op_host/flash_attention_tiling.h"
#include "tiling_cases.h"

namespace {

using namespace ascend_ops;
using namespace glm2_test;

Status Tile(const FlashAttentionArgs& args, const CoreLimits& limits = {}) {
    FlashAttentionTilingData tiling;
    return ComputeFlashAttentionTiling(args, limits, &tiling);
}

TEST(FlashAttentionTiling, RefusesContradictingHeads) {
    ExpectStatus(Tile(Attention(30, 4)), StatusCode::kInvalidShape,
                 "q has 30 heads and k has 4; num_heads must be a multiple of num_kv_heads");
    ExpectStatus(Tile(Attention(4, 0)), StatusCode::kInvalidShape, "q has 4 heads and k has 0");
    ExpectStatus(Tile(Attention(129, 1, 16)), StatusCode::kInvalidShape,
                 "the group size is 129; at most 128 heads may share one KV head");
}

TEST(FlashAttentionTiling, RefusesDimensionsThatTheKernelDoesNotServe) {
    for (const uint32_t headDim : {0u, 8u, 24u, 272u}) {
        ExpectStatus(Tile(Attention(2, 1, headDim)), StatusCode::kInvalidShape,
                     "head_dim is " + std::to_string(headDim) + "; it must be a multiple of 16");
    }
    for (const uint32_t pageSize : {0u, 8u, 24u, 272u}) {
        FlashAttentionArgs args = Attention();
        args.pageSize = pageSize;
        ExpectStatus(Tile(args), StatusCode::kInvalidShape,
                     "page_size is " + std::to_string(pageSize) + "; it must be a multiple of 16");
    }
    ExpectStatus(Tile(Attention(256, 2, 256)), StatusCode::kInvalidShape,
                 "num_heads * head_dim is 65536; at most 65535");
}

TEST(FlashAttentionTiling, RefusesACoreThatIsTooSmall) {
    CoreLimits limits;
    limits.l1Bytes = 16 * 1024;
    ExpectStatus(Tile(Attention(), limits), StatusCode::kNoFit, "but they hold 16384 and 188416");
    limits = {};
    limits.ubBytes = 1024;
    ExpectStatus(Tile(Attention(), limits), StatusCode::kNoFit, "lower head_dim or the group size");
}

TEST(FlashAttentionTiling, KeysNameTheElementTypes) {
    uint64_t key = 99;
    EXPECT_TRUE(FlashAttentionTilingKey(DataType::kFloat16, DataType::kFloat16, &key).ok());
    EXPECT_EQ(key, kKeyHalfHalf);
    EXPECT_TRUE(FlashAttentionTilingKey(DataType::kFloat32, DataType::kFloat16, &key).ok());
    EXPECT_EQ(key, kKeyFloatHalf);
    EXPECT_TRUE(FlashAttentionTilingKey(DataType::kFloat32, DataType::kFloat32, &key).ok());
    EXPECT_EQ(key, kKeyFloatFloat);
    ExpectStatus(FlashAttentionTilingKey(DataType::kFloat16, DataType::kFloat32, &key),
                 StatusCode::kInvalidShape, "the cache must have the queries' type");
}

// Written down again from the kernel's Init functions, not shared with the tiling.
void ExpectFits(const FlashAttentionTilingData& t, uint32_t bytes, const CoreLimits& limits) {
    const uint32_t d = t.headDim;
    EXPECT_LE((t.blockM * d + 2 * (2 * t.blockN * d + t.blockM * t.blockN)) * bytes,
              limits.l1Bytes);
    EXPECT_LE(2 * t.blockM * t.l0BlockK * bytes, limits.l0aBytes);
    EXPECT_LE(2 * t.l0BlockN * t.l0BlockK * bytes, limits.l0bBytes);
    EXPECT_LE(2 * t.blockM * t.l0BlockN * 4, limits.l0cBytes);
    const uint32_t rows = t.blockM / 2, cols = std::max(t.blockN, d);
    const uint32_t ub = 4 * rows * d + (4 + bytes) * t.vecRows * cols + 4 * t.vecRows * (64 + 8) +
                        4 * rows * (1 + 3 * t.taskSlots);
    EXPECT_LE(ub, limits.ubBytes);
}

TEST(FlashAttentionTiling, EveryTileFits) {
    const CoreLimits limits;
    uint32_t chosen = 0;
    for (const DataType type : {DataType::kFloat16, DataType::kFloat32}) {
        for (uint32_t headDim = 16; headDim <= 256; headDim += 16) {
            for (uint32_t group = 1; group <= 128; ++group) {
                if (group * headDim > 65535) continue;
                FlashAttentionArgs args = Attention(group, 1, headDim);
                args.qType = args.cacheType = type;
                FlashAttentionTilingData t;
                const Status status = ComputeFlashAttentionTiling(args, limits, &t);
                ASSERT_TRUE(status.ok()) << status.message;
                ++chosen;
                ExpectFits(t, SizeOf(type), limits);
                EXPECT_EQ(t.groupSize, group);
                EXPECT_GE(t.tokensPerBlock, 1u);
                EXPECT_LE(t.tokensPerBlock * group, t.blockM);
                EXPECT_EQ(t.blockM % 16, 0u);
                EXPECT_LE(t.blockM, 128u);
                EXPECT_EQ(t.blockN % 64, 0u);
                EXPECT_EQ(t.l0BlockK % 16, 0u);
                EXPECT_EQ(t.l0BlockN % 16, 0u);
                EXPECT_GE(t.numCores, 1u);
                EXPECT_LE(t.numCores, limits.numCores);
            }
        }
    }
    EXPECT_EQ(chosen, 2u * 16u * 128u);
}

// Larger memories and more rows make larger tiles of large groups. Which keys are split decides
// about bits, and stays.
TEST(FlashAttentionTiling, TakesMoreRowsWhereManyHeadsShareKeys) {
    CoreLimits larger;
    larger.ubBytes *= 2;
    larger.l1Bytes *= 2;
    larger.l0aBytes *= 2;
    larger.l0cBytes *= 2;
    larger.rowsWanted *= 2;
    constexpr struct {
        uint32_t group, rows;
    } kCases[] = {{1, 128}, {2, 128}, {8, 128}, {16, 256}, {32, 256}, {128, 256}};
    for (const auto& expected : kCases) {
        const FlashAttentionArgs args = Attention(2 * expected.group, 2);
        FlashAttentionTilingData t, usual;
        ASSERT_TRUE(ComputeFlashAttentionTiling(args, larger, &t).ok());
        ASSERT_TRUE(ComputeFlashAttentionTiling(args, {}, &usual).ok());
        ExpectFits(t, 2, larger);
        EXPECT_EQ(t.blockM, expected.rows) << expected.group;
        EXPECT_EQ(t.tokensPerBlock, expected.rows / expected.group);
        EXPECT_EQ(t.splitTokens, usual.splitTokens);
        EXPECT_EQ(t.splitTokens, 128 / expected.group);
        EXPECT_EQ(usual.blockM, 128u);
    }
}

TEST(FlashAttentionTiling, WorkspaceSlotsDoNotOverlap) {
    for (const DataType type : {DataType::kFloat16, DataType::kFloat32}) {
        FlashAttentionArgs args = Attention();
        args.qType = args.cacheType = type;
        FlashAttentionTilingData t;
        ASSERT_TRUE(ComputeFlashAttentionTiling(args, {}, &t).ok());
        const uint64_t bytes = SizeOf(type), rows = t.blockM;
        EXPECT_GE(t.workspaceS, t.workspaceQ + rows * t.headDim * bytes);
        EXPECT_GE(t.workspaceP, t.workspaceS + t.taskSlots * rows * t.blockN * 4);
        EXPECT_GE(t.workspaceO, t.workspaceP + t.taskSlots * rows * t.blockN * bytes);
        EXPECT_GE(t.workspaceBytes, t.workspaceO + t.taskSlots * rows * t.headDim * 4);
        for (const uint64_t at : {t.workspaceS, t.workspaceP, t.workspaceO, t.workspaceBytes}) {
            EXPECT_EQ(at % 512, 0u);
        }
    }
}

TEST(FlashAttentionTiling, NoMoreCoresThanTheirIsWork) {
    FlashAttentionArgs args = Attention();
    const std::array<int32_t, 2> one = {0, 1};
    args.cuSeqlensQ = one.data();
    args.numTokens = 1;
    args.numSeqs = 1;
    FlashAttentionTilingData t;
    ASSERT_TRUE(ComputeFlashAttentionTiling(args, {}, &t).ok());
    EXPECT_EQ(t.numCores, 2u);  // one a KV group
    args.numTokens = 0;
    args.numSeqs = 0;
    ASSERT_TRUE(ComputeFlashAttentionTiling(args, {}, &t).ok());
    EXPECT_EQ(t.numCores, 1u);
}

}  // namespace
