// rms_norm and swiglu on buffers of exactly their size: the sanitizers see every read and write
// past one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "ascend_ops/build_info.h"
#include "ascend_ops/rms_norm.h"
#include "ascend_ops/swiglu.h"
#include "run.h"

namespace {

using namespace ascend_ops;
using namespace glm2_test;

template <typename T>
constexpr DataType kType = sizeof(T) == 2 ? DataType::kFloat16 : DataType::kFloat32;

template <typename T>
constexpr double kTolerance = sizeof(T) == 2 ? 2e-3 : 2e-6;

template <typename T>
double Value(T x) {
    return static_cast<double>(static_cast<float>(x));
}

constexpr float kEps = 1e-5f;

template <typename T>
void CheckRmsNorm(uint32_t rows, uint32_t hiddenSize, bool hasResidual) {
    const std::vector<T> x = As<T>(Normals(rows * hiddenSize, 1));
    const std::vector<T> residual = As<T>(Normals(rows * hiddenSize, 2));
    const std::vector<T> weight = As<T>(Normals(hiddenSize, 3));
    std::vector<T> y(rows * hiddenSize), total(rows * hiddenSize);
    RmsNormArgs args;
    args.x = x.data();
    args.weight = weight.data();
    args.residual = hasResidual ? residual.data() : nullptr;
    args.y = y.data();
    args.total = hasResidual ? total.data() : nullptr;
    args.type = kType<T>;
    args.numRows = rows;
    args.hiddenSize = hiddenSize;
    args.eps = kEps;
    const Status status = RmsNorm(args);
    ASSERT_TRUE(status.ok()) << status.message;
    for (uint32_t row = 0; row < rows; ++row) {
        const size_t start = static_cast<size_t>(row) * hiddenSize;
        std::vector<double> h(hiddenSize);
        double sum = 0.0;
        for (uint32_t i = 0; i < hiddenSize; ++i) {
            h[i] = Value(x[start + i]);
            if (hasResidual) {
                const float added = static_cast<float>(h[i] + Value(residual[start + i]));
                h[i] = Value(static_cast<T>(added));
                ASSERT_EQ(Value(total[start + i]), h[i]) << "row " << row << " column " << i;
            }
            sum += h[i] * h[i];
        }
        const double rms = std::sqrt(sum / hiddenSize + static_cast<double>(kEps));
        for (uint32_t i = 0; i < hiddenSize; ++i) {
            const double want = Value(weight[i]) * h[i] / rms;
            ASSERT_NEAR(Value(y[start + i]), want, kTolerance<T> * std::max(1.0, std::abs(want)))
                << "row " << row << " column " << i;
        }
    }
}

TEST(RmsNorm, MatchesTheFormula) {
    const uint32_t threads = GetBuildInfo().threads;
    for (const uint32_t cores : {1u, 3u}) {
        SetNumThreads(cores);
        for (const bool hasResidual : {false, true}) {
            for (const uint32_t hiddenSize : {1u, 17u, 64u, 200u, 2047u, 4096u, 4099u}) {
                for (const uint32_t rows : {1u, 2u, 37u}) {
                    CheckRmsNorm<half>(rows, hiddenSize, hasResidual);
                    CheckRmsNorm<float>(rows, hiddenSize, hasResidual);
                }
            }
            CheckRmsNorm<half>(3, kMaxHiddenSize, hasResidual);
            CheckRmsNorm<float>(3, kMaxHiddenSize, hasResidual);
            CheckRmsNorm<half>(700, 3, hasResidual);  // more rows than one instruction repeats
        }
    }
    SetNumThreads(threads);
}

TEST(RmsNorm, ReturnsTheTilingsStatus) {
    RmsNormArgs args;
    EXPECT_EQ(RmsNorm(args).code, StatusCode::kInvalidShape);
    args.hiddenSize = 16;
    EXPECT_TRUE(RmsNorm(args).ok());  // no row: nothing to do
}

template <typename T>
void CheckSwiglu(uint32_t rows, uint32_t width) {
    const std::vector<T> x = As<T>(Normals(rows * 2 * width, 4));
    std::vector<T> out(rows * width);
    SwigluArgs args;
    args.x = x.data();
    args.out = out.data();
    args.type = kType<T>;
    args.numRows = rows;
    args.width = width;
    const Status status = Swiglu(args);
    ASSERT_TRUE(status.ok()) << status.message;
    for (uint32_t row = 0; row < rows; ++row) {
        for (uint32_t i = 0; i < width; ++i) {
            const size_t at = static_cast<size_t>(row) * 2 * width + i;
            const double gate = Value(x[at]);
            const double want = gate / (1.0 + std::exp(-gate)) * Value(x[at + width]);
            ASSERT_NEAR(Value(out[static_cast<size_t>(row) * width + i]), want,
                        kTolerance<T> * std::max(1.0, std::abs(want)))
                << "row " << row << " column " << i;
        }
    }
}

TEST(Swiglu, MatchesTheFormula) {
    const uint32_t threads = GetBuildInfo().threads;
    for (const uint32_t cores : {1u, 3u}) {
        SetNumThreads(cores);
        for (const uint32_t width : {1u, 16u, 33u, 1000u, 8191u, 8192u, 8193u, 13696u}) {
            for (const uint32_t rows : {1u, 2u, 37u}) {
                CheckSwiglu<half>(rows, width);
                CheckSwiglu<float>(rows, width);
            }
        }
        CheckSwiglu<half>(5000, 1);  // more rows than one copy takes
    }
    SetNumThreads(threads);
}

TEST(Swiglu, ReturnsTheTilingsStatus) {
    SwigluArgs args;
    EXPECT_EQ(Swiglu(args).code, StatusCode::kInvalidShape);
    args.width = 16;
    EXPECT_TRUE(Swiglu(args).ok());  // no row: nothing to do
}

}  // namespace
