// Rules that one call breaks by itself: role, position, alignment, parameters, bounds.
#include "check_run.h"

namespace check_test {
namespace {

struct Buffers {
    std::vector<float> in = std::vector<float>(1024, 1.0f);
    std::vector<float> out = std::vector<float>(1024);
    Tensors tensors = {Named("in", in, GmUse::kIn), Named("out", out, GmUse::kInOut)};
};

// ---- Roles ----

TEST(CheckRole, VectorCallsBelongToAivsAndCubeCallsToTheAic) {
    const auto add = [] { Adds(Ub(0, 64), Ub(0, 64), 1.0f, 64); };
    EXPECT_BREAKS(CheckMix(add, [] {}), "role", "Adds on the AIC");
    const auto load = [] {
        const LocalTensor<half> l1(TPosition::A1, 0, 256), l0(TPosition::A2, 0, 256);
        LoadData2DParams params;
        params.repeatTimes = 1;
        LoadData(l0, l1, params);
    };
    EXPECT_BREAKS(CheckMix([] {}, load), "role", "LoadData on the AIV");
    EXPECT_CLEAN(CheckMix(load, [] {
        Duplicate(Ub(0, 64), 1.0f, 64);
        PipeBarrier<PIPE_V>();
        Adds(Ub(0, 64), Ub(0, 64), 1.0f, 64);
    }));
}

TEST(CheckRole, EventsBelongToARole) {
    const auto aiv = [] { Order<HardEvent::MTE2_V>(); };
    const auto aic = [] { Order<HardEvent::MTE2_MTE1>(); };
    EXPECT_CLEAN(CheckMix(aic, aiv));
    EXPECT_BREAKS(CheckMix(aiv, [] {}), "event_role", "MTE2_V");
    EXPECT_BREAKS(CheckMix([] {}, aic), "event_role", "MTE2_MTE1");
    EXPECT_BREAKS(CheckMix([] { PipeBarrier<PIPE_V>(); }, [] {}), "role", "PIPE_V");
    EXPECT_BREAKS(CheckMix([] {}, [] { PipeBarrier<PIPE_M>(); }), "role", "PIPE_M");
}

TEST(CheckRole, EventIdsAreZeroToFive) {
    EXPECT_CLEAN(CheckVector([] { Order<HardEvent::MTE2_V>(5); }));
    EXPECT_BREAKS(CheckVector([] { Order<HardEvent::MTE2_V>(6); }), "event_id", "event id 6");
    EXPECT_BREAKS(CheckVector([] { Order<HardEvent::MTE2_V>(8); }), "event_id", "event id 8");
    EXPECT_BREAKS(CheckVector([] { Order<HardEvent::MTE2_V>(-1); }), "event_id", "event id -1");
}

TEST(CheckRole, AKernelOfStaticTensorsHasAFrame) {
    LaunchSetup setup;
    setup.frame = false;
    const auto body = [] { Duplicate(Ub(0, 64), 1.0f, 64); };
    EXPECT_BREAKS(Check(setup,
                        [&] {
                            body();
                            PipeBarrier<PIPE_ALL>();
                        }),
                  "init_soc_state", "before InitSocState");
    EXPECT_BREAKS(Check(setup,
                        [&] {
                            InitSocState();
                            body();
                        }),
                  "final_barrier", "PipeBarrier<PIPE_ALL> last");
    EXPECT_CLEAN(Check(setup, [&] {
        InitSocState();
        body();
        PipeBarrier<PIPE_ALL>();
    }));
}

// ---- Positions ----

TEST(CheckPosition, CopiesTakeThePathsThatExist) {
    Buffers b;
    EXPECT_BREAKS(
        CheckCube([&] { DataCopy(LocalTensor<float>(TPosition::A2, 0, 128), Gm(b.in), 128); },
                  b.tensors),
        "position", "A2");
    EXPECT_BREAKS(
        CheckVector([&] { DataCopy(Gm(b.out), LocalTensor<float>(TPosition::A1, 0, 64), 64); },
                    b.tensors),
        "position", "src is in A1");
    EXPECT_BREAKS(CheckCube(
                      [&] {
                          FixpipeParamsV220 params;
                          params.nSize = params.mSize = params.srcStride = params.dstStride = 16;
                          Fixpipe(Gm(b.out), LocalTensor<float>(TPosition::A1, 0, 256), params);
                      },
                      b.tensors),
                  "position", "a tensor in l0c");
    EXPECT_BREAKS(CheckCube([] {
                      const LocalTensor<half> a(TPosition::A2, 0, 256), c(TPosition::A2, 512, 256);
                      LoadData2DParams params;
                      params.repeatTimes = 1;
                      LoadData(c, a, params);
                  }),
                  "position", "src is in A2");
    EXPECT_BREAKS(CheckVector([] { LocalTensor<float>(TPosition::C2, 0, 8); }), "position", "C2");
    EXPECT_BREAKS(CheckCube([] { LocalTensor<float>(TPosition::CO1, 0, 256).GetValue(0); }),
                  "position", "CO1");
}

// ---- Capacity and bounds ----

TEST(CheckBounds, TensorsFitTheirMemory) {
    EXPECT_CLEAN(CheckVector([] { Ub(0, 184 * 256); }));
    EXPECT_BREAKS(CheckVector([] { Ub(32, 184 * 256); }), "capacity", "an end at 188416 bytes");
    const auto l1 = [](uint32_t bytes) {
        return CheckCube([=] { LocalTensor<half>(TPosition::A1, 0, bytes / 2); });
    };
    EXPECT_CLEAN(l1(512 * 1024 - 256));
    EXPECT_BREAKS(l1(512 * 1024), "capacity", "l1");
    EXPECT_BREAKS(CheckCube([] { LocalTensor<half>(TPosition::B2, 512, 32768); }), "capacity",
                  "l0b");
    EXPECT_BREAKS(CheckVector([] { Duplicate(Ub(190000 / 32 * 32, 64), 0.0f, 4096); }), "capacity",
                  "196608 bytes of ub");
}

TEST(CheckBounds, CallsStayInsideOfTheirTensor) {
    EXPECT_CLEAN(CheckVector([] { Duplicate(Ub(0, 128)[64], 0.0f, 64); }));
    EXPECT_BREAKS(CheckVector([] { Duplicate(Ub(0, 128)[64], 0.0f, 72); }), "tensor_bounds",
                  "up to byte 544");
}

TEST(CheckBounds, GmAccessesStayInsideOfTheLaunchsTensors) {
    Buffers b;
    const auto copy = [&](uint32_t offset, uint32_t count) {
        return CheckVector([&, offset, count] { DataCopy(Ub(0, 1024), Gm(b.in)[offset], count); },
                           b.tensors);
    };
    EXPECT_CLEAN(copy(0, 1024));
    EXPECT_BREAKS(copy(8, 1024), "gm_bounds", "outside of every tensor");
    EXPECT_BREAKS(CheckVector(
                      [&] {
                          GlobalTensor<float> gm;
                          gm.SetGlobalBuffer(b.in.data(), 64);
                          DataCopy(Ub(0, 1024), gm, 72);
                      },
                      b.tensors),
                  "gm_bounds", "32 bytes behind the end");
}

TEST(CheckBounds, InputsAreNotWritten) {
    Buffers b;
    EXPECT_BREAKS(CheckVector([&] { DataCopy(Gm(b.in), Ub(0, 64), 64); }, b.tensors),
                  "input_written", "in bytes [0, 256)");
}

// ---- Alignment ----

TEST(CheckAlignment, AddressesAreMultiples) {
    Buffers b;
    EXPECT_BREAKS(CheckVector([] { Ub(16, 64); }), "alignment", "address 16");
    EXPECT_BREAKS(CheckCube([] { LocalTensor<half>(TPosition::A2, 256, 256); }), "alignment",
                  "512 bytes");
    EXPECT_BREAKS(CheckCube([] { LocalTensor<float>(TPosition::CO1, 32, 256); }), "alignment",
                  "64 bytes");
    EXPECT_BREAKS(CheckVector([] { Duplicate(Ub(0, 128)[4], 0.0f, 8); }), "alignment",
                  "begins at byte 16");
    EXPECT_CLEAN(CheckVector([] { Duplicate(Ub(0, 128)[8], 0.0f, 8); }));
    EXPECT_BREAKS(CheckVector([&] { DataCopy(Ub(0, 128), Gm(b.in), 17); }, b.tensors), "alignment",
                  "the size is 68");
    // GM may begin anywhere, and DataCopyPad takes any length.
    EXPECT_CLEAN(CheckVector(
        [&] {
            DataCopyPad(Ub(0, 128), Gm(b.in)[1], {1, 68, 0, 0, 0}, DataCopyPadExtParams<float>());
        },
        b.tensors));
}

// ---- Parameters ----

TEST(CheckParameter, WidthsAreThoseOfTheHardware) {
    Buffers b;
    const auto repeat = [](uint32_t times) {
        return CheckVector([=] {
            const LocalTensor<float> tile = Ub(0, 64);
            Duplicate(tile, 0.0f, 64);
            PipeBarrier<PIPE_V>();
            Add(tile, tile, tile, 64, times, {1, 1, 1, 0, 0, 0});
        });
    };
    EXPECT_CLEAN(repeat(255));
    EXPECT_BREAKS(repeat(256), "parameter", "repeatTime = 256");
    EXPECT_BREAKS(
        CheckVector([] { Add(Ub(0, 64), Ub(0, 64), Ub(0, 64), 64, 1, {1, 1, 1, 8, 300, 8}); }),
        "parameter", "src0RepStride = 300");
    EXPECT_BREAKS(
        CheckVector([] { Add(Ub(0, 64), Ub(0, 64), Ub(0, 64), 65, 1, {1, 1, 1, 8, 8, 8}); }),
        "parameter", "mask = 65");
    const auto blocks = [&](uint32_t count, uint32_t length) {
        return CheckVector(
            [&, count, length] {
                DataCopyPad(Ub(0, 46000), Gm(b.in), {count, length, 0, 0, 0},
                            DataCopyPadExtParams<float>());
            },
            b.tensors);
    };
    EXPECT_BREAKS(blocks(4096, 4), "parameter", "blockCount = 4096");
    EXPECT_BREAKS(blocks(1, 2097152), "parameter", "blockLen = 2097152");
    const auto pitch = [&](uint32_t rowPitch) {
        return CheckCube(
            [&, rowPitch] {
                Nd2NzParams params;
                params.ndNum = params.nValue = params.dstNzNStride = 1;
                params.dValue = 8;
                params.srcDValue = rowPitch;
                params.dstNzC0Stride = 16;
                DataCopy(LocalTensor<float>(TPosition::A1, 0, 128), Gm(b.in), params);
            },
            b.tensors);
    };
    EXPECT_CLEAN(pitch(65535));
    EXPECT_BREAKS(pitch(65536), "parameter", "srcDValue = 65536");
}

TEST(CheckParameter, OperandsAreIdenticalOrDisjoint) {
    const auto shifted = [](uint32_t by) {
        return CheckVector([=] {
            Duplicate(Ub(0, 256), 1.0f, 256);
            PipeBarrier<PIPE_V>();
            Adds(Ub(0, 256)[by], Ub(0, 256), 1.0f, 64);
        });
    };
    EXPECT_CLEAN(shifted(0));
    EXPECT_CLEAN(shifted(64));
    EXPECT_BREAKS(shifted(8), "operand_overlap", "identical or disjoint");
}

TEST(CheckParameter, CastRoundsWhereItNarrows) {
    const auto cast = [](RoundMode widen, RoundMode narrow) {
        return CheckVector([=] {
            Duplicate(Ub(0, 64), 1.0f, 64);
            PipeBarrier<PIPE_V>();
            Cast(Ub<half>(256, 64), Ub(0, 64), narrow, 64);
            PipeBarrier<PIPE_V>();
            Cast(Ub(0, 64), Ub<half>(256, 64), widen, 64);
        });
    };
    EXPECT_CLEAN(cast(RoundMode::CAST_NONE, RoundMode::CAST_RINT));
    EXPECT_BREAKS(cast(RoundMode::CAST_RINT, RoundMode::CAST_RINT), "round_mode", "CAST_NONE");
    EXPECT_BREAKS(cast(RoundMode::CAST_NONE, RoundMode::CAST_NONE), "round_mode", "CAST_RINT");
}

// What the tables refuse does not compile, so that the tables are what a test can look at.
static_assert(ascend_twin::check::kMmadServes<float, half>);
static_assert(!ascend_twin::check::kMmadServes<half, half>);
static_assert(ascend_twin::check::kCastServes<float, bfloat16_t>);
static_assert(!ascend_twin::check::kCastServes<half, bfloat16_t>);
static_assert(!ascend_twin::check::kVectorServes<bfloat16_t>);

TEST(CheckParameter, GatherStaysInItsSource) {
    const auto gather = [](uint32_t offset) {
        return CheckVector([=] {
            Duplicate(Ub(0, 64), 1.0f, 64);
            Duplicate(Ub<uint32_t>(256, 64), offset, 64);
            PipeBarrier<PIPE_V>();
            Gather(Ub(512, 64), Ub(0, 64), Ub<uint32_t>(256, 64), 0u, 64);
        });
    };
    EXPECT_CLEAN(gather(252));
    EXPECT_BREAKS(gather(256), "tensor_bounds", "srcOffset[0] is 256");
}

TEST(CheckFinding, SaysWhereAndIsCounted) {
    const Outcome outcome = CheckVector([] {
        for (int i = 0; i < 1000; ++i) Duplicate(Ub(0, 128)[4], 0.0f, 8);
    });
    const Finding* finding = outcome.Find("alignment");
    ASSERT_NE(finding, nullptr);
    EXPECT_EQ(finding->count, 1000u);
    EXPECT_EQ(finding->file, "test_check_calls.cpp");
    EXPECT_EQ(finding->line, static_cast<uint32_t>(__LINE__ - 6));
    EXPECT_EQ(finding->call, "Duplicate");
    EXPECT_EQ(finding->role, "AIV0");
    EXPECT_EQ(finding->tensor, "ub");
    EXPECT_EQ(finding->begin, 16u);
    EXPECT_EQ(finding->kernel, "test");
}

TEST(CheckFinding, ShortBurstsAreWarnings) {
    Buffers b;
    const Outcome outcome = CheckVector([&] { DataCopy(Ub(0, 1024), Gm(b.in), 1024); }, b.tensors);
    const Finding* finding = outcome.Find("gm_burst");
    ASSERT_NE(finding, nullptr);
    EXPECT_EQ(finding->severity, Severity::kWarning);
    EXPECT_EQ(outcome.Errors(), "");
}

}  // namespace
}  // namespace check_test
