// Runs small kernels in check mode and looks at what it says of them.
#ifndef GLM2_TESTS_CPP_CHECK_CHECK_RUN_H_
#define GLM2_TESTS_CPP_CHECK_CHECK_RUN_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "kernel_operator.h"
// After it.
#include "gm_table.h"
#include "launch.h"
#include "session.h"

namespace check_test {

using namespace AscendC;
using ascend_twin::KernelType;
using ascend_twin::check::Finding;
using ascend_twin::check::GmTensor;
using ascend_twin::check::GmUse;
using ascend_twin::check::Severity;

using Tensors = std::vector<GmTensor>;

template <typename T>
GmTensor Named(const char* name, std::vector<T>& values, GmUse use) {
    return {name, values.data(), values.size() * sizeof(T), use};
}

struct Outcome {
    std::string hang;
    std::vector<Finding> findings;

    // The first finding of a rule that says `text` somewhere.
    const Finding* Find(const std::string& rule, const std::string& text = "") const {
        for (const Finding& finding : findings) {
            const std::string line = ascend_twin::check::Describe(finding);
            if (finding.rule == rule && line.find(text) != std::string::npos) return &finding;
        }
        return nullptr;
    }
    std::string Errors() const {
        std::string text;
        for (const Finding& finding : findings) {
            if (finding.severity != Severity::kError) continue;
            text += ascend_twin::check::Describe(finding) + "\n";
        }
        return text;
    }
};

struct LaunchSetup {
    KernelType type = KernelType::kAivOnly;
    uint32_t blocks = 1;
    Tensors tensors = {};
    ascend_twin::check::Options options = {};
    bool frame = true;  // InitSocState before the body and PIPE_ALL after it
};

template <typename Body>
Outcome Check(const LaunchSetup& setup, const Body& body) {
    ascend_twin::check::TakeFindings();
    ascend_twin::check::TakeCounters();
    ascend_twin::check::SetOptions(setup.options);
    ascend_twin::check::NameGm(setup.tensors);
    Outcome outcome;
    outcome.hang = ascend_twin::Launch({"test", setup.type, setup.blocks, 0}, [&] {
        if (setup.frame) InitSocState();
        body();
        if (setup.frame) PipeBarrier<PIPE_ALL>();
    });
    outcome.findings = ascend_twin::check::TakeFindings();
    ascend_twin::check::SetOptions({});
    return outcome;
}

template <typename Body>
Outcome CheckVector(const Body& body, Tensors tensors = {}) {
    LaunchSetup setup;
    setup.tensors = std::move(tensors);
    return Check(setup, body);
}

// aic() and aiv() on one core, or some.
template <typename Aic, typename Aiv>
Outcome CheckMix(const Aic& aic, const Aiv& aiv, Tensors tensors = {}, uint32_t blocks = 1) {
    LaunchSetup setup;
    setup.type = KernelType::kMixAic1Aiv2;
    setup.tensors = std::move(tensors);
    setup.blocks = blocks;
    return Check(setup, [&] {
        if ASCEND_IS_AIC {
            aic();
        } else {
            aiv();
        }
    });
}

template <typename Aic>
Outcome CheckCube(const Aic& aic, Tensors tensors = {}) {
    return CheckMix(aic, [] {}, std::move(tensors));
}

#define EXPECT_CLEAN(outcome)              \
    do {                                   \
        const Outcome result_ = (outcome); \
        EXPECT_EQ(result_.Errors(), "");   \
        EXPECT_EQ(result_.hang, "");       \
    } while (false)

// The rule is broken, and a finding of it says `text` somewhere.
#define EXPECT_BREAKS(outcome, rule, text)                                               \
    do {                                                                                 \
        const Outcome result_ = (outcome);                                               \
        EXPECT_NE(result_.Find(rule, text), nullptr) << "not in:\n" << result_.Errors(); \
    } while (false)

template <typename T = float>
LocalTensor<T> Ub(uint32_t address, uint32_t elems) {
    return {TPosition::VECCALC, address, elems};
}

template <typename T>
GlobalTensor<T> Gm(std::vector<T>& values) {
    GlobalTensor<T> tensor;
    tensor.SetGlobalBuffer(values.data());
    return tensor;
}

// After `event`'s source pipe, its target pipe.
template <HardEvent event>
void Order(int32_t id = 0) {
    SetFlag<event>(id);
    WaitFlag<event>(id);
}

}  // namespace check_test

#endif  // GLM2_TESTS_CPP_CHECK_CHECK_RUN_H_
