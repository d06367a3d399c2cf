// Rules about several roles and cores: cross-core flags, SyncAll, writers of the same GM.
#include "check_run.h"

namespace check_test {
namespace {

TEST(CheckCross, AFlagOrdersOnePipeOfTheOtherRole) {
    std::vector<float> slot(256), out(512);
    const Tensors tensors = {Named("slot", slot, GmUse::kWorkspace),
                             Named("out", out, GmUse::kOut)};
    // AIV0 stores, the AIC is told, and tells AIV1, which loads.
    const auto run = [&](bool told) {
        return CheckMix(
            [=] {
                if (told) CrossCoreWaitFlag<2, PIPE_MTE2>(1);
                CrossCoreSetFlag<2, PIPE_FIX>(2);
            },
            [&, told] {
                const LocalTensor<float> tile = Ub(0, 256);
                Duplicate(tile, 1.0f, 256);
                Order<HardEvent::V_MTE3>();
                if (GetSubBlockIdx() == 0) DataCopy(Gm(slot), tile, 256);
                if (told) CrossCoreSetFlag<2, PIPE_MTE3>(1);
                CrossCoreWaitFlag<2, PIPE_MTE2>(2);
                Order<HardEvent::MTE3_MTE2>();
                if (GetSubBlockIdx() == 1) DataCopy(tile, Gm(slot), 256);
                Order<HardEvent::MTE2_MTE3>();
                DataCopy(Gm(out)[static_cast<uint64_t>(GetSubBlockIdx()) * 256], tile, 256);
            },
            tensors);
    };
    EXPECT_CLEAN(run(true));
    EXPECT_BREAKS(run(false), "race", "AIV0 pipe MTE3");
}

TEST(CheckCross, TheSetIsBehindThePipeThatItNames) {
    std::vector<float> slot(512), out(512);
    const Tensors tensors = {Named("slot", slot, GmUse::kWorkspace),
                             Named("out", out, GmUse::kOut)};
    const auto run = [&](auto set) {
        return CheckMix(
            [] {
                CrossCoreWaitFlag<2, PIPE_MTE2>(1);
                CrossCoreSetFlag<2, PIPE_FIX>(2);
            },
            [&, set] {
                const uint64_t mine = static_cast<uint64_t>(GetSubBlockIdx()) * 256;
                Duplicate(Ub(0, 256), 1.0f, 256);
                Order<HardEvent::V_MTE3>();
                DataCopy(Gm(slot)[mine], Ub(0, 256), 256);
                set();
                CrossCoreWaitFlag<2, PIPE_MTE2>(2);
                DataCopy(Ub(1024, 256), Gm(slot)[256 - mine], 256);
                Order<HardEvent::MTE2_MTE3>();
                DataCopy(Gm(out)[mine], Ub(1024, 256), 256);
            },
            tensors);
    };
    EXPECT_CLEAN(run([] { CrossCoreSetFlag<2, PIPE_MTE3>(1); }));
    EXPECT_BREAKS(run([] { CrossCoreSetFlag<2, PIPE_MTE2>(1); }), "race", "pipe MTE3");
    EXPECT_BREAKS(run([] { CrossCoreSetFlag<2, PIPE_MTE2>(1); }), "order_dependent", "out");
}

TEST(CheckCross, AnAivThatSkipsItsSetHangsTheAic) {
    const auto run = [](bool skips) {
        return CheckMix([] { CrossCoreWaitFlag<2>(1); },
                        [=] {
                            if (skips && GetBlockIdx() == 3) return;  // an empty tail
                            CrossCoreSetFlag<2, PIPE_MTE3>(1);
                        },
                        {}, 2);
    };
    EXPECT_CLEAN(run(false));
    const Outcome outcome = run(true);
    EXPECT_NE(outcome.hang.find("hangs on core 1: AIC waits for flag 1 (test_check_cores.cpp:"),
              std::string::npos)
        << outcome.hang;
    EXPECT_NE(outcome.hang.find("AIV0 has returned, AIV1 has returned"), std::string::npos);
}

TEST(CheckCross, FlagsAreDrained) {
    EXPECT_BREAKS(CheckMix([] { CrossCoreSetFlag<2, PIPE_FIX>(1); }, [] {}), "cross_flag_left_set",
                  "cross-core flag 1");
}

TEST(CheckCross, TheCounterEndsAtFifteen) {
    const auto run = [](uint32_t sets) {
        return CheckMix(
            [=] {
                for (uint32_t i = 0; i < sets; ++i) CrossCoreSetFlag<2, PIPE_FIX>(1);
            },
            [=] {
                for (uint32_t i = 0; i < sets; ++i) CrossCoreWaitFlag<2>(1);
            });
    };
    EXPECT_CLEAN(run(15));
    EXPECT_BREAKS(run(16), "cross_overflow", "set 16 times");
}

TEST(CheckCross, IdsModesAndPipes) {
    const auto pair = [](auto set, uint32_t id) {
        return CheckMix(set, [=] { CrossCoreWaitFlag<2>(id); });
    };
    EXPECT_CLEAN(pair([] { CrossCoreSetFlag<2, PIPE_FIX>(7); }, 7));
    EXPECT_BREAKS(pair([] { CrossCoreSetFlag<2, PIPE_FIX>(12); }, 12), "cross_id", "id 12");
    EXPECT_BREAKS(CheckMix([] { CrossCoreSetFlag<2, PIPE_FIX>(16); }, [] {}), "cross_id", "id 16");
    EXPECT_BREAKS(CheckMix([] { CrossCoreSetFlag<0, PIPE_FIX>(1); }, [] {}), "cross_mode",
                  "mode 0");
    EXPECT_BREAKS(CheckMix([] { CrossCoreSetFlag<2, PIPE_S>(1); }, [] {}), "cross_pipe", "PIPE_S");
    EXPECT_BREAKS(CheckMix([] { CrossCoreSetFlag<2, PIPE_MTE3>(1); }, [] {}), "cross_pipe",
                  "PIPE_MTE3");
    EXPECT_BREAKS(CheckVector([] { CrossCoreSetFlag<2, PIPE_MTE3>(1); }), "cross_kernel_type",
                  "MIX kernel");
}

TEST(CheckSyncAll, EveryAivComes) {
    const auto run = [](bool all) {
        return CheckMix([] {},
                        [=] {
                            if (all || GetBlockIdx() != 2) SyncAll();
                        },
                        {}, 3);
    };
    EXPECT_CLEAN(run(true));
    const Outcome outcome = run(false);
    EXPECT_NE(outcome.hang.find("waits in SyncAll (test_check_cores.cpp:"), std::string::npos)
        << outcome.hang;
    EXPECT_NE(outcome.hang.find("5 of 6 AIVs have come to SyncAll"), std::string::npos);
}

TEST(CheckSyncAll, OrdersWhatMte3HasStored) {
    std::vector<float> parts(6 * 8), out(6 * 8);
    const auto run = [&](bool sync) {
        return CheckMix([] {},
                        [&, sync] {
                            const auto mine = static_cast<uint64_t>(GetBlockIdx());
                            Duplicate(Ub(0, 8), 1.0f, 8);
                            Order<HardEvent::V_MTE3>();
                            DataCopy(Gm(parts)[mine * 8], Ub(0, 8), 8);
                            if (sync) SyncAll();
                            Order<HardEvent::MTE3_MTE2>();
                            DataCopy(Ub(32, 8), Gm(parts)[(mine + 1) % 6 * 8], 8);
                            Order<HardEvent::MTE2_MTE3>();
                            DataCopy(Gm(out)[mine * 8], Ub(32, 8), 8);
                        },
                        {Named("parts", parts, GmUse::kWorkspace), Named("out", out, GmUse::kOut)},
                        3);
    };
    EXPECT_CLEAN(run(true));
    EXPECT_BREAKS(run(false), "race", "parts");
}

TEST(CheckSyncAll, WantsACoreForEveryBlock) {
    LaunchSetup setup;
    setup.type = KernelType::kMixAic1Aiv2;
    setup.options.physicalCores = 2;
    const auto body = [] {
        if ASCEND_IS_AIV {
            SyncAll();
        }
    };
    setup.blocks = 2;
    EXPECT_CLEAN(Check(setup, body));
    setup.blocks = 3;
    EXPECT_BREAKS(Check(setup, body), "too_many_blocks", "3 blocks on 2 AI cores");
    EXPECT_BREAKS(CheckMix([] { SyncAll(); }, [] {}), "sync_all", "on an AIC");
}

TEST(CheckWriters, OneForEachByteAndForEachThirtyTwo) {
    std::vector<float> out(4 * 64);
    // Each of four vector cores stores `elems` floats, `step` apart.
    const auto run = [&](uint32_t step, uint32_t elems, bool atomic) {
        LaunchSetup setup;
        setup.blocks = 4;
        setup.tensors = {Named("out", out, GmUse::kInOut)};
        return Check(setup, [&, step, elems, atomic] {
            Duplicate(Ub(0, 64), 1.0f, 64);
            Order<HardEvent::V_MTE3>();
            if (atomic) SetAtomicAdd<float>();
            const auto at = static_cast<uint64_t>(GetBlockIdx()) * step;
            if (elems % 8 == 0) {
                DataCopy(Gm(out)[at], Ub(0, 64), elems);
            } else {
                DataCopyPad(Gm(out)[at], Ub(0, 64), {1, elems * 4, 0, 0, 0});
            }
            SetAtomicNone();
        });
    };
    EXPECT_CLEAN(run(64, 64, false));
    EXPECT_BREAKS(run(32, 64, false), "core_conflict", "out bytes");
    EXPECT_CLEAN(run(32, 64, true));
    EXPECT_BREAKS(run(10, 8, false), "gm_granule", "one writer for each 32 bytes");
    // Stores of single bytes leave the others alone: a warning.
    const Outcome padded = run(12, 12, false);
    EXPECT_EQ(padded.Errors(), "");
    EXPECT_NE(padded.Find("gm_granule"), nullptr);
}

}  // namespace
}  // namespace check_test
