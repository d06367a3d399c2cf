// The gradient kernel under every tiling that a host may choose: one task in flight or three, tiles
// of each size, on buffers of exactly their size for the sanitizers.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "ascend_ops/flash_attention_grad.h"
#include "flash_attention_grad/op_host/flash_attention_grad_tiling.h"
#include "kernel_operator.h"
#include "launch.h"

extern "C" void glm2_flash_attention_grad(GM_ADDR dO, GM_ADDR q, GM_ADDR k, GM_ADDR v, GM_ADDR o,
                                          GM_ADDR lse, GM_ADDR cuSeqlensQ, GM_ADDR cuSeqlensKv,
                                          GM_ADDR prefixLen, GM_ADDR dQ, GM_ADDR dK, GM_ADDR dV,
                                          GM_ADDR workspace, GM_ADDR tiling);

namespace {

using namespace ascend_ops;

struct Problem {
    std::vector<int32_t> cuSeqlensQ, cuSeqlensKv, prefixLen;
    uint32_t heads, kvHeads, headDim;
    bool causal;
    uint32_t window;
};

// The last sequence ends in a tile of few rows, which leaves one AIV without any.
const Problem kRagged = {
    {0, 150, 150, 153, 290}, {0, 150, 160, 163, 163}, {20, 3, 0, 0}, 6, 2, 64, true, 40};
const Problem kCausal = {{0, 261}, {0, 261}, {0}, 2, 2, 64, true, 0};
const Problem kWide = {{0, 70, 133}, {0, 133, 330}, {0, 190}, 3, 1, 256, false, 90};

template <typename T>
constexpr DataType kType = sizeof(T) == 2 ? DataType::kFloat16 : DataType::kFloat32;

// Its own allocation, to the byte.
template <typename T>
struct Buffer {
    explicit Buffer(size_t elems, uint32_t seed = 0) : size(elems), data(new T[elems]) {
        std::mt19937 engine(seed);
        std::normal_distribution<float> normal;
        for (size_t i = 0; i < size; ++i) data[i] = static_cast<T>(normal(engine));
    }
    uint8_t* gm() const { return reinterpret_cast<uint8_t*>(data.get()); }
    double at(size_t i) const { return static_cast<double>(static_cast<float>(data[i])); }
    size_t size;
    std::unique_ptr<T[]> data;
};

template <typename T>
class Gradient {
  public:
    explicit Gradient(const Problem& p)
        : p_(p),
          tokens_(static_cast<size_t>(p.cuSeqlensQ.back())),
          keys_(static_cast<size_t>(p.cuSeqlensKv.back())),
          qRow_(p.heads * p.headDim),
          kRow_(p.kvHeads * p.headDim),
          dO_(tokens_ * qRow_, 1),
          q_(tokens_ * qRow_, 2),
          o_(tokens_ * qRow_, 3),
          k_(keys_ * kRow_, 4),
          v_(keys_ * kRow_, 5),
          lse_(tokens_ * p.heads) {
        for (size_t row = 0; row < lse_.size; ++row) {
            // Any lse serves the comparison; every tenth row has none.
            lse_.data[row] = row % 10 == 9 ? -std::numeric_limits<float>::infinity()
                                           : 3.0f + 0.01f * static_cast<float>(row % 50);
        }
    }

    // dq, dk and dv, one after the other.
    std::vector<float> Run(const CoreLimits& limits, FlashAttentionGradTilingData* tiling) const {
        FlashAttentionGradArgs args;
        args.cuSeqlensQ = p_.cuSeqlensQ.data();
        args.cuSeqlensKv = p_.cuSeqlensKv.data();
        args.prefixLen = p_.prefixLen.data();
        args.type = kType<T>;
        args.numSeqs = static_cast<uint32_t>(p_.cuSeqlensQ.size()) - 1;
        args.numHeads = p_.heads;
        args.numKvHeads = p_.kvHeads;
        args.headDim = p_.headDim;
        args.scale = Scale();
        args.causal = p_.causal;
        args.window = p_.window;
        const Status status = ComputeFlashAttentionGradTiling(args, limits, tiling);
        EXPECT_TRUE(status.ok()) << status.message;
        const Buffer<T> dQ(q_.size), dK(k_.size), dV(v_.size);
        // What is read before it is written is NaN.
        const size_t bytes = tiling->workspaceBytes * tiling->numCores;
        const std::unique_ptr<uint8_t[]> workspace(new uint8_t[bytes]);
        std::fill_n(workspace.get(), bytes, uint8_t{0xff});
        const ascend_twin::LaunchConfig config = {
            "flash_attention_grad", ascend_twin::KernelType::kMixAic1Aiv2, tiling->numCores,
            FlashAttentionGradTilingKey(args.type)};
        const std::string hang = ascend_twin::Launch(config, [&] {
            glm2_flash_attention_grad(dO_.gm(), q_.gm(), k_.gm(), v_.gm(), o_.gm(), lse_.gm(),
                                      Gm(p_.cuSeqlensQ), Gm(p_.cuSeqlensKv), Gm(p_.prefixLen),
                                      dQ.gm(), dK.gm(), dV.gm(), workspace.get(),
                                      reinterpret_cast<uint8_t*>(tiling));
        });
        EXPECT_EQ(hang, "");
        std::vector<float> result;
        for (const Buffer<T>* buffer : {&dQ, &dK, &dV}) {
            for (size_t i = 0; i < buffer->size; ++i) {
                result.push_back(static_cast<float>(buffer->data[i]));
            }
        }
        return result;
    }

