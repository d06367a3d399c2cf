// Runs a lambda as a kernel on one core of the twin.
#ifndef GLM2_TESTS_CPP_RUN_H_
#define GLM2_TESTS_CPP_RUN_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "kernel_operator.h"
#include "launch.h"

namespace glm2_test {

// As a vector-only kernel.
template <typename Body>
void RunVector(const Body& body) {
    const ascend_twin::LaunchConfig config = {"test", ascend_twin::KernelType::kAivOnly, 1, 0};
    ASSERT_EQ(ascend_twin::Launch(config, body), "");
}

// As the AIC of a mixed kernel whose AIVs do nothing.
template <typename Body>
void RunCube(const Body& body) {
    const ascend_twin::LaunchConfig config = {"test", ascend_twin::KernelType::kMixAic1Aiv2, 1, 0};
    const auto kernel = [&] {
        if ASCEND_IS_AIC {
            body();
        }
    };
    ASSERT_EQ(ascend_twin::Launch(config, kernel), "");
}

template <typename T>
AscendC::GlobalTensor<T> Gm(std::vector<T>& values) {
    AscendC::GlobalTensor<T> tensor;
    tensor.SetGlobalBuffer(values.data());
    return tensor;
}

template <typename T>
AscendC::LocalTensor<T> Ub(uint32_t address, uint32_t elems) {
    return {AscendC::TPosition::VECCALC, address, elems};
}

template <typename T>
void Fill(const AscendC::LocalTensor<T>& tensor, const std::vector<T>& values) {
    for (uint32_t i = 0; i < values.size(); ++i) tensor.SetValue(i, values[i]);
}

template <typename T>
std::vector<T> ValuesOf(const AscendC::LocalTensor<T>& tensor, uint32_t count) {
    std::vector<T> values;
    for (uint32_t i = 0; i < count; ++i) values.push_back(tensor.GetValue(i));
    return values;
}

// Small integers: every product and sum of them is exact in float.
inline std::vector<float> Integers(uint32_t count, uint32_t seed) {
    std::mt19937 engine(seed);
    std::vector<float> values(count);
    for (float& value : values) value = static_cast<float>(engine() % 17) - 8.0f;
    return values;
}

inline std::vector<float> Normals(uint32_t count, uint32_t seed) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(count);
    for (float& value : values) value = normal(engine);
    return values;
}

template <typename T>
std::vector<T> As(const std::vector<float>& values) {
    std::vector<T> out;
    for (const float value : values) out.push_back(static_cast<T>(value));
    return out;
}

}  // namespace glm2_test

#endif  // GLM2_TESTS_CPP_RUN_H_
