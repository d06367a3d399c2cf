// Tile sizes of FlashAttention. The UB and L1 plans mirror the kernel's Init functions, the parts
// of split keys its SequenceWalk.
#include "flash_attention/op_host/flash_attention_tiling.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "common/op_host/tiling_math.h"

namespace ascend_ops {
namespace {

constexpr uint32_t kMaxGroupSize = 128;
constexpr uint32_t kFewRows = 128;   // of a Q tile
constexpr uint32_t kFewTokens = 16;  // of one with more rows
constexpr uint32_t kVecRows = 32;
constexpr uint32_t kMaxStride = 65535;  // of a GM matrix, elements (Nd2Nz)
constexpr uint32_t kWindowCap = 1u << 30;
constexpr uint32_t kStatisticsUnit = 8;  // rows of a part: whole blocks of 32 bytes

uint32_t AlignTo(uint32_t value, uint32_t unit) { return (value + unit - 1) / unit * unit; }

Status Invalid(const std::string& message) {
    return Status::Error(StatusCode::kInvalidShape, message);
}

Status CheckShape(const FlashAttentionArgs& args) {
    if (args.numKvHeads == 0 || args.numHeads % args.numKvHeads != 0) {
        return Invalid("q has " + std::to_string(args.numHeads) + " heads and k has " +
                       std::to_string(args.numKvHeads) +
                       "; num_heads must be a multiple of num_kv_heads");
    }
    if (args.numHeads / args.numKvHeads > kMaxGroupSize) {
        return Invalid("the group size is " + std::to_string(args.numHeads / args.numKvHeads) +
                       "; at most " + std::to_string(kMaxGroupSize) +
                       " heads may share one KV head");
    }
    if (args.headDim == 0 || args.headDim % 16 != 0 || args.headDim > 256) {
        return Invalid("head_dim is " + std::to_string(args.headDim) +
                       "; it must be a multiple of 16 up to 256");
    }
    if (args.paged && (args.pageSize < 16 || args.pageSize > 256 || args.pageSize % 16 != 0)) {
        return Invalid("page_size is " + std::to_string(args.pageSize) +
                       "; it must be a multiple of 16 from 16 to 256");
    }
    // numHeads is no less than numKvHeads: the pitch of contiguous K and V is bounded with it.
    const uint64_t rowElems = static_cast<uint64_t>(args.numHeads) * args.headDim;
    if (rowElems > kMaxStride) {
        return Invalid("num_heads * head_dim is " + std::to_string(rowElems) + "; at most " +
                       std::to_string(kMaxStride));
    }
    return Status::Ok();
}

// Bytes of UB that an AIV takes: as FlashAttentionVector::Init adds them up.
uint32_t UbBytes(const FlashAttentionTilingData& t, uint32_t cacheBytes) {
    const uint32_t rows = t.blockM / 2;
    const uint32_t pass = t.vecRows * std::max(t.blockN, t.headDim);
    return rows * t.headDim * 4 + pass * 4 + pass * cacheBytes + t.vecRows * 64 * 4 +
           t.vecRows * 8 * 4 + (1 + 3 * t.taskSlots) * rows * 4;
}

// Bytes of L1 that an AIC takes: Q, and two buffers each of K, V and P.
uint32_t L1Bytes(const FlashAttentionTilingData& t, uint32_t cacheBytes) {
    return (t.blockM * t.headDim + 4 * t.blockN * t.headDim + 2 * t.blockM * t.blockN) * cacheBytes;
}

bool Fits(const FlashAttentionTilingData& t, uint32_t cacheBytes, const CoreLimits& limits) {
    return UbBytes(t, cacheBytes) <= limits.ubBytes && L1Bytes(t, cacheBytes) <= limits.l1Bytes &&
           2 * t.blockM * t.l0BlockK * cacheBytes <= limits.l0aBytes &&
           2 * t.l0BlockN * t.l0BlockK * cacheBytes <= limits.l0bBytes &&
           2 * t.blockM * t.l0BlockN * 4 <= limits.l0cBytes;
}

void LayOutWorkspace(FlashAttentionTilingData* t, uint32_t cacheBytes) {
    constexpr uint64_t kAlign = 512;
    const auto align = [](uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; };
    const uint64_t rows = t->blockM;
    t->workspaceQ = 0;
    t->workspaceS = align(t->workspaceQ + rows * t->headDim * cacheBytes);
    t->workspaceP = align(t->workspaceS + t->taskSlots * rows * t->blockN * 4);
    t->workspaceO = align(t->workspaceP + t->taskSlots * rows * t->blockN * cacheBytes);
    t->workspaceBytes = align(t->workspaceO + t->taskSlots * rows * t->headDim * 4);
    const uint64_t partRows = t->partRows;
    t->workspacePartAcc = t->numCores * t->workspaceBytes;
    t->workspacePartMax = align(t->workspacePartAcc + partRows * t->headDim * 4);
    t->workspacePartSum = align(t->workspacePartMax + partRows * 4);
    t->workspaceTotal = align(t->workspacePartSum + partRows * 4);
}

// What all cores have to do together.
struct Work {
    uint64_t items;     // Q tiles of all sequences and groups, or the parts of their keys
    uint64_t partRows;  // rows of all parts of what is cut
};

uint32_t TokensOf(const FlashAttentionArgs& args, uint32_t seq) {
    return static_cast<uint32_t>(args.cuSeqlensQ[seq + 1] - args.cuSeqlensQ[seq]);
}

Work WorkOf(const FlashAttentionArgs& args, const FlashAttentionTilingData& t) {
    Work work = {0, 0};
    for (uint32_t seq = 0; seq < args.numSeqs; ++seq) {
        const uint32_t tokens = TokensOf(args, seq);
        const uint64_t blocks = (tokens + t.tokensPerBlock - 1) / t.tokensPerBlock;
        const uint64_t parts = CountParts(args, t, seq);
        work.items += blocks * parts * t.numKvHeads;
        if (parts > 1) {
            work.partRows += parts * t.numKvHeads * AlignTo(tokens * t.groupSize, kStatisticsUnit);
        }
    }
    return work;
}

// No less than WorkOf any lengths. With more tokens than all sequences could have and be cut, one
// is not.
Work MostWorkOf(const FlashAttentionArgs& args, const FlashAttentionTilingData& t, uint32_t keys) {
    uint64_t parts = 1;
    if (t.splitKeys != 0) {
        parts = std::max<uint64_t>(1, (uint64_t{keys} + t.splitKeys - 1) / t.splitKeys);
        if (t.window != 0 && t.hasPrefix == 0) {  // a tile sees no more keys than these
            const uint64_t seen = uint64_t{t.window} + t.splitTokens - 1;
            parts = std::min(parts, (seen - 1 + t.splitKeys - 1) / t.splitKeys + 1);
        }
    }
    const uint64_t seqs = std::min(args.numSeqs, args.numTokens);
    const bool mayAllBeCut = args.numTokens <= seqs * t.splitTokens;
    const uint64_t cut = mayAllBeCut ? seqs : seqs - 1;
    const uint64_t tokens = mayAllBeCut ? args.numTokens : cut * t.splitTokens;
    const uint64_t items = cut * parts + (seqs - cut) + args.numTokens / t.tokensPerBlock;
    const uint64_t padding = cut * (kStatisticsUnit - Gcd(t.groupSize, kStatisticsUnit));
    const uint64_t rows = parts > 1 ? parts * (tokens * t.groupSize + padding) : 0;
    return {items * t.numKvHeads, rows * t.numKvHeads};
}

// No more cores than there are items have work.
Status Deal(const Work& work, const CoreLimits& limits, uint32_t cacheBytes,
            FlashAttentionTilingData* t) {
    if (work.partRows > UINT32_MAX) {
        return Status::Error(StatusCode::kNoFit,
                             "the parts of split keys have " + std::to_string(work.partRows) +
                                 " rows; at most " + std::to_string(UINT32_MAX) +
                                 "; lower the number of sequences or of pages");
    }
    t->partRows = static_cast<uint32_t>(work.partRows);
    const uint64_t items = std::max<uint64_t>(work.items, 1);
    t->numCores = static_cast<uint32_t>(std::min<uint64_t>(items, limits.numCores));
    LayOutWorkspace(t, cacheBytes);
    return Status::Ok();
}

// All but what Deal fills.
Status ChooseTiles(const FlashAttentionArgs& args, const CoreLimits& limits,
                   FlashAttentionTilingData* tiling) {
    const Status shape = CheckShape(args);
    if (!shape.ok()) return shape;
    const uint32_t cacheBytes = SizeOf(args.cacheType);
    FlashAttentionTilingData t = {};
    t.numSeqs = args.numSeqs;
    t.numHeads = args.numHeads;
    t.numKvHeads = args.numKvHeads;
    t.groupSize = args.numHeads / args.numKvHeads;
    t.headDim = args.headDim;
    t.pageSize = args.pageSize;
    t.maxPages = args.maxPages;
    t.paged = args.paged ? 1 : 0;
    t.kvRowPitch = args.paged ? args.headDim : args.numKvHeads * args.headDim;
    t.causal = args.causal ? 1 : 0;
    t.window = std::min(args.window, kWindowCap);
    t.hasPrefix = args.prefixLen != nullptr ? 1 : 0;
    t.returnLse = args.lse != nullptr ? 1 : 0;
    t.scale = args.scale;
    // Which keys are split must not follow from the size of a tile: it decides about bits.
    t.splitTokens = std::max(1u, kFewRows / t.groupSize);
    // More than that many rows only from a large group, for a causal tile of many tokens computes
    // many scores that nobody sees.
    t.tokensPerBlock =
        std::max(t.splitTokens, std::min(kFewTokens, limits.rowsWanted / t.groupSize));
    t.blockM = AlignTo(t.tokensPerBlock * t.groupSize, 16);
    t.vecRows = kVecRows;
    t.taskSlots = limits.overlap ? kMaxTaskSlots : 1;
    t.l0BlockK = cacheBytes == 2 ? 128 : 64;
    t.l0BlockN = 128;
    for (t.blockN = 256; t.blockN >= 64; t.blockN /= 2) {
        if (!Fits(t, cacheBytes, limits)) continue;
        t.splitKeys = AlignTo(limits.splitKeys, t.blockN);
        *tiling = t;
        return Status::Ok();
    }
    t.blockN = 64;
    return Status::Error(
        StatusCode::kNoFit,
        "L1 needs " + std::to_string(L1Bytes(t, cacheBytes)) + " bytes and UB " +
            std::to_string(UbBytes(t, cacheBytes)) + " for block_m=" + std::to_string(t.blockM) +
            ", block_n=64, but they hold " + std::to_string(limits.l1Bytes) + " and " +
            std::to_string(limits.ubBytes) + "; lower head_dim or the group size");
}

}  // namespace

Status FlashAttentionTilingKey(DataType qType, DataType cacheType, uint64_t* key) {
    if (qType == DataType::kFloat16 && cacheType == DataType::kFloat16) {
        *key = kKeyHalfHalf;
    } else if (qType == DataType::kFloat32 && cacheType == DataType::kFloat16) {
        *key = kKeyFloatHalf;
    } else if (qType == DataType::kFloat32 && cacheType == DataType::kFloat32) {
        *key = kKeyFloatFloat;
    } else if (qType == DataType::kBfloat16 && cacheType == DataType::kBfloat16) {
        *key = kKeyBfloat16Bfloat16;
    } else if (qType == DataType::kFloat32 && cacheType == DataType::kBfloat16) {
        *key = kKeyFloatBfloat16;
    } else {
        return Invalid("the cache must have the queries' type, or be 16 bits wide under float32");
    }
    return Status::Ok();
}

// The queries stand at the end of the keys, so they see all of them but those before the first
// one's window.
uint32_t CountParts(const FlashAttentionArgs& args, const FlashAttentionTilingData& tiling,
                    uint32_t seq) {
    const uint32_t tokens = TokensOf(args, seq);
    if (tiling.splitKeys == 0 || tokens == 0 || tokens > tiling.splitTokens) return 1;
    const int64_t prefix = args.prefixLen != nullptr ? args.prefixLen[seq] : 0;
    const int64_t end = std::max<int64_t>(args.seqLenKv[seq], prefix);
    int64_t begin = 0;
    if (tiling.window != 0 && prefix == 0) {
        begin = std::max<int64_t>(0, int64_t{args.seqLenKv[seq]} - tokens - tiling.window + 1);
    }
    const int64_t parts =
        (end + tiling.splitKeys - 1) / tiling.splitKeys - begin / tiling.splitKeys;
    return static_cast<uint32_t>(std::max<int64_t>(1, parts));
}

Status ComputeFlashAttentionTiling(const FlashAttentionArgs& args, const CoreLimits& limits,
                                   FlashAttentionTilingData* tiling) {
    const Status chosen = ChooseTiles(args, limits, tiling);
    if (!chosen.ok()) return chosen;
    return Deal(WorkOf(args, *tiling), limits, SizeOf(args.cacheType), tiling);
}

Status ComputeFlashAttentionTilingOfShapes(const FlashAttentionArgs& args, uint32_t maxSeqLenKv,
                                           const CoreLimits& limits,
                                           FlashAttentionTilingData* tiling) {
    const Status chosen = ChooseTiles(args, limits, tiling);
    if (!chosen.ok()) return chosen;
    return Deal(MostWorkOf(args, *tiling, maxSeqLenKv), limits, SizeOf(args.cacheType), tiling);
}

}  // namespace ascend_ops
