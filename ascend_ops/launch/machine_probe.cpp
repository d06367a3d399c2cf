// Peaks of the processor, measured on the twin's own threads.
#include "ascend_ops/machine_probe.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <new>

#include "simd.h"
#include "thread_pool.h"

namespace ascend_ops {
namespace {

using ascend_twin::kLanes;
using ascend_twin::Vector;

constexpr uint32_t kChains = 12;  // enough to hide the latency of an FMA, and to stay in registers
constexpr uint32_t kStreams = 4;
constexpr uint32_t kRounds = 5;

struct Work {
    uint64_t steps;
    const float* floats;  // null: registers alone
    float sink;
};

double Seconds(const std::chrono::steady_clock::time_point& started) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
}

float Sum(const Vector* vectors, uint32_t count) {
    float sum = 0.0f;
    for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t lane = 0; lane < kLanes; ++lane) sum += vectors[i][lane];
    }
    return sum;
}

void MultiplyAdd(void* context, uint32_t /*thread*/) {
    Work* work = static_cast<Work*>(context);
    Vector chains[kChains];
    for (uint32_t i = 0; i < kChains; ++i) chains[i] = Vector{} + static_cast<float>(i + 1);
    const Vector factor = Vector{} + 0.999f, term = Vector{} + 0.001f;
    for (uint64_t step = 0; step < work->steps; ++step) {
        for (uint32_t i = 0; i < kChains; ++i) chains[i] = chains[i] * factor + term;
    }
    if (Sum(chains, kChains) == 0.5f) work->sink = 1.0f;  // never, but the compiler cannot know
}

void Read(void* context, uint32_t thread) {
    Work* work = static_cast<Work*>(context);
    const uint64_t stream = work->steps * kLanes;  // floats
    const float* floats = work->floats + thread * kStreams * stream;
    Vector sums[2 * kStreams] = {};
    for (uint64_t at = 0; at + 2 * kLanes <= stream; at += 2 * kLanes) {
        for (uint32_t s = 0; s < kStreams; ++s) {
            const float* from = floats + s * stream + at;
            sums[2 * s] += ascend_twin::Load(from);
            sums[2 * s + 1] += ascend_twin::Load(from + kLanes);
        }
    }
    if (Sum(sums, 2 * kStreams) == 0.5f) work->sink = 1.0f;
}

void Touch(void* context, uint32_t thread) {
    Work* work = static_cast<Work*>(context);
    const uint64_t floats = work->steps * kLanes * kStreams;
    std::fill_n(const_cast<float*>(work->floats) + thread * floats, floats, 1.0f);
}

// Seconds of the fastest of some rounds.
double Fastest(uint32_t threads, void (*task)(void*, uint32_t), Work* work) {
    double best = 1.0e30;
    for (uint32_t round = 0; round < kRounds; ++round) {
        const auto started = std::chrono::steady_clock::now();
        ascend_twin::ParallelFor(threads, task, work);
        best = std::min(best, Seconds(started));
    }
    return best;
}

}  // namespace

double MeasureFmaGflops() {
    const uint32_t threads = ascend_twin::NumThreads();
    Work work = {4'000'000, nullptr, 0.0f};
    const double seconds = Fastest(threads, &MultiplyAdd, &work);
    const double flops = 2.0 * kLanes * kChains * static_cast<double>(work.steps) * threads;
    return flops / seconds / 1e9;
}

double MeasureReadGbps(uint64_t bytes) {
    const uint32_t threads = ascend_twin::NumThreads();
    const uint64_t steps = bytes / sizeof(float) / kLanes / kStreams / threads;
    const uint64_t floats = steps * kLanes * kStreams * threads;
    const std::unique_ptr<float[]> memory(new (std::nothrow) float[floats]);
    if (memory == nullptr || steps == 0) return 0.0;
    Work work = {steps, memory.get(), 0.0f};
    ascend_twin::ParallelFor(threads, &Touch, &work);
    const double seconds = Fastest(threads, &Read, &work);
    return static_cast<double>(floats * sizeof(float)) / seconds / 1e9;
}

}  // namespace ascend_ops
