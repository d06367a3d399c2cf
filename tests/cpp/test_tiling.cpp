// Host tiling: what is refused, and that every tile chosen fits the memories of a core.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <string>
#include <vector>

#include "flash_attention/op_host/flash_attention_tiling.h"
#include "flash_attention_grad/op_host/flash_attention_grad_tiling.h"
#include "rms_norm/op_host/rms_norm_tiling.h"
#include "rope_append/op_host/rope_append_tiling.h"
#include "swiglu/op_host/swiglu_tiling.h"

namespace {

using namespace ascend_ops;

constexpr std::array<int32_t, 3> kOffsets = {0, 100, 107};
constexpr std::array<int32_t, 2> kLengths = {300, 400};

FlashAttentionArgs Attention(uint32_t heads = 32, uint32_t kvHeads = 2, uint32_t headDim = 128) {
    FlashAttentionArgs args;
    args.cuSeqlensQ = kOffsets.data();
    args.seqLenKv = kLengths.data();
    args.numTokens = 107;
    args.numSeqs = 2;
    args.numHeads = heads;
    args.numKvHeads = kvHeads;
    args.headDim = headDim;
    args.pageSize = 128;
    args.maxPages = 4;
    return args;
}

Status Tile(const FlashAttentionArgs& args, const CoreLimits& limits = {}) {
    FlashAttentionTilingData tiling;
    return ComputeFlashAttentionTiling(args, limits, &tiling);
}

void ExpectStatus(const Status& status, StatusCode code, const std::string& part) {
    EXPECT_EQ(status.code, code);
    EXPECT_NE(status.message.find(part), std::string::npos) << status.message;
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

// ---- Splitting keys ----

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

RopeAppendArgs Rope(uint32_t heads = 32, uint32_t kvHeads = 2, uint32_t headDim = 128,
                    uint32_t rotaryDim = 64) {
    RopeAppendArgs args;
    args.numTokens = 100;
    args.numSeqs = 1;
    args.numHeads = heads;
    args.numKvHeads = kvHeads;
    args.headDim = headDim;
    args.rotaryDim = rotaryDim;
    args.pageSize = 128;
    args.maxPages = 1;
    return args;
}

Status Tile(const RopeAppendArgs& args, const CoreLimits& limits = {}) {
    RopeAppendTilingData tiling;
    return ComputeRopeAppendTiling(args, limits, &tiling);
}

TEST(RopeAppendTiling, RefusesWhatTheKernelDoesNotServe) {
    for (const uint32_t headDim : {0u, 24u, 272u}) {
        ExpectStatus(Tile(Rope(2, 1, headDim, 0)), StatusCode::kInvalidShape,
                     "head_dim is " + std::to_string(headDim) + "; it must be a multiple of 16");
    }
    ExpectStatus(Tile(Rope(2, 1, 16, 12)), StatusCode::kInvalidShape,
                 "rotary_dim is 12; it must be a multiple of 8 up to head_dim = 16");
    ExpectStatus(Tile(Rope(2, 1, 16, 24)), StatusCode::kInvalidShape, "rotary_dim is 24");
    ExpectStatus(Tile(Rope(0, 1)), StatusCode::kInvalidShape, "must be positive");
    ExpectStatus(Tile(Rope(2, 0)), StatusCode::kInvalidShape, "must be positive");
    CoreLimits limits;
    limits.ubBytes = 1024;
    ExpectStatus(Tile(Rope(), limits), StatusCode::kNoFit, "bytes for one head, but holds 1024");
}

TEST(RopeAppendTiling, KeysNameTheElementTypes) {
    uint64_t key = 99;
    EXPECT_TRUE(RopeAppendTilingKey(DataType::kFloat16, DataType::kFloat16, &key).ok());
    EXPECT_EQ(key, kRopeKeyHalfHalf);
    EXPECT_TRUE(RopeAppendTilingKey(DataType::kFloat32, DataType::kFloat16, &key).ok());
    EXPECT_EQ(key, kRopeKeyFloatHalf);
    EXPECT_TRUE(RopeAppendTilingKey(DataType::kFloat32, DataType::kFloat32, &key).ok());
    EXPECT_EQ(key, kRopeKeyFloatFloat);
    ExpectStatus(RopeAppendTilingKey(DataType::kFloat16, DataType::kFloat32, &key),
                 StatusCode::kInvalidShape, "the cache must have qkv's type");
}

TEST(RopeAppendTiling, EveryPassFits) {
    const CoreLimits limits;
    for (uint32_t headDim = 16; headDim <= 256; headDim += 16) {
        for (uint32_t rotaryDim = 0; rotaryDim <= headDim; rotaryDim += 8) {
            for (const uint32_t heads : {1u, 2u, 32u, 70u}) {
                RopeAppendTilingData t;
                ASSERT_TRUE(
                    ComputeRopeAppendTiling(Rope(heads, 1, headDim, rotaryDim), limits, &t).ok());
                EXPECT_GE(t.headsPerPass, 1u);
                EXPECT_LE(t.headsPerPass, heads);
                // raw, x and out, swap; seven tables.
                const uint32_t ub =
                    t.headsPerPass * (3 * headDim + rotaryDim) * 4 + 7 * rotaryDim * 4;
                EXPECT_LE(ub, limits.ubBytes);
                EXPECT_GE(t.numCores, 1u);
                EXPECT_LE(t.numCores, limits.numCores);
            }
        }
    }
}

constexpr uint32_t kRows[] = {0, 1, 2, 7, 64, 1000, 4097};
constexpr DataType kTypes[] = {DataType::kFloat16, DataType::kFloat32};

RmsNormArgs Norm(uint32_t rows, uint32_t hiddenSize, DataType type = DataType::kFloat16,
                 bool hasResidual = false) {
    static float memory = 0;
    RmsNormArgs args;
    args.numRows = rows;
    args.hiddenSize = hiddenSize;
    args.type = type;
    args.residual = hasResidual ? &memory : nullptr;
    args.total = hasResidual ? &memory : nullptr;
    return args;
}

Status Tile(const RmsNormArgs& args, const CoreLimits& limits = {}) {
    RmsNormTilingData tiling;
    return ComputeRmsNormTiling(args, limits, &tiling);
}

TEST(RmsNormTiling, RefusesWhatTheKernelDoesNotServe) {
    ExpectStatus(Tile(Norm(1, 0)), StatusCode::kInvalidShape, "hidden_size is 0; it must be 1 to");
    ExpectStatus(Tile(Norm(1, kMaxHiddenSize + 1)), StatusCode::kInvalidShape,
                 "hidden_size is 11265; it must be 1 to 11264");
    RmsNormArgs args = Norm(1, 64, DataType::kFloat16, true);
    args.total = nullptr;
    ExpectStatus(Tile(args), StatusCode::kInvalidShape, "residual and total must come together");
    CoreLimits limits;
    limits.ubBytes = 4096;
    ExpectStatus(Tile(Norm(1, 4096), limits), StatusCode::kNoFit,
                 "bytes for one row of 4096, but holds 4096; lower hidden_size");
}

TEST(RmsNormTiling, KeysNameTheKernels) {
    EXPECT_EQ(RmsNormTilingKey(DataType::kFloat16, false), kRmsNormKeyHalf);
    EXPECT_EQ(RmsNormTilingKey(DataType::kFloat32, false), kRmsNormKeyFloat);
    EXPECT_EQ(RmsNormTilingKey(DataType::kFloat16, true), kRmsNormKeyHalfResidual);
    EXPECT_EQ(RmsNormTilingKey(DataType::kFloat32, true), kRmsNormKeyFloatResidual);
}

// The kernel's buffers, in its own words: x and residual, wide and work, weight, five a row.
uint32_t RmsNormUb(const RmsNormTilingData& t, DataType type, bool hasResidual) {
    const uint32_t tile = t.rowsPerTile * t.pitch;
    uint32_t bytes = t.numBuffers * tile * SizeOf(type) * (hasResidual ? 2 : 1);
    bytes += tile * 4 * (type == DataType::kFloat16 ? 2 : 1) + t.pitch * 4;
    const uint32_t rows = (t.rowsPerTile + 7) / 8 * 8;
    return bytes + rows * (64 + 8 + 3) * 4;
}

TEST(RmsNormTiling, EveryTileFitsAndEveryRowIsTaken) {
    const CoreLimits limits;
    for (uint32_t hiddenSize = 1; hiddenSize <= kMaxHiddenSize; hiddenSize += 1 + hiddenSize / 9) {
        for (const DataType type : kTypes) {
            for (const bool hasResidual : {false, true}) {
                for (const uint32_t rows : kRows) {
                    const RmsNormArgs args = Norm(rows, hiddenSize, type, hasResidual);
                    RmsNormTilingData t;
                    ASSERT_TRUE(ComputeRmsNormTiling(args, limits, &t).ok()) << hiddenSize;
                    EXPECT_LE(RmsNormUb(t, type, hasResidual), limits.ubBytes);
                    EXPECT_GE(t.rowsPerTile, 1u);
                    EXPECT_LE(t.rowsPerTile, 255u);  // repeats of one instruction
                    EXPECT_TRUE(t.numBuffers == 1 || t.numBuffers == 2);
                    EXPECT_GE(t.pitch, hiddenSize);
                    EXPECT_LT((t.pitch - hiddenSize) * SizeOf(type), 32u);  // one block of padding
                    EXPECT_EQ(t.pitch * SizeOf(type) % 32, 0u);
                    // Repeat strides are bytes; a row's repeats are one instruction's.
                    EXPECT_TRUE(t.acrossRows == 0 ? hiddenSize / 64 <= 255 : t.pitch / 8 <= 255);
                    EXPECT_GE(t.numCores, 1u);
                    EXPECT_LE(t.numCores, limits.numCores);
                    EXPECT_GE(uint64_t{t.numCores} * t.rowsPerCore, rows);
                    EXPECT_TRUE(rows == 0 || (t.numCores - 1) * t.rowsPerCore < rows);
                    // Cores meet at a granule of GM.
                    EXPECT_EQ(uint64_t{t.rowsPerCore} * hiddenSize * SizeOf(type) % 32, 0u);
                }
            }
        }
    }
    RmsNormTilingData t;  // the longest row has room for itself alone
    const RmsNormArgs longest = Norm(100, kMaxHiddenSize, DataType::kFloat32, true);
    ASSERT_TRUE(ComputeRmsNormTiling(longest, limits, &t).ok());
    EXPECT_EQ(t.numBuffers, 1u);
    ASSERT_TRUE(ComputeRmsNormTiling(Norm(100, 4096), limits, &t).ok());
    EXPECT_EQ(t.rowsPerTile, 2u);  // 16 KB
    EXPECT_EQ(t.numBuffers, 2u);
}

SwigluArgs Gated(uint32_t rows, uint32_t width, DataType type = DataType::kFloat16) {
    SwigluArgs args;
    args.numRows = rows;
    args.width = width;
    args.type = type;
    return args;
}

TEST(SwigluTiling, RefusesWhatTheKernelDoesNotServe) {
    SwigluTilingData t;
    ExpectStatus(ComputeSwigluTiling(Gated(1, 0), {}, &t), StatusCode::kInvalidShape,
                 "width is 0; it must be positive");
    CoreLimits limits;
    limits.ubBytes = 4096;
    ExpectStatus(ComputeSwigluTiling(Gated(1, 64), limits, &t), StatusCode::kNoFit,
                 "UB needs 5120 bytes for the smallest tile, but holds 4096");
}

TEST(SwigluTiling, KeysNameTheElementType) {
    EXPECT_EQ(SwigluTilingKey(DataType::kFloat16), kSwigluKeyHalf);
    EXPECT_EQ(SwigluTilingKey(DataType::kFloat32), kSwigluKeyFloat);
}

TEST(SwigluTiling, EveryTileFitsAndEveryElementIsTaken) {
    CoreLimits limits;
    for (uint32_t width = 1; width <= 40000; width += 1 + width / 9) {
        for (const DataType type : kTypes) {
            for (const uint32_t rows : kRows) {
                for (const uint32_t cores : {1u, 2u, 24u}) {
                    limits.numCores = cores;
                    SwigluTilingData t;
                    ASSERT_TRUE(ComputeSwigluTiling(Gated(rows, width, type), limits, &t).ok());
                    const uint32_t unit = 32 / SizeOf(type);
                    const uint32_t pitch = (t.tileCols + unit - 1) / unit * unit;
                    EXPECT_GE(t.tileElems, t.tileRows * pitch);
                    EXPECT_LE(
                        t.tileElems * (4 * SizeOf(type) + (type == DataType::kFloat16 ? 12 : 4)),
                        limits.ubBytes);
                    EXPECT_GE(t.tileRows, 1u);
                    EXPECT_LE(t.tileRows, 4095u);  // blocks of one DataCopyPad
                    EXPECT_GE(t.tileCols * t.colTiles, width);
                    EXPECT_LT(t.tileCols * (t.colTiles - 1), width);
                    EXPECT_TRUE(t.colTiles == 1 || t.tileRows == 1);
                    const uint64_t rowTiles = (uint64_t{rows} + t.tileRows - 1) / t.tileRows;
                    EXPECT_EQ(t.numTiles, rowTiles * t.colTiles);
                    EXPECT_GE(t.numCores, 1u);
                    EXPECT_LE(t.numCores, cores);
                    EXPECT_GE(t.numCores * t.tilesPerCore, t.numTiles);
                    EXPECT_TRUE(rows == 0 || (t.numCores - 1) * t.tilesPerCore < t.numTiles);
                    for (uint32_t core = 1; core < t.numCores; ++core) {  // meet at granules of GM
                        const uint64_t tile = core * t.tilesPerCore;
                        const uint64_t at =
                            tile / t.colTiles * t.tileRows * width + tile % t.colTiles * t.tileCols;
                        EXPECT_EQ(at * SizeOf(type) % 32, 0u) << width << " " << rows;
                    }
                }
            }
        }
    }
}

TEST(SwigluTiling, OneTokenIsSharedByAllCores) {
    SwigluTilingData t;
    ASSERT_TRUE(ComputeSwigluTiling(Gated(1, 13696), {}, &t).ok());
    EXPECT_EQ(t.numCores, 7u);  // 2048 elements each
    CoreLimits two;
    two.numCores = 2;
    ASSERT_TRUE(ComputeSwigluTiling(Gated(1, 13696), two, &t).ok());
    EXPECT_EQ(t.numCores, 2u);
}

}  // namespace
