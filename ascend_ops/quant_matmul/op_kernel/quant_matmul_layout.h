// Where a core's tiles lie: its share of the weight's stripes, and its workspace.
#ifndef ASCEND_OPS_QUANT_MATMUL_LAYOUT_H_
#define ASCEND_OPS_QUANT_MATMUL_LAYOUT_H_

#include "common/op_kernel/tile_math.h"
#include "kernel_operator.h"
#include "quant_matmul/op_kernel/quant_matmul_tiling_data.h"

namespace ascend_ops {

struct QuantMatmulGm {
    GM_ADDR x;
    GM_ADDR weight;
    GM_ADDR scale;
    GM_ADDR bias;
    GM_ADDR residual;
    GM_ADDR out;
    GM_ADDR workspace;
};

// Flags between an AIC and its AIVs.
constexpr uint16_t kFlagTokens = 1;  // tokens lie in the workspace
constexpr uint16_t kFlagTile = 2;    // a tile of widened weights lies there
constexpr uint16_t kFlagPart = 3;    // sums of a part lie there
constexpr uint16_t kFlagFree = 4;    // a part was read

// A route's types. Token: of the rows in the workspace, bytes where the cube takes int4b_t.
template <uint64_t kRoute>
struct QuantRoute {
    static constexpr bool kHalf = kRoute == kQuantRouteHalf || kRoute >= kQuantRouteBytesToHalf;
    static constexpr bool kDigits = kRoute == kQuantRouteDigits;
    static constexpr bool kWidens = kRoute >= kQuantRouteNibblesToBytes;
    static constexpr bool kGroupsInWeight = kRoute == kQuantRouteGroupsToHalf;
    static constexpr uint32_t kRowsPerToken = kDigits ? 2 : 1;
};

// One tile of the result.
struct QuantTile {
    uint32_t stripe;
    uint32_t stripes;
    uint32_t token;
    uint32_t tokens;
};

class QuantLayout {
  public:
    __aicore__ inline void Init(const QuantMatmulTilingData* tiling, GM_ADDR workspace) {
        uint32_t core = static_cast<uint32_t>(AscendC::GetBlockIdx());
        if ASCEND_IS_AIV {
            core /= 2;
        }
        tiling_ = tiling;
        const uint32_t tiles = CeilDiv(tiling->numStripes, tiling->stripesPerTile);
        firstTile_ = MinOf(core * tiling->tilesPerCore, tiles);
        numTiles_ = MinOf(tiling->tilesPerCore, tiles - firstTile_);
        GM_ADDR own = workspace + tiling->workspaceCore + core * tiling->coreBytes;
        GM_ADDR tokens = tiling->sharedTokens != 0 ? workspace : own;
        tokens_ = tokens + tiling->coreTokens;
        scales_ = tokens + tiling->coreScales;
        tiles_ = own + tiling->coreTiles;
        parts_ = own + tiling->coreParts;
    }

    __aicore__ inline uint32_t NumTiles() const { return numTiles_; }

    // Tile `index` of this core, at its tokens from `token` on.
    __aicore__ inline QuantTile Tile(uint32_t index, uint32_t token) const {
        QuantTile tile;
        tile.stripe = (firstTile_ + index) * tiling_->stripesPerTile;
        tile.stripes = MinOf(tiling_->stripesPerTile, tiling_->numStripes - tile.stripe);
        tile.token = token;
        tile.tokens = MinOf(tiling_->tokensPerTile, tiling_->numTokens - token);
        return tile;
    }

    __aicore__ inline GM_ADDR Tokens() const { return tokens_; }
    __aicore__ inline GM_ADDR Scales() const { return scales_; }
    __aicore__ inline GM_ADDR WideTile(uint32_t index) const {
        return tiles_ + index % tiling_->tileSlots * tiling_->tileBytes;
    }
    __aicore__ inline GM_ADDR Part(uint32_t index) const {
        return parts_ + index % tiling_->partSlots * tiling_->partBytes;
    }

  private:
    const QuantMatmulTilingData* tiling_ = nullptr;
    uint32_t firstTile_ = 0;
    uint32_t numTiles_ = 0;
    GM_ADDR tokens_ = nullptr;
    GM_ADDR scales_ = nullptr;
    GM_ADDR tiles_ = nullptr;
    GM_ADDR parts_ = nullptr;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_QUANT_MATMUL_LAYOUT_H_
