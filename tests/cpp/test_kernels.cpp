// Both operators on buffers of exactly their size: the sanitizers see every read and write past
// one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "ascend_ops/build_info.h"
#include "ascend_ops/flash_attention.h"
#include "ascend_ops/rope_append.h"
#include "kernel_operator.h"

namespace {

using namespace ascend_ops;

// Its own allocation, to the byte.
template <typename T>
struct Buffer {
    explicit Buffer(size_t elems) : size(elems), data(new T[elems]) {}
    T& operator[](size_t i) { return data[i]; }
    size_t size;
    std::unique_ptr<T[]> data;
};

template <typename T>
Buffer<T> Random(size_t elems, uint32_t seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    Buffer<T> buffer(elems);
    for (size_t i = 0; i < elems; ++i) buffer[i] = static_cast<T>(normal(engine));
    return buffer;
}

struct Problem {
    std::vector<int32_t> lenQ, lenKv, prefix;
    uint32_t heads, kvHeads, headDim, pageSize;
    bool causal;
    uint32_t window;
};

template <typename T>
constexpr DataType kType = sizeof(T) == 2 ? DataType::kFloat16 : DataType::kFloat32;

template <typename Q, typename T>
class Attention {
  public:
    explicit Attention(const Problem& p)
        : p_(p), cuSeqlens_(p.lenQ.size() + 1), lengths_(p.lenKv.size()), prefix_(p.lenKv.size()) {
        cuSeqlens_[0] = 0;
        for (size_t b = 0; b < p.lenQ.size(); ++b) {
            cuSeqlens_[b + 1] = cuSeqlens_[b] + p.lenQ[b];
            lengths_[b] = p.lenKv[b];
            prefix_[b] = p.prefix[b];
            maxPages_ = std::max(maxPages_, PagesOf(b));
            numPages_ += PagesOf(b);
        }
        tokens_ = static_cast<uint32_t>(cuSeqlens_[p.lenQ.size()]);
        table_ = std::make_unique<Buffer<int32_t>>(p.lenQ.size() * maxPages_);
        int32_t next = static_cast<int32_t>(numPages_);
        for (size_t b = 0; b < p.lenQ.size(); ++b) {
            for (uint32_t page = 0; page < maxPages_; ++page) {
                (*table_)[b * maxPages_ + page] = page < PagesOf(b) ? --next : -1;
            }
        }
    }

    // Compares every element with the formula in double.
    void Check(float tolerance) {
        const size_t rowElems = p_.heads * p_.headDim;
        const size_t cacheElems = numPages_ * p_.kvHeads * p_.pageSize * p_.headDim;
        Buffer<Q> q = Random<Q>(tokens_ * rowElems, 1), o(tokens_ * rowElems);
        Buffer<T> k = Random<T>(cacheElems, 2), v = Random<T>(cacheElems, 3);
        Buffer<float> lse(tokens_ * p_.heads);
        FlashAttentionArgs args;
        args.q = q.data.get();
        args.kCache = k.data.get();
        args.vCache = v.data.get();
        args.blockTable = table_->data.get();
        args.cuSeqlensQ = cuSeqlens_.data.get();
        args.seqLenKv = lengths_.data.get();
        args.prefixLen = prefix_.data.get();
        args.o = o.data.get();
        args.lse = lse.data.get();
        args.qType = kType<Q>;
        args.cacheType = kType<T>;
        args.numTokens = tokens_;
        args.numSeqs = static_cast<uint32_t>(p_.lenQ.size());
        args.numHeads = p_.heads;
        args.numKvHeads = p_.kvHeads;
        args.headDim = p_.headDim;
        args.pageSize = p_.pageSize;
        args.maxPages = maxPages_;
        args.scale = 1.0f / std::sqrt(static_cast<float>(p_.headDim));
        args.causal = p_.causal;
        args.window = p_.window;
        const Status status = FlashAttention(args);
        ASSERT_TRUE(status.ok()) << status.message;
        for (size_t b = 0; b < p_.lenQ.size(); ++b) {
            for (int32_t i = 0; i < p_.lenQ[b]; ++i) {
                for (uint32_t head = 0; head < p_.heads; ++head) {
                    const size_t row = static_cast<size_t>(cuSeqlens_[b] + i) * p_.heads + head;
                    CheckRow(b, i, head, &q[row * p_.headDim], k, v, &o[row * p_.headDim], lse[row],
                             tolerance);
                }
            }
        }
    }

  private:
    uint32_t PagesOf(size_t b) const {
        return (static_cast<uint32_t>(p_.lenKv[b]) + p_.pageSize - 1) / p_.pageSize;
    }

