// Fibers, cross-core flags, hangs and the threads behind the logical cores.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "fiber.h"
#include "run.h"
#include "thread_pool.h"

#if defined(__SANITIZE_THREAD__)
// ThreadSanitizer ends a forked child that starts threads, as AForkedChildStartsItsOwn does, unless
// it is told not to.
extern "C" __attribute__((visibility("default"))) const char* __tsan_default_options() {
    return "die_after_fork=0";
}
#endif

namespace {

using namespace glm2_test;
using ascend_twin::KernelType;

class Threads : public testing::Test {
  protected:
    void TearDown() override { ascend_twin::SetNumThreads(before_); }

  private:
    const uint32_t before_ = ascend_twin::NumThreads();
};

// ---- Fibers ----

struct Counter {
    ascend_twin::Fiber fiber;
    int steps = 0;
    double value = 1.0;
};

void Count(void* argument) {
    auto* counter = static_cast<Counter*>(argument);
    double local = 1.0;  // lives on the fiber's stack and in its registers
    for (int i = 0; i < 3; ++i) {
        ++counter->steps;
        local *= 1.5;
        counter->fiber.Yield();
        counter->value = local;
    }
}

TEST(Fiber, RunsOnDemandAndKeepsItsState) {
    Counter counter;
    EXPECT_TRUE(counter.fiber.Done());
    counter.fiber.Reset(&Count, &counter);
    EXPECT_EQ(counter.steps, 0);
    for (int i = 1; i <= 3; ++i) {
        EXPECT_FALSE(counter.fiber.Done());
        counter.fiber.Resume();
        EXPECT_EQ(counter.steps, i);
    }
    counter.fiber.Resume();
    EXPECT_TRUE(counter.fiber.Done());
    EXPECT_EQ(counter.value, 1.5 * 1.5 * 1.5);
}

TEST(Fiber, ResetAbandonsWhatRanBefore) {
    Counter counter;
    for (int i = 0; i < 100; ++i) {
        counter.fiber.Reset(&Count, &counter);
        counter.fiber.Resume();
    }
    EXPECT_EQ(counter.steps, 100);
    EXPECT_FALSE(counter.fiber.Done());
}

TEST(Fiber, IsResetAnyNumberOfTimes) {
    Counter counter;
    for (int i = 0; i < 30000; ++i) {  // ThreadSanitizer's stacks hold 65,536 calls
        counter.fiber.Reset(&Count, &counter);
        counter.fiber.Resume();
    }
    EXPECT_EQ(counter.steps, 30000);
}

TEST(Fiber, TwoTakeTurns) {
    Counter a, b;
    a.fiber.Reset(&Count, &a);
    b.fiber.Reset(&Count, &b);
    while (!a.fiber.Done()) {
        a.fiber.Resume();
        b.fiber.Resume();
    }
    EXPECT_EQ(a.steps, 3);
    EXPECT_EQ(b.steps, 3);
    EXPECT_TRUE(b.fiber.Done());
}

// ---- Roles and flags ----

TEST_F(Threads, EveryRoleOfEveryBlockRunsOnce) {
    for (const uint32_t threads : {1u, 2u, 5u}) {
        ascend_twin::SetNumThreads(threads);
        constexpr uint32_t blocks = 4;
        std::atomic<uint32_t> aic[blocks] = {}, aiv[2 * blocks] = {}, wrong{0};
        const auto kernel = [&] {
            const auto index = static_cast<uint32_t>(AscendC::GetBlockIdx());
            wrong += AscendC::GetBlockNum() != blocks;
            wrong += !TILING_KEY_IS(7);
            if ASCEND_IS_AIC {
                ++aic[index];
            }
            if ASCEND_IS_AIV {
                wrong += AscendC::GetSubBlockIdx() != index % 2;
                ++aiv[index];
            }
        };
        EXPECT_EQ(ascend_twin::Launch({"roles", KernelType::kMixAic1Aiv2, blocks, 7}, kernel), "");
        EXPECT_EQ(wrong, 0u);
        for (const auto& runs : aic) EXPECT_EQ(runs, 1u);
        for (const auto& runs : aiv) EXPECT_EQ(runs, 1u);
    }
}

TEST(Launch, AVectorKernelCountsItsOwnBlocks) {
    std::atomic<uint32_t> runs[6] = {};
    const auto kernel = [&] { ++runs[AscendC::GetBlockIdx()]; };
    EXPECT_EQ(ascend_twin::Launch({"vector", KernelType::kAivOnly, 6, 0}, kernel), "");
    for (const auto& count : runs) EXPECT_EQ(count, 1u);
}

TEST(Flags, AnAicSetReleasesBothAivsAndAWaitNeedsBoth) {
    std::string order;  // one block runs on one thread
    const auto kernel = [&] {
        for (int round = 0; round < 3; ++round) {
            if ASCEND_IS_AIC {
                order += 'c';
                AscendC::CrossCoreSetFlag<2, PIPE_FIX>(1);
                AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(2);
            } else {
                AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(1);
                order += AscendC::GetSubBlockIdx() == 0 ? '0' : '1';
                AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(2);
            }
        }
    };
    EXPECT_EQ(ascend_twin::Launch({"turns", KernelType::kMixAic1Aiv2, 1, 0}, kernel), "");
    ASSERT_EQ(order.size(), 9u);
    for (size_t i = 0; i < 9; i += 3) {
        EXPECT_EQ(order[i], 'c');
        EXPECT_EQ(std::count(order.begin() + static_cast<long>(i),
                             order.begin() + static_cast<long>(i) + 3, '0'),
                  1);
    }
}

TEST(Flags, SetsAreCounted) {
    const auto kernel = [] {
        if ASCEND_IS_AIC {
            for (int i = 0; i < 5; ++i) AscendC::CrossCoreSetFlag<2, PIPE_FIX>(3);
        } else {
            for (int i = 0; i < 5; ++i) AscendC::CrossCoreWaitFlag<2>(3);
        }
    };
    EXPECT_EQ(ascend_twin::Launch({"counted", KernelType::kMixAic1Aiv2, 2, 0}, kernel), "");
}

TEST(Flags, AFlagLeftSetDoesNotReachTheNextKernel) {
    const auto leaves = [] {
        if ASCEND_IS_AIC {
            AscendC::CrossCoreSetFlag<2, PIPE_FIX>(3);
        }
    };
    const auto waits = [] {
        if ASCEND_IS_AIV {
            AscendC::CrossCoreWaitFlag<2>(3);
        }
    };
    EXPECT_EQ(ascend_twin::Launch({"leaves", KernelType::kMixAic1Aiv2, 1, 0}, leaves), "");
    EXPECT_NE(ascend_twin::Launch({"waits", KernelType::kMixAic1Aiv2, 1, 0}, waits), "");
}

TEST(Hang, IsReportedWithEveryRoleAndItsFlag) {
    const auto kernel = [] {
        if ASCEND_IS_AIC {
            AscendC::CrossCoreWaitFlag<2>(4);
        }
        if (ASCEND_IS_AIV && AscendC::GetSubBlockIdx() == 1) AscendC::CrossCoreWaitFlag<2>(5);
    };
    EXPECT_EQ(
        ascend_twin::Launch({"stuck", KernelType::kMixAic1Aiv2, 1, 0}, kernel),
        "twin: stuck hangs on core 0: AIC waits for flag 4, AIV0 has returned, AIV1 waits for "
        "flag 5");
}

TEST(Hang, OfOneAivThatSkipsItsSetNamesTheCore) {
    const auto kernel = [] {
        if ASCEND_IS_AIC {
            AscendC::CrossCoreWaitFlag<2>(1);
        }
        if ASCEND_IS_AIV {
            if (AscendC::GetBlockIdx() != 5) AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(1);
        }
    };
    EXPECT_EQ(ascend_twin::Launch({"skips", KernelType::kMixAic1Aiv2, 4, 0}, kernel),
              "twin: skips hangs on core 2: AIC waits for flag 1, AIV0 has returned, AIV1 has "
              "returned");
}

TEST(Hang, DoesNotStopTheNextLaunch) {
    for (int i = 0; i < 20; ++i) {
        const auto stuck = [] { AscendC::CrossCoreWaitFlag<2>(0); };
        EXPECT_NE(ascend_twin::Launch({"stuck", KernelType::kMixAic1Aiv2, 3, 0}, stuck), "");
        const auto fine = [] {};
        EXPECT_EQ(ascend_twin::Launch({"fine", KernelType::kMixAic1Aiv2, 3, 0}, fine), "");
    }
}

// ---- All cores ----

TEST_F(Threads, AllAivsMeetInSyncAll) {
    for (const uint32_t threads : {1u, 2u, 3u, 5u}) {
        ascend_twin::SetNumThreads(threads);
        for (const uint32_t blocks : {1u, 2u, 5u, 7u}) {
            constexpr uint32_t rounds = 3;
            std::atomic<uint32_t> come[rounds] = {}, wrong{0};
            const auto kernel = [&] {
                if ASCEND_IS_AIC {
                    return;
                }
                const auto ub = Ub<float>(0, 8);
                const auto mine = static_cast<float>(AscendC::GetBlockIdx());
                AscendC::Duplicate(ub, mine, 8);
                for (auto& count : come) {
                    ++count;
                    AscendC::SyncAll();
                    wrong += count != 2 * blocks;
                    wrong += ub.GetValue(7) != mine;  // cores keep their memories apart
                    wrong += AscendC::GetBlockIdx() != static_cast<int64_t>(mine);
                }
            };
            EXPECT_EQ(ascend_twin::Launch({"meet", KernelType::kMixAic1Aiv2, blocks, 0}, kernel),
                      "");
            EXPECT_EQ(wrong, 0u) << threads << " threads, " << blocks << " blocks";
            for (const auto& count : come) EXPECT_EQ(count, 2 * blocks);
        }
    }
}

TEST_F(Threads, FlagsAndSyncAllMix) {
    ascend_twin::SetNumThreads(2);
    std::atomic<uint32_t> before{0}, wrong{0};
    const auto kernel = [&] {
        if ASCEND_IS_AIC {
            AscendC::CrossCoreSetFlag<2, PIPE_FIX>(1);
            AscendC::CrossCoreWaitFlag<2>(2);  // until after SyncAll
        } else {
            AscendC::CrossCoreWaitFlag<2>(1);
            ++before;
            AscendC::SyncAll<true>();
            wrong += before != 8;
            AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(2);
        }
    };
    for (int i = 0; i < 50; ++i) {
        before = 0;
        EXPECT_EQ(ascend_twin::Launch({"mix", KernelType::kMixAic1Aiv2, 4, 0}, kernel), "");
    }
    EXPECT_EQ(wrong, 0u);
}

TEST_F(Threads, ACoreThatDoesNotComeToSyncAllIsAHang) {
    for (const uint32_t threads : {1u, 2u, 3u}) {
        ascend_twin::SetNumThreads(threads);
        const auto returns = [] {
            if (ASCEND_IS_AIV && AscendC::GetBlockIdx() / 2 != 2) AscendC::SyncAll();
        };
        const std::string report =
            ascend_twin::Launch({"leaves", KernelType::kMixAic1Aiv2, 3, 0}, returns);
        EXPECT_EQ(report.substr(0, 30),
                  "twin: leaves hangs on core " + report.substr(27, 1) + ": ");
        EXPECT_NE(report.find(": AIC has returned, AIV0 waits in SyncAll, AIV1 waits in SyncAll; 4 "
                              "of 6 AIVs have come to it"),
                  std::string::npos)
            << report;
        const auto fine = [] {
            if ASCEND_IS_AIV {
                AscendC::SyncAll();
            }
        };
        EXPECT_EQ(ascend_twin::Launch({"fine", KernelType::kMixAic1Aiv2, 3, 0}, fine), "");
    }
}

TEST_F(Threads, AnAivThatWaitsForAFlagDoesNotComeToSyncAll) {
    ascend_twin::SetNumThreads(2);
    const auto kernel = [] {
        if ASCEND_IS_AIC {
            return;
        }
        if (AscendC::GetBlockIdx() == 1) AscendC::CrossCoreWaitFlag<2>(6);
        AscendC::SyncAll();
    };
    const std::string report =
        ascend_twin::Launch({"stuck", KernelType::kMixAic1Aiv2, 2, 0}, kernel);
    EXPECT_NE(report.find("3 of 4 AIVs have come to it"), std::string::npos) << report;
}

TEST_F(Threads, SyncAllWhileTheirNumberChanges) {
    std::atomic<uint32_t> wrong{0};
    std::vector<std::thread> callers;
    for (uint32_t caller = 0; caller < 3; ++caller) {
        callers.emplace_back([&wrong, caller] {
            for (uint32_t i = 0; i < 100; ++i) {
                ascend_twin::SetNumThreads(1 + (i + caller) % 4);
                std::atomic<uint32_t> come{0};
                const auto kernel = [&] {
                    if ASCEND_IS_AIV {
                        ++come;
                        AscendC::SyncAll();
                        wrong += come != 8;
                    }
                };
                wrong +=
                    !ascend_twin::Launch({"meet", KernelType::kMixAic1Aiv2, 4, 0}, kernel).empty();
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(wrong, 0u);
}

TEST(SyncAll, IsServedInAivsOfMixKernels) {
    const auto kernel = [] { AscendC::SyncAll(); };
    EXPECT_EQ(ascend_twin::Launch({"vector", KernelType::kAivOnly, 2, 0}, kernel),
              "twin: vector calls SyncAll, which is served in AIVs of MIX kernels");
    const auto cube = [] {
        if ASCEND_IS_AIC {
            AscendC::SyncAll();
        }
    };
    EXPECT_EQ(ascend_twin::Launch({"cube", KernelType::kMixAic1Aiv2, 2, 0}, cube),
              "twin: cube calls SyncAll, which is served in AIVs of MIX kernels");
}

// ---- Threads ----

struct Tally {
    explicit Tally(uint32_t count) : runs(count) {}
    std::vector<std::atomic<uint32_t>> runs;

    static void Add(void* context, uint32_t index) {
        auto* tally = static_cast<Tally*>(context);
        ++tally->runs[index];
    }
};

TEST_F(Threads, EveryIndexRunsOnce) {
    for (const uint32_t threads : {1u, 2u, 3u, 8u}) {
        ascend_twin::SetNumThreads(threads);
        EXPECT_EQ(ascend_twin::NumThreads(), threads);
        for (const uint32_t count : {0u, 1u, 2u, 7u, 64u}) {
            Tally tally(count);
            ascend_twin::ParallelFor(count, &Tally::Add, &tally);
            for (uint32_t i = 0; i < count; ++i) {
                EXPECT_EQ(tally.runs[i], 1u);
            }
        }
    }
}

// Index 0 ends when all others have, or after a while: one thread alone has to do these.
struct SlowFirst {
    static constexpr uint32_t kCount = 9;
    std::atomic<uint32_t> others{0};
    bool allCame = false;

    static void Run(void* context, uint32_t index) {
        auto* job = static_cast<SlowFirst*>(context);
        if (index > 0) {
            ++job->others;
            return;
        }
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (job->others < kCount - 1 && std::chrono::steady_clock::now() < deadline) {
            std::this_thread::yield();
        }
        job->allCame = job->others == kCount - 1;
    }
};

TEST_F(Threads, WhoeverIsFreeTakesTheNextIndex) {
    ascend_twin::SetNumThreads(2);
    for (int round = 0; round < 20; ++round) {
        SlowFirst job;
        ascend_twin::ParallelFor(SlowFirst::kCount, &SlowFirst::Run, &job);
        EXPECT_TRUE(job.allCame);
    }
}

TEST_F(Threads, AtLeastOneIsKept) {
    ascend_twin::SetNumThreads(0);
    EXPECT_EQ(ascend_twin::NumThreads(), 1u);
}

TEST_F(Threads, SleepingWorkersWake) {
    ascend_twin::SetNumThreads(3);
    for (int i = 0; i < 5; ++i) {
        Tally tally(9);
        ascend_twin::ParallelFor(9, &Tally::Add, &tally);
        for (const auto& runs : tally.runs) EXPECT_EQ(runs, 1u);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

TEST_F(Threads, CallersTakeTurnsWhileTheirNumberChanges) {
    std::atomic<uint32_t> wrong{0};
    std::vector<std::thread> callers;
    for (int caller = 0; caller < 4; ++caller) {
        callers.emplace_back([&wrong, caller] {
            for (uint32_t i = 0; i < 200; ++i) {
                if (caller == 0) ascend_twin::SetNumThreads(1 + i % 4);
                Tally tally(1 + i % 13);
                ascend_twin::ParallelFor(1 + i % 13, &Tally::Add, &tally);
                for (const auto& runs : tally.runs) wrong += runs != 1;
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(wrong, 0u);
}

TEST_F(Threads, KernelsOfTwoCallersKeepTheirMemoriesApart) {
    ascend_twin::SetNumThreads(2);
    std::atomic<uint32_t> wrong{0};
    const auto call = [&wrong](float value) {
        for (int i = 0; i < 100; ++i) {
            const auto kernel = [&wrong, value] {
                const auto ub = Ub<float>(0, 64);
                AscendC::Duplicate(ub, value, 64);
                if ASCEND_IS_AIC {
                    AscendC::CrossCoreWaitFlag<2>(1);
                } else {
                    AscendC::CrossCoreSetFlag<2, PIPE_MTE3>(1);
                    wrong += ub.GetValue(63) != value;
                }
            };
            wrong += !ascend_twin::Launch({"own", KernelType::kMixAic1Aiv2, 3, 0}, kernel).empty();
        }
    };
    std::thread other(call, 1.0f);
    call(2.0f);
    other.join();
    EXPECT_EQ(wrong, 0u);
}

TEST_F(Threads, AForkedChildStartsItsOwn) {
#if defined(__SANITIZE_ADDRESS__)
    GTEST_SKIP() << "AddressSanitizer's allocator does not survive fork() beside another thread";
#endif
    ascend_twin::SetNumThreads(3);
    Tally warm(6);
    ascend_twin::ParallelFor(6, &Tally::Add, &warm);
    std::atomic<bool> stop{false};
    std::thread busy([&stop] {
        while (!stop) {
            Tally tally(6);
            ascend_twin::ParallelFor(6, &Tally::Add, &tally);
        }
    });
    for (int i = 0; i < 5; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            Tally tally(6);
            ascend_twin::ParallelFor(6, &Tally::Add, &tally);
            bool once = true;
            for (const auto& runs : tally.runs) once = once && runs == 1;
            _exit(once ? 0 : 1);
        }
        int status = -1;
        waitpid(child, &status, 0);
        EXPECT_EQ(status, 0);
    }
    stop = true;
    busy.join();
}

}  // namespace
