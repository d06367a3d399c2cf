// Tiling of attention's gradient.
#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "flash_attention_grad/op_host/flash_attention_grad_tiling.h"
#include "tiling_cases.h"

namespace {

using namespace ascend_ops;
using namespace glm2_test;

FlashAttentionGradArgs Gradient(uint32_t heads = 32, uint32_t kvHeads = 2, uint32_t headDim = 128) {
    FlashAttentionGradArgs args;
    args.cuSeqlensQ = kOffsets.data();
    args.cuSeqlensKv = kOffsets.data();
    args.numSeqs = 2;
    args.numHeads = heads;
    args.numKvHeads = kvHeads;
    args.headDim = headDim;
    return args;
}

Status Tile(const FlashAttentionGradArgs& args, const CoreLimits& limits = {}) {
    FlashAttentionGradTilingData tiling;
    return ComputeFlashAttentionGradTiling(args, limits, &tiling);
}

TEST(FlashAttentionGradTiling, RefusesWhatTheKernelDoesNotServe) {
    ExpectStatus(Tile(Gradient(30, 4)), StatusCode::kInvalidShape,
                 "q has 30 heads and k has 4; num_heads must be a multiple of num_kv_heads");
    ExpectStatus(Tile(Gradient(4, 0)), StatusCode::kInvalidShape, "q has 4 heads and k has 0");
    ExpectStatus(Tile(Gradient(0, 4)), StatusCode::kInvalidShape, "q has 0 heads and k has 4");
    for (const uint32_t headDim : {0u, 8u, 24u, 272u}) {
        ExpectStatus(Tile(Gradient(2, 1, headDim)), StatusCode::kInvalidShape,
                     "head_dim is " + std::to_string(headDim) + "; it must be a multiple of 16");
    }
    ExpectStatus(Tile(Gradient(256, 2, 256)), StatusCode::kInvalidShape,
                 "num_heads * head_dim is 65536; at most 65535");
    const std::array<int32_t, 2> endless = {0, 1 << 29};
    FlashAttentionGradArgs args = Gradient(4, 1, 16);
    args.cuSeqlensQ = args.cuSeqlensKv = endless.data();
    args.numSeqs = 1;
    ExpectStatus(Tile(args), StatusCode::kInvalidShape,
                 "the longest sequence has 2147483648 rows of token x head in a KV group");
}

TEST(FlashAttentionGradTiling, RefusesACoreThatIsTooSmall) {
    CoreLimits limits;
    limits.l1Bytes = 16 * 1024;
    ExpectStatus(Tile(Gradient(), limits), StatusCode::kNoFit,
                 "for block_m=64, block_n=64, but they hold 16384 and 188416; lower head_dim");
    limits = {};
    limits.ubBytes = 1024;
    ExpectStatus(Tile(Gradient(), limits), StatusCode::kNoFit, "but they hold 524032 and 1024");
}

TEST(FlashAttentionGradTiling, KeysNameTheElementType) {
    EXPECT_EQ(FlashAttentionGradTilingKey(DataType::kFloat16), kGradKeyHalf);
    EXPECT_EQ(FlashAttentionGradTilingKey(DataType::kFloat32), kGradKeyFloat);
    EXPECT_EQ(FlashAttentionGradTilingKey(DataType::kBfloat16), kGradKeyBfloat16);
}

// Written down again from the kernel's Init functions, not shared with the tiling.
void ExpectFits(const FlashAttentionGradTilingData& t, uint32_t bytes, const CoreLimits& limits) {
    const uint32_t d = t.headDim, rows = std::max(t.blockM, t.blockN);
    uint32_t l1 = 2 * t.blockN * d + 2 * t.blockM * d + 2 * t.blockM * t.blockN;
    if (t.taskSlots > 1) l1 += t.blockN * d + 2 * t.blockM * d;
    EXPECT_LE(l1 * bytes, limits.l1Bytes);
    EXPECT_LE(2 * rows * t.l0BlockK * bytes, limits.l0aBytes);
    EXPECT_LE(2 * t.l0BlockN * t.l0BlockK * bytes, limits.l0bBytes);
    EXPECT_LE(2 * rows * t.l0BlockN * 4, limits.l0cBytes);
    const uint32_t pass = t.vecRows * std::max(t.blockN, d);
    uint32_t ub = 4 * t.blockN * d + 2 * (8 * pass + 8 * t.vecRows) + 4 * t.vecRows * (64 + 8);
    if (bytes == 2) ub += 2 * 2 * pass * bytes;
    EXPECT_LE(ub, limits.ubBytes);
}

TEST(FlashAttentionGradTiling, EveryTileFits) {
    for (const bool overlap : {false, true}) {
        CoreLimits limits;
        limits.overlap = overlap;
        for (const DataType type : {DataType::kFloat16, DataType::kFloat32}) {
            for (uint32_t headDim = 16; headDim <= 256; headDim += 16) {
                for (const uint32_t group : {1u, 3u, 16u, 128u, 255u}) {
                    FlashAttentionGradArgs args = Gradient(group, 1, headDim);
                    args.type = type;
                    FlashAttentionGradTilingData t;
                    const Status status = ComputeFlashAttentionGradTiling(args, limits, &t);
                    ASSERT_TRUE(status.ok()) << status.message;
                    ExpectFits(t, SizeOf(type), limits);
                    EXPECT_EQ(t.groupSize, group);
                    EXPECT_EQ(t.taskSlots, overlap ? kMaxGradSlots : 1);
                    EXPECT_EQ(t.blockM % 16, 0u);
                    EXPECT_EQ(t.blockN % 64, 0u);
                    EXPECT_EQ(t.vecRows % 8, 0u);
                    EXPECT_LE(std::max(t.blockM, t.blockN), 128u);
                    EXPECT_EQ(t.numCores, 2u);  // two sequences of one group
                }
            }
        }
    }
}

TEST(FlashAttentionGradTiling, WorkspacePartsDoNotOverlap) {
    for (const DataType type : {DataType::kFloat16, DataType::kFloat32}) {
        FlashAttentionGradArgs args = Gradient();
        args.type = type;
        FlashAttentionGradTilingData t;
        ASSERT_TRUE(ComputeFlashAttentionGradTiling(args, {}, &t).ok());
        const uint64_t bytes = SizeOf(type), d = t.headDim;
        const uint64_t square = static_cast<uint64_t>(t.taskSlots) * t.blockM * t.blockN;
        const uint64_t rows = 100 * 16;  // of the longer sequence, in whole tiles:
        const uint64_t places = (rows + t.blockM - 1) / t.blockM * t.blockM;
        const std::vector<std::array<uint64_t, 2>> parts = {
            {t.workspaceS, square * 4},
            {t.workspaceDp, square * 4},
            {t.workspaceP, square * bytes},
            {t.workspaceDs, square * bytes},
            {t.workspaceDvPart, t.taskSlots * t.blockN * d * 4},
            {t.workspaceDkPart, t.taskSlots * t.blockN * d * 4},
            {t.workspaceDqPart, t.taskSlots * t.blockM * d * 4},
            {t.workspaceDq, places * d * 4},
            {t.workspaceLse, places * 4},
            {t.workspaceDelta, places * 4},
            {t.workspaceBytes, 0}};
        for (size_t i = 0; i + 1 < parts.size(); ++i) {
            EXPECT_EQ(parts[i][0] % 512, 0u);
            EXPECT_GE(parts[i + 1][0], parts[i][0] + parts[i][1]);
        }
    }
}

}  // namespace