    const T* Row(Buffer<T>& cache, size_t b, int32_t j, uint32_t head) {
        const uint32_t group = head / (p_.heads / p_.kvHeads);
        const auto position = static_cast<uint32_t>(j);
        const auto page = static_cast<size_t>((*table_)[b * maxPages_ + position / p_.pageSize]);
        return &cache[((page * p_.kvHeads + group) * p_.pageSize + position % p_.pageSize) *
                      p_.headDim];
    }

    bool Sees(size_t b, int32_t i, int32_t j) const {
        if (j < p_.prefix[b]) return true;
        const int32_t position = p_.lenKv[b] - p_.lenQ[b] + i;
        const auto window = static_cast<int32_t>(p_.window);
        if (p_.causal && j > position) return false;
        return window == 0 || (j > position - window && j < position + window);
    }

    void CheckRow(size_t b, int32_t i, uint32_t head, const Q* q, Buffer<T>& k, Buffer<T>& v,
                  const Q* o, float lse, float tolerance) {
        std::vector<double> want(p_.headDim, 0.0);
        double sum = 0.0;
        for (int32_t j = 0; j < p_.lenKv[b]; ++j) {
            if (!Sees(b, i, j)) continue;
            const T* key = Row(k, b, j, head);
            const T* value = Row(v, b, j, head);
            double score = 0.0;
            for (uint32_t d = 0; d < p_.headDim; ++d) {
                score += static_cast<double>(static_cast<float>(q[d])) *
                         static_cast<double>(static_cast<float>(key[d]));
            }
            const double weight = std::exp(score / std::sqrt(static_cast<double>(p_.headDim)));
            sum += weight;
            for (uint32_t d = 0; d < p_.headDim; ++d) {
                want[d] += weight * static_cast<double>(static_cast<float>(value[d]));
            }
        }
        if (sum == 0.0) {
            EXPECT_EQ(lse, -std::numeric_limits<float>::infinity());
            for (uint32_t d = 0; d < p_.headDim; ++d) EXPECT_EQ(static_cast<float>(o[d]), 0.0f);
            return;
        }
        EXPECT_NEAR(lse, std::log(sum), tolerance);
        for (uint32_t d = 0; d < p_.headDim; ++d) {
            EXPECT_NEAR(static_cast<float>(o[d]), want[d] / sum, tolerance);
        }
    }

