// The packed form of a linear layer's weight: what quant_matmul streams, on a CPU and on an NPU.
//
// Stripes of 16 output channels, one after the other. A stripe is a run of fractals along the
// input; a fractal is 16 rows, one a channel, of 32 bytes: 64 values of 4 bits, 32 of 8 or 16
// of 16. Byte j of a row of 4-bit values holds column 2 j in its low nibble and 2 j + 1 in its high
// one, in two's complement, as int4b_t has them. Channels and columns that fill up the last stripe
// and the last fractal are 0. So L0B takes a fractal as it lies.
#ifndef ASCEND_OPS_PACKED_WEIGHT_H_
#define ASCEND_OPS_PACKED_WEIGHT_H_

#include <cstdint>

#include "ascend_ops/status.h"
#include "ascend_ops/types.h"

namespace ascend_ops {

enum class WeightFormat { kFloat16, kInt8, kInt4 };

constexpr uint32_t kStripeRows = 16;
constexpr uint32_t kPackedFractalBytes = 512;

inline uint32_t BitsOf(WeightFormat format) {
    return format == WeightFormat::kFloat16 ? 16 : (format == WeightFormat::kInt8 ? 8 : 4);
}

// Columns of one fractal: 32 bytes of them.
inline uint32_t FractalColumns(WeightFormat format) { return 256 / BitsOf(format); }

inline uint32_t FractalsOfRow(WeightFormat format, uint32_t columns) {
    return (columns + FractalColumns(format) - 1) / FractalColumns(format);
}

inline uint64_t PackedBytes(WeightFormat format, uint32_t rows, uint32_t columns) {
    const uint64_t stripes = (uint64_t{rows} + kStripeRows - 1) / kStripeRows;
    return stripes * FractalsOfRow(format, columns) * kPackedFractalBytes;
}

// How the other side of a conversion has values of 4 bits: a byte each, or two in a byte with the
// even column in the high nibble (published checkpoints) or in the low one (int4b_t).
enum class NibbleOrder { kNone, kHighFirst, kLowFirst };

// A weight (rows, columns), row by row: float16, int8, or values of 4 bits as `order` says, rows of
// columns / 2 bytes then.
struct PackedWeightArgs {
    WeightFormat format = WeightFormat::kInt8;
    NibbleOrder order = NibbleOrder::kNone;
    uint32_t rows = 0;
    uint32_t columns = 0;  // even where `order` is not kNone
};

// Fills packed, PackedBytes of it. kInvalidShape: a byte of a 4-bit weight is not -8 to 7.
ASCEND_OPS_API Status PackWeight(const PackedWeightArgs& args, const void* weight, void* packed);

// The way back.
ASCEND_OPS_API Status UnpackWeight(const PackedWeightArgs& args, const void* packed, void* weight);

}  // namespace ascend_ops

#endif  // ASCEND_OPS_PACKED_WEIGHT_H_
