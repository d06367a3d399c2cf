// What the host tells the kernel: one plain structure, the same on both targets.
#ifndef ASCEND_OPS_QUANT_MATMUL_TILING_DATA_H_
#define ASCEND_OPS_QUANT_MATMUL_TILING_DATA_H_

#include <cstdint>

namespace ascend_ops {

// Tiling keys: 3 * route + type of x and out (half, bfloat16, float).
constexpr uint64_t kQuantRouteHalf = 0;            // float16 weights as they are
constexpr uint64_t kQuantRouteBytes = 1;           // int8 weights, int8 tokens
constexpr uint64_t kQuantRouteDigits = 2;          // int4 weights, tokens as two int4 digits
constexpr uint64_t kQuantRouteNibblesToBytes = 3;  // int4 weights cast to int8, int8 tokens
constexpr uint64_t kQuantRouteBytesToHalf = 4;     // int8 weights cast to half
constexpr uint64_t kQuantRouteNibblesToHalf = 5;   // int4 weights cast to half
constexpr uint64_t kQuantRouteGroupsToHalf = 6;    // int4 weights times their groups' scales

// A fractal is 16 rows of 32 bytes: along the input, of a stripe of 16 output channels or of 16
// tokens. "Packed": as the weight lies in GM; else of the operands that the cube multiplies.
struct QuantMatmulTilingData {
    // The problem.
    uint32_t numTokens;
    uint32_t inFeatures;
    uint32_t outFeatures;
    uint32_t numGroups;  // scales of a row
    uint32_t groupSize;  // columns of one; inFeatures where there is one group
    uint32_t numSums;    // of a row: numGroups, or 1 where weights are multiplied by their scales
    uint32_t hasBias;
    uint32_t hasResidual;
    float largest;  // of a quantised token
    // The tiles.
    uint32_t numCores;
    uint32_t numStripes;      // of the weight
    uint32_t stripesPerTile;  // output channels of a tile, in stripes
    uint32_t tilesPerCore;
    uint32_t tokensPerTile;
    uint32_t packedFractals;  // of a stripe
    uint32_t widening;        // operand fractals that one packed fractal becomes: 1, 2 or 4
    uint32_t fractals;        // of a stripe, as operands
    uint32_t groupFractals;   // of one sum
    uint32_t chunkFractals;   // in L1 together; whole groups, or a part of the one there is
    uint32_t stepFractals;    // of one Mmad, at most
    uint32_t groupsPerPart;   // sums that go to the AIVs together
    uint32_t partSlots;       // in the workspace: 2, or 1 where AIC and AIV take turns
    uint32_t tileSlots;       // of widened weights, likewise
    uint32_t piece;           // columns of a token that are quantised at a time
    uint32_t packedPiece;     // packed fractals that are widened at a time
    uint32_t outputRows;      // tokens that one vector pass scales
    uint32_t totalRows;       // tokens whose groups are being added up
    uint32_t tilesAhead;      // widened before the AIC is done with the one before
    uint32_t sharedTokens;    // 1: all cores quantise their share, for all; 0: each all, for itself
    uint32_t serialOutput;    // 1: rows of out end inside 32 bytes; one AIV writes them all
    // Workspace, bytes from its start. Shared or of one core: rows of tokens, and eight copies of
    // each token's scale. Of one core: tileSlots tiles of widened weights, partSlots parts.
    uint64_t tokenRowBytes;  // of one token: two rows where it is digits
    uint64_t workspaceShared;
    uint64_t workspaceCore;  // where core 0's begins
    uint64_t coreTokens;     // from there on
    uint64_t coreScales;
    uint64_t coreTiles;
    uint64_t tileBytes;
    uint64_t coreParts;
    uint64_t partBytes;
    uint64_t coreBytes;
    uint64_t workspaceTotal;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_QUANT_MATMUL_TILING_DATA_H_
