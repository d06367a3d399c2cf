// Rules about order inside of a core: races, barriers, flags, poison, adversarial schedules.
#include "check_run.h"

namespace check_test {
namespace {

constexpr uint32_t kTiles = 4, kElems = 256;

struct Buffers {
    std::vector<float> in = std::vector<float>(kTiles * kElems, 1.0f);
    std::vector<float> out = std::vector<float>(kTiles * kElems);
    Tensors tensors = {Named("in", in, GmUse::kIn), Named("out", out, GmUse::kOut)};
};

// What a pipeline of copies and one vector call leaves out.
enum class Without { kNothing, kMte2V, kVMte3, kMte3Mte2, kDrain, kBarrier };

// out = 2 * (in + 1), tile by tile through one buffer.
template <Without without>
void Pipeline(Buffers* b) {
    const LocalTensor<float> tile = Ub(0, kElems);
    SetFlag<HardEvent::MTE3_MTE2>(0);
    for (uint32_t i = 0; i < kTiles; ++i) {
        if (without != Without::kMte3Mte2 || i == 0) WaitFlag<HardEvent::MTE3_MTE2>(0);
        DataCopy(tile, Gm(b->in)[i * kElems], kElems);
        if (without != Without::kMte2V) Order<HardEvent::MTE2_V>();
        Adds(tile, tile, 1.0f, kElems);
        if (without != Without::kBarrier) PipeBarrier<PIPE_V>();
        Muls(tile, tile, 2.0f, kElems);
        if (without != Without::kVMte3) Order<HardEvent::V_MTE3>();
        DataCopy(Gm(b->out)[i * kElems], tile, kElems);
        if (without != Without::kMte3Mte2) SetFlag<HardEvent::MTE3_MTE2>(0);
    }
    if (without != Without::kMte3Mte2 && without != Without::kDrain) {
        WaitFlag<HardEvent::MTE3_MTE2>(0);
    }
}

template <Without without>
Outcome CheckPipeline() {
    Buffers b;
    const Outcome outcome = CheckVector([&] { Pipeline<without>(&b); }, b.tensors);
    for (const float value : b.out) EXPECT_EQ(value, 4.0f);  // in order it is right
    return outcome;
}

TEST(CheckRace, TheRightPipelineIsClean) { EXPECT_CLEAN(CheckPipeline<Without::kNothing>()); }

TEST(CheckRace, AMissingFlagIsARaceAndAWrongNumber) {
    EXPECT_BREAKS(CheckPipeline<Without::kMte2V>(), "race", "MTE2_V between the two");
    EXPECT_BREAKS(CheckPipeline<Without::kMte2V>(), "order_dependent", "out bytes");
    EXPECT_BREAKS(CheckPipeline<Without::kVMte3>(), "race", "V_MTE3 between the two");
    EXPECT_BREAKS(CheckPipeline<Without::kVMte3>(), "order_dependent", "adversarial schedule");
    EXPECT_BREAKS(CheckPipeline<Without::kMte3Mte2>(), "race", "MTE3_MTE2 between the two");
    EXPECT_BREAKS(CheckPipeline<Without::kMte3Mte2>(), "order_dependent", "out bytes");
}

TEST(CheckRace, AMissingBarrierIsFoundAndGivesAWrongNumber) {
    EXPECT_BREAKS(CheckPipeline<Without::kBarrier>(), "missing_barrier", "PipeBarrier<PIPE_V>");
    EXPECT_BREAKS(CheckPipeline<Without::kBarrier>(), "order_dependent", "out bytes");
}

TEST(CheckRace, OnlyBytesThatMeetCount) {
    Buffers b;
    const auto halves = [&](uint32_t offset) {
        return CheckVector(
            [&, offset] {
                const LocalTensor<float> tile = Ub(0, kElems);
                DataCopy(tile, Gm(b.in), kElems / 2);
                Duplicate(tile[offset], 0.0f, 8);
            },
            {Named("in", b.in, GmUse::kIn)});
    };
    EXPECT_CLEAN(halves(kElems / 2));
    EXPECT_BREAKS(halves(kElems / 2 - 8), "race", "ub bytes [480, 512)");
}

TEST(CheckRace, StridedOperandsAreFollowed) {
    const auto columns = [](uint32_t col) {
        return CheckVector([=] {
            const LocalTensor<float> tile = Ub(0, 4 * 128);
            Duplicate(Ub(4096, 64), 0.0f, 64);
            Duplicate(tile, 0.0f, 4 * 128);
            PipeBarrier<PIPE_V>();
            // Columns [0, 64) of four rows, then some of [64, 128).
            Add(tile, tile, Ub(4096, 64), 64, 4, {1, 1, 1, 16, 16, 0});
            Add(tile[col], tile[col], Ub(4096, 64), 8, 4, {1, 1, 1, 16, 16, 0});
        });
    };
    EXPECT_CLEAN(columns(64));
    EXPECT_BREAKS(columns(56), "missing_barrier", "ub");
}

TEST(CheckRace, ScalarAccessesWantFlagsToo) {
    const auto set = [](bool flag) {
        return CheckVector([=] {
            Ub(0, 8).SetValue(0, 1.0f);
            if (flag) Order<HardEvent::S_V>();
            Adds(Ub(32, 8), Ub(0, 8), 1.0f, 8);
        });
    };
    EXPECT_CLEAN(set(true));
    EXPECT_BREAKS(set(false), "race", "S_V");
    const auto get = [](bool flag) {
        return CheckVector([=] {
            Duplicate(Ub(0, 8), 1.0f, 8);
            if (flag) Order<HardEvent::V_S>();
            Ub(0, 8).GetValue(0);
        });
    };
    EXPECT_CLEAN(get(true));
    EXPECT_BREAKS(get(false), "race", "V_S");
}

TEST(CheckFlag, IsSetOnceAndWaitedForOnce) {
    EXPECT_BREAKS(CheckVector([] {
                      SetFlag<HardEvent::MTE2_V>(0);
                      SetFlag<HardEvent::MTE2_V>(0);
                      WaitFlag<HardEvent::MTE2_V>(0);
                  }),
                  "flag_set_twice", "not yet waited for");
    // V may be slow to pass the first wait.
    EXPECT_BREAKS(CheckVector([] {
                      Order<HardEvent::MTE2_V>();
                      Order<HardEvent::MTE2_V>();
                  }),
                  "flag_set_twice", "may not have passed");
    EXPECT_CLEAN(CheckVector([] {
        Order<HardEvent::MTE2_V>();
        Order<HardEvent::V_MTE2>();
        Order<HardEvent::MTE2_V>();
    }));
    EXPECT_BREAKS(CheckPipeline<Without::kDrain>(), "flag_left_set", "MTE3_MTE2 0");
}

TEST(CheckFlag, AWaitWithoutASetHangs) {
    const Outcome outcome = CheckVector([] { WaitFlag<HardEvent::MTE2_V>(3); });
    EXPECT_NE(outcome.hang.find("AIV0 waits in PipeBarrier<PIPE_ALL>"), std::string::npos)
        << outcome.hang;
    EXPECT_NE(outcome.hang.find("its pipe V waits for MTE2_V 3 (test_check_order.cpp:"),
              std::string::npos)
        << outcome.hang;
    ASSERT_NE(outcome.Find("hang"), nullptr);
    const Outcome scalar = CheckVector([] { WaitFlag<HardEvent::V_S>(1); });
    EXPECT_NE(scalar.hang.find("AIV0 waits for V_S 1 (test_check_order.cpp:"), std::string::npos)
        << scalar.hang;
}

TEST(CheckFlag, AWaitMayComeBeforeItsSet) {
    EXPECT_CLEAN(CheckVector([] {
        WaitFlag<HardEvent::MTE2_V>(0);  // V waits, the others go on
        SetFlag<HardEvent::MTE2_V>(0);
    }));
}

TEST(CheckPoison, WhatWasNotWrittenDoesNotReachAnOutput) {
    Buffers b;
    const auto run = [&](bool fill) {
        return CheckVector(
            [&, fill] {
                const LocalTensor<float> tile = Ub(0, kTiles * kElems);
                Duplicate(tile, 1.0f, fill ? kTiles * kElems : kTiles * kElems - 8);
                Order<HardEvent::V_MTE3>();
                DataCopy(Gm(b.out), tile, kTiles * kElems);
            },
            b.tensors);
    };
    EXPECT_CLEAN(run(true));
    EXPECT_BREAKS(run(false), "poison_reached_output", "out bytes [4064, 4096)");
}

TEST(CheckPoison, AnOutputIsWrittenWhole) {
    Buffers b;
    EXPECT_BREAKS(CheckVector(
                      [&] {
                          Duplicate(Ub(0, kElems), 1.0f, kElems);
                          Order<HardEvent::V_MTE3>();
                          DataCopy(Gm(b.out), Ub(0, kElems), kElems);
                      },
                      b.tensors),
                  "poison_reached_output", "out bytes [1024, 4096)");
}

TEST(CheckPoison, WorkspaceIsAligned) {
    std::vector<float> buffer(256);
    const uint64_t past = reinterpret_cast<uint64_t>(buffer.data()) % 512;
    float* const aligned = buffer.data() + (512 - past) % 512 / sizeof(float);
    const auto run = [&](float* workspace) {
        return CheckVector([] {}, {{"slot", workspace, 64, GmUse::kWorkspace}});
    };
    EXPECT_EQ(run(aligned).Find("workspace_alignment"), nullptr);
    EXPECT_NE(run(aligned + 4).Find("workspace_alignment", "begins 16 bytes past"), nullptr);
}

TEST(CheckOverlap, TensorsThatShareBytesAreNotBothInUse) {
    const auto run = [](uint32_t second) {
        return CheckVector([=] {
            const LocalTensor<float> a = Ub(0, 64), c = Ub(second, 64);
            Duplicate(a, 1.0f, 64);
            PipeBarrier<PIPE_V>();
            Duplicate(c, 2.0f, 64);
            PipeBarrier<PIPE_V>();
            Adds(Ub(1024, 64), a, 1.0f, 64);
        });
    };
    EXPECT_CLEAN(run(256));
    EXPECT_BREAKS(run(224), "overlap", "another tensor");
    // One after the other they may have the same bytes.
    EXPECT_CLEAN(CheckVector([] {
        Duplicate(Ub(0, 64), 1.0f, 64);
        PipeBarrier<PIPE_V>();
        Duplicate(Ub(32, 64), 2.0f, 64);
        PipeBarrier<PIPE_V>();
        Adds(Ub(1024, 64), Ub(32, 64), 1.0f, 64);
    }));
}

TEST(CheckSchedule, EqualSeedsAreEqualSchedules) {
    const auto run = [](uint32_t seed) {
        Buffers b;
        LaunchSetup setup;
        setup.tensors = b.tensors;
        setup.options.firstSeed = seed;
        setup.options.seeds = 1;
        const Outcome outcome = Check(setup, [&] { Pipeline<Without::kMte3Mte2>(&b); });
        const Finding* finding = outcome.Find("order_dependent");
        return finding == nullptr ? std::string() : ascend_twin::check::Describe(*finding);
    };
    uint32_t found = 0;
    for (uint32_t seed = 0; seed < 10; ++seed) {
        EXPECT_EQ(run(seed), run(seed));
        found += !run(seed).empty();
    }
    EXPECT_GE(found, 5u);
}

TEST(CheckMode, ModesAreTurnedOffAgain) {
    EXPECT_BREAKS(CheckVector([] { SetAtomicAdd<float>(); }), "mode_left_on", "SetAtomicNone");
    EXPECT_CLEAN(CheckVector([] {
        SetAtomicAdd<float>();
        SetAtomicNone();
    }));
    EXPECT_BREAKS(CheckVector([] { SetMaskCount(); }), "mode_left_on", "SetMaskNorm");
    EXPECT_CLEAN(CheckVector([] {
        SetMaskCount();
        SetMaskNorm();
    }));
}

TEST(CheckMode, AtomicStoresAdd) {
    std::vector<float> sum(64, 5.0f);
    EXPECT_CLEAN(CheckVector(
        [&] {
            Duplicate(Ub(0, 64), 2.0f, 64);
            Order<HardEvent::V_MTE3>();
            SetAtomicAdd<float>();
            DataCopy(Gm(sum), Ub(0, 64), 64);
            DataCopy(Gm(sum), Ub(0, 64), 64);  // atomics need no order
            SetAtomicNone();
        },
        {Named("sum", sum, GmUse::kInOut)}));
    for (const float value : sum) EXPECT_EQ(value, 9.0f);
}

TEST(CheckScalar, GmWritesAreCleaned) {
    std::vector<float> out(64);
    const auto run = [&](bool clean) {
        return CheckVector(
            [&, clean] {
                for (uint32_t i = 0; i < 64; ++i) Gm(out).SetValue(i, 1.0f);
                if (clean) {
                    DataCacheCleanAndInvalid<float, CacheLine::ENTIRE_DATA_CACHE>(Gm(out));
                }
            },
            {Named("out", out, GmUse::kOut)});
    };
    EXPECT_CLEAN(run(true));
    EXPECT_BREAKS(run(false), "scalar_gm_write", "DataCacheCleanAndInvalid");
}

}  // namespace
}  // namespace check_test
