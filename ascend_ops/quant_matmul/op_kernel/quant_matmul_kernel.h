// quant_matmul: out = tokens x weight, scaled, plus bias and residual. AIVs quantise tokens and
// widen weights, the AIC multiplies, AIVs scale.
#ifndef ASCEND_OPS_QUANT_MATMUL_KERNEL_H_
#define ASCEND_OPS_QUANT_MATMUL_KERNEL_H_

#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "kernel_operator.h"
#include "quant_matmul/op_kernel/quant_matmul_cube.h"
#include "quant_matmul/op_kernel/quant_matmul_layout.h"
#include "quant_matmul/op_kernel/quant_matmul_output.h"
#include "quant_matmul/op_kernel/quant_matmul_tiling_data.h"
#include "quant_matmul/op_kernel/quant_matmul_tokens.h"
#include "quant_matmul/op_kernel/quant_matmul_widen.h"

namespace ascend_ops {

// X: element type of x, residual and out. T, Sum, Operand: see QuantMatmulCube.
template <uint64_t kRoute, typename X, typename T, typename Sum, typename Operand>
class QuantMatmulKernel {
  public:
    __aicore__ inline void Init(const QuantMatmulTilingData* tiling, const QuantMatmulGm& gm) {
        tiling_ = tiling;
        layout_.Init(tiling, gm.workspace);
        if ASCEND_IS_AIC {
            cube_.Init(tiling, gm, kTokensInX);
        }
        if ASCEND_IS_AIV {
            // Tokens are done before weights begin: they share UB. The rest works in turns.
            tokens_.Init(tiling, gm, layout_, UbSpace());
            UbSpace ub;
            if constexpr (Route::kWidens) widen_.Init(tiling, gm, layout_, &ub);
            output_.Init(tiling, gm, layout_, &ub);
        }
    }

    __aicore__ inline void Process() {
        if ASCEND_IS_AIC {
            cube_.Process();
        }
        if ASCEND_IS_AIV {
            if constexpr (!kTokensInX) PrepareTokens();
            if constexpr (Route::kWidens) widen_.Begin();
            output_.Begin();
            ProcessTiles();
            output_.End();
            if constexpr (Route::kWidens) widen_.End();
        }
    }

  private:
    using Route = QuantRoute<kRoute>;
    static constexpr bool kTokensInX = Route::kHalf && IsSame<X, half>::kValue;

    __aicore__ inline void PrepareTokens() {
        tokens_.Process();
        AscendC::PipeBarrier<PIPE_ALL>();
        if (tiling_->sharedTokens != 0) AscendC::SyncAll<true>();
        AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(kFlagTokens);
    }

    // A tile's slot is free once its last part came in, tileSlots tiles later.
    __aicore__ inline void ProcessTiles() {
        const uint32_t tiles = layout_.NumTiles();
        uint32_t widened = 0;
        for (uint32_t tile = 0; tile < tiles; ++tile) {
            if constexpr (Route::kWidens) {
                while (widened < MinOf(tile + 1 + tiling_->tilesAhead, tiles)) {
                    widen_.Widen(widened++);
                }
            }
            for (uint32_t token = 0; token < tiling_->numTokens; token += tiling_->tokensPerTile) {
                output_.Finish(layout_.Tile(tile, token));
            }
        }
    }

    const QuantMatmulTilingData* tiling_ = nullptr;
    QuantLayout layout_;
    QuantMatmulCube<kRoute, T, Sum, Operand> cube_;
    QuantMatmulTokens<kRoute, X> tokens_;
    QuantMatmulWiden<kRoute> widen_;
    QuantMatmulOutput<kRoute, X, Sum> output_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_QUANT_MATMUL_KERNEL_H_
