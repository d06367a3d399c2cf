// Host side of quant_matmul: chooses the route, splits the weight's stripes over cores, sizes
// tiles.
#ifndef ASCEND_OPS_QUANT_MATMUL_TILING_H_
#define ASCEND_OPS_QUANT_MATMUL_TILING_H_

#include <cstdint>

#include "ascend_ops/quant_matmul.h"
#include "ascend_ops/status.h"
#include "ascend_ops/types.h"
#include "quant_matmul/op_kernel/quant_matmul_tiling_data.h"

namespace ascend_ops {

// Few tokens: narrow tiles, long stretches of the weight. Many: square tiles of 128.
// kInvalidShape: a size, group or number of bits that the kernel does not serve.
// kNoFit: not even the smallest tiles fit.
Status ComputeQuantMatmulTiling(const QuantMatmulArgs& args, const CoreLimits& limits,
                                QuantMatmulTilingData* tiling);

// How the weight meets the tokens: a kQuantRoute.
uint64_t QuantMatmulRoute(const QuantMatmulArgs& args);

// The kernel's tiling key: route and type of x.
uint64_t QuantMatmulTilingKey(const QuantMatmulArgs& args);

// Bytes of each memory that the kernel's Init functions take.
struct QuantMatmulBytes {
    uint64_t tokensUb;  // shared with the rest
    uint64_t widenUb;
    uint64_t outputUb;
    uint64_t l1;
    uint64_t l0a;
    uint64_t l0b;
    uint64_t l0c;
};
QuantMatmulBytes QuantMatmulBytesOf(const QuantMatmulTilingData& t, uint64_t route, DataType type);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_QUANT_MATMUL_TILING_H_