    Problem p_;
    Buffer<int32_t> cuSeqlens_, lengths_, prefix_;
    std::unique_ptr<Buffer<int32_t>> table_;
    uint32_t tokens_ = 0, maxPages_ = 1, numPages_ = 1;
};

const std::vector<Problem>& Problems() {
    static const std::vector<Problem> problems = {
        {{20, 0, 1, 3}, {20, 5, 130, 0}, {7, 0, 0, 0}, 6, 2, 48, 16, true, 0},
        {{1}, {300}, {0}, 16, 1, 128, 128, true, 0},
        {{40, 9}, {33, 300}, {0, 0}, 7, 1, 16, 64, true, 5},
        {{17, 2}, {17, 64}, {3, 64}, 3, 3, 80, 32, false, 9},
        {{5}, {270}, {0}, 2, 1, 256, 256, false, 0},
        // Keys in parts: of one group and of several, beside sequences that are not cut, a window
        // that spans an edge, a prefix with hidden keys behind it, more queries than one Q tile.
        {{1}, {2050}, {0}, 4, 1, 16, 64, true, 0},
        {{2, 0, 150, 3}, {1025, 9, 1100, 3100}, {0, 0, 9, 1030}, 14, 2, 32, 128, true, 0},
        {{7, 1}, {2100, 4000}, {0, 0}, 3, 3, 48, 48, false, 90},
        {{3}, {3000}, {5}, 7, 1, 16, 16, true, 20},
    };
    return problems;
}

TEST(FlashAttention, MatchesTheFormulaInHalf) {
    for (const Problem& p : Problems()) Attention<half, half>(p).Check(4e-3f);
}

TEST(FlashAttention, MatchesTheFormulaOnAHalfCache) {
    for (const Problem& p : Problems()) Attention<float, half>(p).Check(4e-3f);
}

TEST(FlashAttention, MatchesTheFormulaInFloat) {
    for (const Problem& p : Problems()) Attention<float, float>(p).Check(1e-5f);
}

TEST(FlashAttention, ReturnsTheTilingsStatus) {
    FlashAttentionArgs args;
    args.numHeads = 3;
    args.numKvHeads = 2;
    EXPECT_EQ(FlashAttention(args).code, StatusCode::kInvalidShape);
    args.numHeads = 2;
    args.headDim = 16;
    args.pageSize = 16;
    EXPECT_TRUE(FlashAttention(args).ok());  // no token: nothing to do
    args.qType = DataType::kFloat16;
    EXPECT_EQ(FlashAttention(args).code, StatusCode::kInvalidShape);
}

template <typename Q, typename T>
void CheckRopeAppend(uint32_t headDim, uint32_t rotaryDim, uint32_t heads, uint32_t kvHeads) {
    constexpr uint32_t pageSize = 16, tokens = 9, length = 20, positions = 20;
    const uint32_t half2 = rotaryDim / 2, width = (heads + 2 * kvHeads) * headDim;
    Buffer<Q> qkv = Random<Q>(tokens * width, 1), q(tokens * heads * headDim);
    Buffer<float> cos = Random<float>(positions * half2, 2),
                  sin = Random<float>(positions * half2, 3);
    Buffer<T> k = Random<T>(2 * kvHeads * pageSize * headDim, 4);
    Buffer<T> v = Random<T>(2 * kvHeads * pageSize * headDim, 5);
    Buffer<int32_t> table(2), cuSeqlens(2), lengths(1);
    table[0] = 1;
    table[1] = 0;
    cuSeqlens[0] = 0;
    cuSeqlens[1] = tokens;
    lengths[0] = length;
    RopeAppendArgs args;
    args.qkv = qkv.data.get();
    args.cos = cos.data.get();
    args.sin = sin.data.get();
    args.kCache = k.data.get();
    args.vCache = v.data.get();
    args.blockTable = table.data.get();
    args.cuSeqlensQ = cuSeqlens.data.get();
    args.seqLenKv = lengths.data.get();
    args.q = q.data.get();
    args.qkvType = kType<Q>;
    args.cacheType = kType<T>;
    args.numTokens = tokens;
    args.numSeqs = 1;
    args.numHeads = heads;
    args.numKvHeads = kvHeads;
    args.headDim = headDim;
    args.rotaryDim = rotaryDim;
    args.pageSize = pageSize;
    args.maxPages = 2;
    const Status status = RopeAppend(args);
    ASSERT_TRUE(status.ok()) << status.message;
    const float tolerance = sizeof(T) == 2 ? 8e-3f : 1e-5f;
    for (uint32_t t = 0; t < tokens; ++t) {
        const uint32_t position = length - tokens + t;
        const size_t page = static_cast<size_t>(table[position / pageSize]);
        for (uint32_t head = 0; head < heads + 2 * kvHeads; ++head) {
            const Q* x = &qkv[t * width + head * headDim];
            const bool isV = head >= heads + kvHeads;
            for (uint32_t d = 0; d < headDim; ++d) {
                float want = static_cast<float>(x[d]);
                if (d < rotaryDim && !isV) {
                    const float other = static_cast<float>(x[d ^ 1u]);
                    const float c = cos[position * half2 + d / 2],
                                s = sin[position * half2 + d / 2];
                    want = want * c + (d % 2 == 0 ? -other : other) * s;
                }
                float got;
                if (head < heads) {
                    got = static_cast<float>(q[(t * heads + head) * headDim + d]);
                } else {
                    const uint32_t group = (head - heads) % kvHeads;
                    const size_t slot = (page * kvHeads + group) * pageSize + position % pageSize;
                    got = static_cast<float>((isV ? v : k)[slot * headDim + d]);
                }
                ASSERT_NEAR(got, want, tolerance)
                    << "token " << t << " head " << head << " dim " << d;
            }
        }
    }
}

TEST(RopeAppend, MatchesTheFormula) {
    for (const uint32_t rotaryDim : {0u, 8u, 24u, 48u}) {
        CheckRopeAppend<half, half>(48, rotaryDim, 6, 2);
        CheckRopeAppend<float, half>(48, rotaryDim, 1, 1);
        CheckRopeAppend<float, float>(48, rotaryDim, 35, 7);
    }
    CheckRopeAppend<half, half>(128, 64, 32, 2);
}

TEST(RopeAppend, ReturnsTheTilingsStatus) {
    RopeAppendArgs args;
    args.headDim = 16;
    args.rotaryDim = 12;
    EXPECT_EQ(RopeAppend(args).code, StatusCode::kInvalidShape);
    args.rotaryDim = 0;
    args.numHeads = args.numKvHeads = args.pageSize = 16;
    EXPECT_TRUE(RopeAppend(args).ok());
    args.qkvType = DataType::kFloat16;
    EXPECT_EQ(RopeAppend(args).code, StatusCode::kInvalidShape);
}

TEST(BuildInfo, SaysHowTheLibraryWasBuilt) {
    const BuildInfo info = GetBuildInfo();
    EXPECT_FALSE(info.simd.empty());
    EXPECT_FALSE(info.compiler.empty());
    EXPECT_EQ(info.twin, "fast");
    SetNumThreads(3);
    EXPECT_EQ(GetBuildInfo().threads, 3u);
    SetNumThreads(info.threads);
}

}  // namespace