    // The formula in double.
    std::vector<double> Want() const {
        std::vector<double> result(q_.size + 2 * k_.size, 0.0);
        for (size_t b = 0; b + 1 < p_.cuSeqlensQ.size(); ++b) {
            for (int32_t i = p_.cuSeqlensQ[b]; i < p_.cuSeqlensQ[b + 1]; ++i) {
                for (int32_t j = p_.cuSeqlensKv[b]; j < p_.cuSeqlensKv[b + 1]; ++j) {
                    if (!Sees(b, i, j)) continue;
                    for (uint32_t head = 0; head < p_.heads; ++head) {
                        AddPair(static_cast<size_t>(i), static_cast<size_t>(j), head, &result);
                    }
                }
            }
        }
        return result;
    }

  private:
    static uint8_t* Gm(const std::vector<int32_t>& values) {
        return reinterpret_cast<uint8_t*>(const_cast<int32_t*>(values.data()));
    }

    float Scale() const { return 1.0f / std::sqrt(static_cast<float>(p_.headDim)); }

    bool Sees(size_t b, int32_t i, int32_t j) const {
        const int32_t key = j - p_.cuSeqlensKv[b];
        const int32_t position =
            p_.cuSeqlensKv[b + 1] - p_.cuSeqlensKv[b] - (p_.cuSeqlensQ[b + 1] - i);
        const auto window = static_cast<int32_t>(p_.window);
        if (key < p_.prefixLen[b]) return true;
        if (p_.causal && key > position) return false;
        return window == 0 || (key > position - window && key < position + window);
    }

    void AddPair(size_t i, size_t j, uint32_t head, std::vector<double>* result) const {
        const size_t q = i * qRow_ + head * p_.headDim;
        const size_t k = j * kRow_ + head / (p_.heads / p_.kvHeads) * p_.headDim;
        double score = 0.0, dProb = 0.0, delta = 0.0;
        for (size_t d = 0; d < p_.headDim; ++d) {
            score += q_.at(q + d) * k_.at(k + d);
            dProb += dO_.at(q + d) * v_.at(k + d);
            delta += dO_.at(q + d) * o_.at(q + d);
        }
        const float lse = lse_.data[i * p_.heads + head];
        if (std::isinf(lse)) return;
        const double scale = static_cast<double>(Scale());
        const double prob = std::exp(scale * score - static_cast<double>(lse));
        const double dScore = prob * (dProb - delta) * scale;
        for (size_t d = 0; d < p_.headDim; ++d) {
            (*result)[q + d] += dScore * k_.at(k + d);
            (*result)[q_.size + k + d] += dScore * q_.at(q + d);
            (*result)[q_.size + k_.size + k + d] += prob * dO_.at(q + d);
        }
    }

    Problem p_;
    size_t tokens_, keys_, qRow_, kRow_;
    Buffer<T> dO_, q_, o_, k_, v_;
    Buffer<float> lse_;
};

// Norm of got - want over the norm of want.
double ErrorOf(const std::vector<float>& got, const std::vector<double>& want) {
    double error = 0.0, norm = 0.0;
    for (size_t i = 0; i < want.size(); ++i) {
        const double difference = static_cast<double>(got[i]) - want[i];
        error += difference * difference;
        norm += want[i] * want[i];
    }
    return std::sqrt(error / norm);
}

template <typename T>
void CheckTilings(const Problem& problem, double tolerance) {
    const Gradient<T> gradient(problem);
    const std::vector<double> want = gradient.Want();
    for (const uint32_t l1Bytes : {CoreLimits().l1Bytes, 300u * 1024}) {
        if (problem.headDim == 256 && l1Bytes < CoreLimits().l1Bytes) continue;
        std::vector<float> first;
        uint32_t firstM = 0, firstN = 0;
        for (const uint32_t cores : {1u, 3u}) {
            for (const bool overlap : {false, true}) {
                CoreLimits limits;
                limits.l1Bytes = l1Bytes;
                limits.numCores = cores;
                limits.overlap = overlap;
                FlashAttentionGradTilingData t;
                const std::vector<float> got = gradient.Run(limits, &t);
                EXPECT_EQ(t.taskSlots, overlap ? kMaxGradSlots : 1);
                EXPECT_LT(ErrorOf(got, want), tolerance) << t.blockM << " x " << t.blockN;
                if (first.empty()) {
                    first = got;
                    firstM = t.blockM;
                    firstN = t.blockN;
                } else if (t.blockM == firstM && t.blockN == firstN) {
                    EXPECT_TRUE(got == first)
                        << "other bits with " << cores << " cores, " << t.taskSlots << " slots";
                }
            }
        }
    }
}

TEST(FlashAttentionGrad, EveryTilingGivesTheFormulaInFloat) {
    for (const Problem& problem : {kRagged, kCausal, kWide}) CheckTilings<float>(problem, 2e-6);
}

TEST(FlashAttentionGrad, EveryTilingGivesTheFormulaInHalf) {
    for (const Problem& problem : {kRagged, kCausal, kWide}) CheckTilings<half>(problem, 1e-3);
}

}  // namespace
