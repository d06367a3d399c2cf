// Tile sizes of the gradient. The UB and L1 plans mirror the kernel's Init functions.
#include "flash_attention_grad/op_host/flash_attention_grad_tiling.h"

#include <algorithm>
#include <string>

namespace ascend_ops {
namespace {

constexpr uint32_t kMaxStride = 65535;  // of a GM matrix, elements (Nd2Nz)
constexpr uint32_t kWindowCap = 1u << 30;
constexpr uint64_t kMaxRows = 1u << 30;

struct Tile {
    uint32_t blockM;
    uint32_t blockN;
};
constexpr Tile kTiles[] = {{128, 128}, {128, 64}, {64, 64}};  // the last is the least
constexpr uint32_t kVecRows[] = {32, 16};

Status Invalid(const std::string& message) {
    return Status::Error(StatusCode::kInvalidShape, message);
}

uint32_t TokensOf(const FlashAttentionGradArgs& args, uint32_t seq) {
    return static_cast<uint32_t>(args.cuSeqlensQ[seq + 1] - args.cuSeqlensQ[seq]);
}

uint32_t KeysOf(const FlashAttentionGradArgs& args, uint32_t seq) {
    return static_cast<uint32_t>(args.cuSeqlensKv[seq + 1] - args.cuSeqlensKv[seq]);
}

// Rows (token x head of one group) of the longest sequence.
uint64_t MostRows(const FlashAttentionGradArgs& args) {
    uint64_t most = 0;
    for (uint32_t seq = 0; seq < args.numSeqs; ++seq) {
        most = std::max<uint64_t>(most, TokensOf(args, seq));
    }
    return most * (args.numHeads / args.numKvHeads);
}

Status CheckShape(const FlashAttentionGradArgs& args) {
    if (args.numKvHeads == 0 || args.numHeads == 0 || args.numHeads % args.numKvHeads != 0) {
        return Invalid("q has " + std::to_string(args.numHeads) + " heads and k has " +
                       std::to_string(args.numKvHeads) +
                       "; num_heads must be a multiple of num_kv_heads");
    }
    if (args.headDim == 0 || args.headDim % 16 != 0 || args.headDim > 256) {
        return Invalid("head_dim is " + std::to_string(args.headDim) +
                       "; it must be a multiple of 16 up to 256");
    }
    const uint64_t rowElems = static_cast<uint64_t>(args.numHeads) * args.headDim;
    if (rowElems > kMaxStride) {
        return Invalid("num_heads * head_dim is " + std::to_string(rowElems) + "; at most " +
                       std::to_string(kMaxStride));
    }
    const uint64_t rows = MostRows(args);
    if (rows > kMaxRows) {
        return Invalid("the longest sequence has " + std::to_string(rows) +
                       " rows of token x head in a KV group; at most " + std::to_string(kMaxRows) +
                       ": split it");
    }
    return Status::Ok();
}

// Bytes of UB that an AIV takes: as FlashAttentionGradVector::Init adds them up.
uint32_t UbBytes(const FlashAttentionGradTilingData& t, uint32_t typeBytes) {
    const uint32_t pass = t.vecRows * std::max(t.blockN, t.headDim);
    const uint32_t rounded = typeBytes == 2 ? 2 * pass * typeBytes : 0;
    return 2 * (t.blockN / 2 * t.headDim * 4) + 2 * (2 * pass * 4 + rounded + 2 * t.vecRows * 4) +
           t.vecRows * 64 * 4 + t.vecRows * 8 * 4;
}

// Bytes of L1 that an AIC takes: Q, dO, K and V of stage one; P and dS of stage two, and Q, dO and
// K once more where it works on another task.
uint32_t L1Bytes(const FlashAttentionGradTilingData& t, uint32_t typeBytes) {
    const uint32_t stageOne = 2 * t.blockM + 2 * t.blockN;
    const uint32_t stageTwo = t.taskSlots == 1 ? 0 : 2 * t.blockM + t.blockN;
    return ((stageOne + stageTwo) * t.headDim + 2 * t.blockM * t.blockN) * typeBytes;
}

bool Fits(const FlashAttentionGradTilingData& t, uint32_t typeBytes, const CoreLimits& limits) {
    const uint32_t rows = std::max(t.blockM, t.blockN);
    return UbBytes(t, typeBytes) <= limits.ubBytes && L1Bytes(t, typeBytes) <= limits.l1Bytes &&
           2 * rows * t.l0BlockK * typeBytes <= limits.l0aBytes &&
           2 * t.l0BlockN * t.l0BlockK * typeBytes <= limits.l0bBytes &&
           2 * rows * t.l0BlockN * 4 <= limits.l0cBytes;
}

void LayOutWorkspace(FlashAttentionGradTilingData* t, uint32_t typeBytes, uint64_t mostRows) {
    constexpr uint64_t kAlign = 512;
    uint64_t end = 0;
    const auto place = [&end](uint64_t bytes) {
        const uint64_t at = end;
        end += (bytes + kAlign - 1) / kAlign * kAlign;
        return at;
    };
    const uint64_t square = static_cast<uint64_t>(t->taskSlots) * t->blockM * t->blockN;
    const uint64_t kvPart = static_cast<uint64_t>(t->taskSlots) * t->blockN * t->headDim;
    const uint64_t rows = (mostRows + t->blockM - 1) / t->blockM * t->blockM;
    t->workspaceS = place(square * 4);
    t->workspaceDp = place(square * 4);
    t->workspaceP = place(square * typeBytes);
    t->workspaceDs = place(square * typeBytes);
    t->workspaceDvPart = place(kvPart * 4);
    t->workspaceDkPart = place(kvPart * 4);
    t->workspaceDqPart = place(static_cast<uint64_t>(t->taskSlots) * t->blockM * t->headDim * 4);
    t->workspaceDq = place(rows * t->headDim * 4);
    t->workspaceLse = place(rows * 4);
    t->workspaceDelta = place(rows * 4);
    t->workspaceBytes = end;
}

// Sequences that have tokens or keys, times groups: no more cores than that have work.
uint64_t CountItems(const FlashAttentionGradArgs& args) {
    uint64_t items = 0;
    for (uint32_t seq = 0; seq < args.numSeqs; ++seq) {
        if (TokensOf(args, seq) + KeysOf(args, seq) > 0) ++items;
    }
    return items * args.numKvHeads;
}

}  // namespace

uint64_t FlashAttentionGradTilingKey(DataType type) {
    if (type == DataType::kFloat16) return kGradKeyHalf;
    return type == DataType::kBfloat16 ? kGradKeyBfloat16 : kGradKeyFloat;
}

Status ComputeFlashAttentionGradTiling(const FlashAttentionGradArgs& args, const CoreLimits& limits,
                                       FlashAttentionGradTilingData* tiling) {
    const Status shape = CheckShape(args);
    if (!shape.ok()) return shape;
    const uint32_t typeBytes = SizeOf(args.type);
    FlashAttentionGradTilingData t = {};
    t.numSeqs = args.numSeqs;
    t.numHeads = args.numHeads;
    t.numKvHeads = args.numKvHeads;
    t.groupSize = args.numHeads / args.numKvHeads;
    t.headDim = args.headDim;
    t.causal = args.causal ? 1 : 0;
    t.window = std::min(args.window, kWindowCap);
    t.hasPrefix = args.prefixLen != nullptr ? 1 : 0;
    t.scale = args.scale;
    t.l0BlockK = typeBytes == 2 ? 128 : 64;
    t.l0BlockN = 128;
    t.taskSlots = limits.overlap ? kMaxGradSlots : 1;
    for (const Tile& tile : kTiles) {
        t.blockM = tile.blockM;
        t.blockN = tile.blockN;
        for (const uint32_t vecRows : kVecRows) {
            t.vecRows = vecRows;
            if (!Fits(t, typeBytes, limits)) continue;
            LayOutWorkspace(&t, typeBytes, MostRows(args));
            const uint64_t items = std::max<uint64_t>(1, CountItems(args));
            t.numCores = static_cast<uint32_t>(std::min<uint64_t>(limits.numCores, items));
            *tiling = t;
            return Status::Ok();
        }
    }
    return Status::Error(StatusCode::kNoFit,
                         "L1 needs " + std::to_string(L1Bytes(t, typeBytes)) + " bytes and UB " +
                             std::to_string(UbBytes(t, typeBytes)) + " for block_m=" +
                             std::to_string(t.blockM) + ", block_n=" + std::to_string(t.blockN) +
                             ", but they hold " + std::to_string(limits.l1Bytes) + " and " +
                             std::to_string(limits.ubBytes) + "; lower head_dim");
}

}  // namespace ascend_ops
