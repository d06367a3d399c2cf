// Tiling of rope_append, rms_norm and swiglu.
#include <string>

#include "rms_norm/op_host/rms_norm_tiling.h"
#include "rope_append/op_host/rope_append_tiling.h"
#include "swiglu/op_host/swiglu_tiling.h"
#include "tiling_cases.h"

namespace {

using namespace ascend_ops;
using namespace glm2_test;

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
