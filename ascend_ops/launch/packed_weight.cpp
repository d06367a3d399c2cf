// Packs weights for quant_matmul, stripe by stripe on the twin's threads.
#include "ascend_ops/packed_weight.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>

#include "thread_pool.h"

namespace ascend_ops {
namespace {

constexpr uint32_t kRowBytes = 32;  // of a fractal

// One conversion, and the first value that did not fit.
struct Work {
    const PackedWeightArgs* args;
    uint8_t* plain;
    uint8_t* packed;
    uint32_t stripes;
    std::atomic<int> misfit;
};
constexpr int kNoMisfit = 1 << 8;

uint64_t PlainRowBytes(const PackedWeightArgs& args) {
    if (args.order != NibbleOrder::kNone) return args.columns / 2;
    return uint64_t{args.columns} * (args.format == WeightFormat::kFloat16 ? 2 : 1);
}

// Bytes of a plain row that make up one row of a fractal.
uint32_t PlainBytesOfFractal(const PackedWeightArgs& args) {
    return args.format == WeightFormat::kInt4 && args.order == NibbleOrder::kNone ? 2 * kRowBytes
                                                                                  : kRowBytes;
}

uint8_t SwapNibbles(uint8_t byte) { return static_cast<uint8_t>(byte << 4 | byte >> 4); }

// 64 values of a byte each to 32 bytes; false where one is not -8 to 7.
bool PackNibbles(uint8_t* to, const uint8_t* from) {
    uint8_t outside = 0;
    for (uint32_t i = 0; i < 2 * kRowBytes; ++i) {
        outside = static_cast<uint8_t>(outside | ((from[i] + 8) & 0xf0));
    }
    for (uint32_t i = 0; i < kRowBytes; ++i) {
        to[i] = static_cast<uint8_t>((from[2 * i] & 15) | from[2 * i + 1] * 16);
    }
    return outside == 0;
}

void UnpackNibbles(uint8_t* to, const uint8_t* from) {
    for (uint32_t i = 0; i < kRowBytes; ++i) {
        to[2 * i] = static_cast<uint8_t>(((from[i] & 15) ^ 8) - 8);
        to[2 * i + 1] = static_cast<uint8_t>(((from[i] >> 4) ^ 8) - 8);
    }
}

void NoteMisfit(Work* work, const uint8_t* values, uint32_t count) {
    for (uint32_t i = 0; i < count; ++i) {
        const int value = static_cast<int8_t>(values[i]);
        if (value < -8 || value > 7) return work->misfit.store(value);
    }
}

// One row of a fractal from `count` plain bytes; the rest is 0.
void PackRow(Work* work, uint8_t* to, const uint8_t* from, uint32_t count, uint32_t whole) {
    uint8_t padded[2 * kRowBytes];
    if (count < whole) {
        std::memset(padded, 0, sizeof(padded));
        std::memcpy(padded, from, count);
        from = padded;
    }
    if (whole == 2 * kRowBytes) {
        if (!PackNibbles(to, from)) NoteMisfit(work, from, whole);
    } else if (work->args->order == NibbleOrder::kHighFirst) {
        for (uint32_t i = 0; i < kRowBytes; ++i) to[i] = SwapNibbles(from[i]);
    } else {
        std::memcpy(to, from, kRowBytes);
    }
}

void UnpackRow(const Work* work, uint8_t* to, const uint8_t* from, uint32_t count, uint32_t whole) {
    uint8_t row[2 * kRowBytes];
    if (whole == 2 * kRowBytes) {
        UnpackNibbles(row, from);
    } else if (work->args->order == NibbleOrder::kHighFirst) {
        for (uint32_t i = 0; i < kRowBytes; ++i) row[i] = SwapNibbles(from[i]);
    } else {
        std::memcpy(row, from, kRowBytes);
    }
    std::memcpy(to, row, count);
}

// Calls row(packed bytes, plain bytes, their count) for each row of each fractal of a stripe; of
// rows past the last one with no plain bytes.
template <typename Row>
void ForRowsOfStripe(const Work& work, uint32_t stripe, const Row& row) {
    const PackedWeightArgs& args = *work.args;
    const uint64_t plainRow = PlainRowBytes(args);
    const uint32_t fractals = FractalsOfRow(args.format, args.columns);
    const uint32_t whole = PlainBytesOfFractal(args);
    uint8_t* packed = work.packed + uint64_t{stripe} * fractals * kPackedFractalBytes;
    for (uint32_t fractal = 0; fractal < fractals; ++fractal) {
        const uint64_t done = uint64_t{fractal} * whole;
        for (uint32_t r = 0; r < kStripeRows; ++r, packed += kRowBytes) {
            const uint64_t index = uint64_t{stripe} * kStripeRows + r;
            const bool real = index < args.rows;
            const uint64_t count = real ? std::min<uint64_t>(whole, plainRow - done) : 0;
            row(packed, work.plain + (real ? index * plainRow + done : 0),
                static_cast<uint32_t>(count), whole);
        }
    }
}

void PackStripe(void* context, uint32_t stripe) {
    Work* work = static_cast<Work*>(context);
    ForRowsOfStripe(*work, stripe,
                    [work](uint8_t* packed, uint8_t* plain, uint32_t count, uint32_t whole) {
                        PackRow(work, packed, plain, count, whole);
                    });
}

void UnpackStripe(void* context, uint32_t stripe) {
    const Work* work = static_cast<const Work*>(context);
    ForRowsOfStripe(*work, stripe,
                    [work](uint8_t* packed, uint8_t* plain, uint32_t count, uint32_t whole) {
                        if (count > 0) UnpackRow(work, plain, packed, count, whole);
                    });
}

Status Convert(const PackedWeightArgs& args, void* plain, void* packed,
               void (*stripe)(void*, uint32_t)) {
    Work work = {&args,
                 static_cast<uint8_t*>(plain),
                 static_cast<uint8_t*>(packed),
                 (args.rows + kStripeRows - 1) / kStripeRows,
                 {kNoMisfit}};
    ascend_twin::ParallelFor(work.stripes, stripe, &work);
    const int misfit = work.misfit.load();
    if (misfit == kNoMisfit) return Status::Ok();
    return Status::Error(StatusCode::kInvalidShape, "weight holds " + std::to_string(misfit) +
                                                        "; values of 4 bits are -8 to 7");
}

}  // namespace

Status PackWeight(const PackedWeightArgs& args, const void* weight, void* packed) {
    return Convert(args, const_cast<void*>(weight), packed, &PackStripe);
}

Status UnpackWeight(const PackedWeightArgs& args, const void* packed, void* weight) {
    return Convert(args, weight, const_cast<void*>(packed), &UnpackStripe);
}

}  // namespace ascend_ops
