// Tiling of attention whose keys are cut into parts, from lengths and from shapes alone.
#include <algorithm>
#include <array>
#include <functional>
#include <vector>

#include "flash_attention/op_host/flash_attention_tiling.h"
#include "tiling_cases.h"

namespace {

using namespace ascend_ops;
using namespace glm2_test;

// Sequences of (queries, keys), 32 heads on `kvHeads`.
struct Lengths {
    Lengths(const std::vector<std::array<int32_t, 2>>& sequences, uint32_t kvHeads)
        : args(Attention(32, kvHeads)) {
        for (const auto& [queries, keys] : sequences) {
            offsets.push_back(offsets.back() + queries);
            lengths.push_back(keys);
        }
        args.cuSeqlensQ = offsets.data();
        args.seqLenKv = lengths.data();
        args.numSeqs = static_cast<uint32_t>(lengths.size());
        args.numTokens = static_cast<uint32_t>(offsets.back());
    }

    FlashAttentionTilingData Tile(const CoreLimits& limits = {}) const {
        FlashAttentionTilingData t;
        EXPECT_TRUE(ComputeFlashAttentionTiling(args, limits, &t).ok());
        return t;
    }

    std::vector<int32_t> offsets = {0}, lengths;
    FlashAttentionArgs args;
};

TEST(FlashAttentionSplit, BeginsPastOnePart) {
    EXPECT_EQ(Lengths({{1, 1024}}, 2).Tile().partRows, 0u);
    const FlashAttentionTilingData t = Lengths({{1, 1025}}, 2).Tile();
    EXPECT_EQ(t.splitKeys, 1024u);
    EXPECT_EQ(t.partRows, 2u * 2 * 16);  // parts, groups, rows
    EXPECT_EQ(t.numCores, 4u);
}

TEST(FlashAttentionSplit, GivesOneSequenceOfOneGroupToSeveralCores) {
    const FlashAttentionTilingData t = Lengths({{1, 16384}}, 1).Tile();
    EXPECT_EQ(t.partRows, 16u * 32);
    EXPECT_EQ(t.numCores, 16u);
    CoreLimits limits;
    limits.numCores = 2;
    EXPECT_EQ(Lengths({{1, 1500}}, 1).Tile(limits).numCores, 2u);
}

// What is summed apart must not follow from the cores that happen to work, nor from the batch.
TEST(FlashAttentionSplit, DoesNotDependOnTheNumberOfCores) {
    for (const uint32_t cores : {1u, 2u, 3u, 24u, 1000u}) {
        CoreLimits limits;
        limits.numCores = cores;
        const FlashAttentionTilingData t = Lengths({{1, 9000}, {3, 3000}}, 2).Tile(limits);
        EXPECT_EQ(t.splitKeys, 1024u);
        EXPECT_EQ(t.partRows, 9u * 2 * 16 + 3 * 2 * 48);
        EXPECT_EQ(t.numCores, std::min(cores, 24u));
    }
}

TEST(FlashAttentionSplit, DoesNotDependOnTheBatch) {
    const Lengths alone({{1, 5000}}, 2);
    const std::vector<std::array<int32_t, 2>> many(100, {1, 5000});
    EXPECT_EQ(Lengths(many, 2).Tile().partRows, 100 * alone.Tile().partRows);
}

TEST(FlashAttentionSplit, IsOfSequencesWithOneQTile) {
    EXPECT_EQ(Lengths({{8, 5000}}, 2).Tile().partRows, 5u * 2 * 128);
    EXPECT_EQ(Lengths({{9, 5000}}, 2).Tile().partRows, 0u);
    EXPECT_EQ(Lengths({{0, 5000}}, 2).Tile().partRows, 0u);
    EXPECT_EQ(Lengths({{900, 5000}, {0, 5000}, {1, 5000}}, 2).Tile().partRows, 5u * 2 * 16);
}

TEST(FlashAttentionSplit, LeavesOutWhatNoQuerySees) {
    Lengths call({{1, 5000}}, 1);
    call.args.window = 100;  // keys 4901 to 4999, of one part
    EXPECT_EQ(call.Tile().partRows, 0u);
    call.args.window = 1000;  // keys 4001 to 4999, of two
    EXPECT_EQ(call.Tile().partRows, 2u * 32);
    for (const int32_t prefix : {0, 3}) {
        call.args.prefixLen = &prefix;
        EXPECT_EQ(call.Tile().partRows, (prefix == 0 ? 2u : 5u) * 32);
    }
}

TEST(FlashAttentionSplit, RoundsRowsToABlockOfStatistics) {
    Lengths call({{1, 2000}}, 1);
    call.args.numHeads = 3;
    EXPECT_EQ(call.Tile().partRows, 2u * 8);
}

TEST(FlashAttentionSplit, TakesPartsThatTheTargetAsksFor) {
    const Lengths call({{1, 2000}}, 2);
    CoreLimits limits;
    limits.splitKeys = 0;
    EXPECT_EQ(call.Tile(limits).partRows, 0u);
    limits.splitKeys = 300;  // whole K/V tiles
    EXPECT_EQ(call.Tile(limits).blockN, 128u);
    EXPECT_EQ(call.Tile(limits).splitKeys, 384u);
    EXPECT_EQ(call.Tile(limits).partRows, 6u * 2 * 16);
}

TEST(FlashAttentionSplit, PartsLieBehindTheCoresWorkspaces) {
    const FlashAttentionTilingData t = Lengths({{1, 5000}, {2, 7000}}, 2).Tile();
    const uint64_t rows = 5 * 2 * 16 + 7 * 2 * 32;
    EXPECT_EQ(t.partRows, rows);
    EXPECT_GE(t.workspacePartAcc, t.numCores * t.workspaceBytes);
    EXPECT_GE(t.workspacePartMax, t.workspacePartAcc + rows * t.headDim * 4);
    EXPECT_GE(t.workspacePartSum, t.workspacePartMax + rows * 4);
    EXPECT_GE(t.workspaceTotal, t.workspacePartSum + rows * 4);
    for (const uint64_t at : {t.workspacePartAcc, t.workspacePartMax, t.workspacePartSum}) {
        EXPECT_EQ(at % 512, 0u);
    }
    const FlashAttentionTilingData none = Lengths({{1, 500}}, 2).Tile();
    EXPECT_EQ(none.workspaceTotal, none.numCores * none.workspaceBytes);
}

// ---- Lengths on the device ----

// Calls `visit` with every way in which `seqs` sequences may have `tokens` queries together.
void ForEachSharing(uint32_t tokens, uint32_t seqs, std::vector<std::array<int32_t, 2>>* sequences,
                    const std::function<void()>& visit) {
    if (sequences->size() + 1 == seqs) {
        sequences->push_back({static_cast<int32_t>(tokens), 0});
        visit();
        sequences->pop_back();
        return;
    }
    for (uint32_t first = 0; first <= tokens; ++first) {
        sequences->push_back({static_cast<int32_t>(first), 0});
        ForEachSharing(tokens - first, seqs, sequences, visit);
        sequences->pop_back();
    }
}

// The most that lengths of these shapes ask for: (numCores, partRows), by trying them all.
std::array<uint32_t, 2> MostOf(uint32_t tokens, uint32_t seqs, uint32_t keys,
                               const FlashAttentionArgs& like, const CoreLimits& limits) {
    std::array<uint32_t, 2> most = {0, 0};
    std::vector<std::array<int32_t, 2>> sequences;
    ForEachSharing(tokens, seqs, &sequences, [&] {
        for (const uint32_t length : {keys, keys / 2}) {
            for (auto& sequence : sequences) sequence[1] = static_cast<int32_t>(length);
            Lengths call(sequences, like.numKvHeads);
            call.args.numHeads = like.numHeads;
            call.args.window = like.window;
            const FlashAttentionTilingData t = call.Tile(limits);
            most = {std::max(most[0], t.numCores), std::max(most[1], t.partRows)};
        }
    });
    return most;
}

// Workspace and cores for shapes must do for all lengths: tried one by one.
TEST(FlashAttentionOfShapes, AllowsForEveryLength) {
    CoreLimits limits;
    limits.numCores = 100000;
    for (const uint32_t group : {16u, 12u, 3u, 100u}) {
        for (const uint32_t window : {0u, 700u}) {
            FlashAttentionArgs args = Attention(2 * group, 2);
            args.window = window;
            for (uint32_t tokens = 0; tokens <= 12; ++tokens) {
                for (uint32_t seqs = 1; seqs <= 3; ++seqs) {
                    args.numTokens = tokens;
                    args.numSeqs = seqs;
                    args.cuSeqlensQ = args.seqLenKv = nullptr;
                    FlashAttentionTilingData t;
                    ASSERT_TRUE(ComputeFlashAttentionTilingOfShapes(args, 5000, limits, &t).ok());
                    const auto most = MostOf(tokens, seqs, 5000, args, limits);
                    EXPECT_GE(t.numCores, most[0]) << group << " " << tokens << " " << seqs;
                    EXPECT_GE(t.partRows, most[1]) << group << " " << tokens << " " << seqs;
                    if (window == 0 && group == 16) {
                        EXPECT_EQ(t.partRows, most[1]) << tokens << " " << seqs;
                    }
                }
            }
        }
    }
}

TEST(FlashAttentionOfShapes, DoesNotCutWhatNoLengthCuts) {
    FlashAttentionArgs args = Attention(32, 2);
    FlashAttentionTilingData t;
    ASSERT_TRUE(ComputeFlashAttentionTilingOfShapes(args, 1024, {}, &t).ok());
    EXPECT_EQ(t.partRows, 0u);
    EXPECT_EQ(t.workspaceTotal, t.numCores * t.workspaceBytes);
    CoreLimits limits;
    limits.splitKeys = 0;
    ASSERT_TRUE(ComputeFlashAttentionTilingOfShapes(args, 100000, limits, &t).ok());
    EXPECT_EQ(t.partRows, 0u);
}

TEST(FlashAttentionOfShapes, RefusesMorePartsThanTheKernelCounts) {
    FlashAttentionArgs args = Attention(32, 2);
    args.numSeqs = args.numTokens = 1u << 20;
    FlashAttentionTilingData t;
    ExpectStatus(ComputeFlashAttentionTilingOfShapes(args, 1u << 20, {}, &t), StatusCode::kNoFit,
                 "the parts of split keys have 34359738368 rows; at most 4294967295");
}

}  // namespace
