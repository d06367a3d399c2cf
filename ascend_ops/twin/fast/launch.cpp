// Schedules the three roles of each logical core as fibers of one thread. A thread whose cores all
// wait in SyncAll takes up another block.
#include "launch.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>

#include "ascend_twin/l1_views.h"
#include "logical_core.h"
#include "thread_pool.h"

namespace ascend_twin {
namespace {

constexpr uint32_t kSpins = 4096;  // before a waiting thread looks for other work

void RunRole(void* argument) {
    const Job* job = static_cast<const Job*>(argument);
    job->kernel(job->arguments);
}

// Makes a block the thread's core number `index`; false where another thread has begun it, or it
// cannot be.
bool Begin(Job& job, uint32_t block, size_t index) {
    if (job.taken[block].exchange(true)) return false;
    LogicalCore* core = CoreOfThread(index);
    if (core == nullptr) {
        job.Fail("twin: no memory for a logical core; lower GLM2_NUM_THREADS");
        job.Rest();
        return false;
    }
    for (uint32_t role = 0; role < kRoles; ++role) {
        core->fibers[role].Reset(&RunRole, &job);
        core->waitsFor[role] = kNotWaiting;
        core->memory.toUb[role] = PendingCopy();
    }
    ForgetL1Views(&core->memory);
    std::fill_n(core->memory.integers.source, IntegerOperand::kFractals, nullptr);
    ForgetProducts(&core->memory);
    std::memset(core->toAiv, 0, sizeof(core->toAiv));
    std::memset(core->toAic, 0, sizeof(core->toAic));
    core->restsIn = kNoRound;
    core->block = block;
    core->closed = false;
    core->job = &job;
    return true;
}

// Begins one block that no thread has begun, if there is one.
bool BeginAnother(Job& job, size_t index) {
    for (uint32_t block = 0; block < job.config->numBlocks; ++block) {
        if (!job.taken[block].load(std::memory_order_relaxed) && Begin(job, block, index)) {
            return true;
        }
    }
    return false;
}

// A turn for each role that can go on; false if none can.
bool TakeTurns(LogicalCore& core) {
    MakeCurrent(core);
    Context& context = CurrentContext();
    bool moved = false;
    for (uint32_t role = 0; role < kRoles; ++role) {
        if (core.fibers[role].Done() || !core.CanPass(role, core.waitsFor[role])) continue;
        core.waitsFor[role] = kNotWaiting;
        moved = true;
        context.role = static_cast<Role>(role);
        core.fibers[role].Resume();
    }
    return moved;
}

// The end of a block none of whose roles can go on: have they not all returned, that is a hang.
void Close(LogicalCore& core, Job& job) {
    bool returned = true;
    for (const Fiber& fiber : core.fibers) returned = returned && fiber.Done();
    if (!returned) job.Fail(DescribeHang(core, job));
    core.closed = true;
    job.Rest();
}

// Until one of the thread's first `count` cores can go on, which all wait in SyncAll, or it has
// begun another block. False: that will never be.
bool AwaitRound(Job& job, size_t* count) {
    const auto canGoOn = [count] {
        bool any = false;
        for (size_t i = 0; i < *count; ++i) {
            any = any || (!Core(i).closed && Core(i).RoundEnded());
        }
        return any;
    };
    {
        std::lock_guard<std::mutex> lock(job.mutex);
        const uint32_t round = job.round.load(std::memory_order_relaxed);
        if (canGoOn()) return true;
        for (size_t i = 0; i < *count; ++i) {
            LogicalCore& core = Core(i);
            if (core.closed || core.restsIn == round) continue;
            core.restsIn = round;
            job.CountResting();
        }
    }
    for (uint32_t spins = 1; !canGoOn(); ++spins) {
        if (job.hung.load(std::memory_order_acquire)) return false;
        if (spins % kSpins != 0) continue;
        std::this_thread::yield();
        if (BeginAnother(job, *count)) {
            ++*count;
            return true;
        }
    }
    return true;
}

void RunMixBlock(Job& job, uint32_t first) {
    if (!Begin(job, first, 0)) return;
    size_t count = 1;  // cores of this thread that have a block
    for (bool open = true; open;) {
        open = false;
        bool moved = false;
        for (size_t i = 0; i < count; ++i) {
            LogicalCore& core = Core(i);
            if (core.closed) continue;
            if (TakeTurns(core)) {
                moved = true;
            } else if (!core.AnyWaitsForAll()) {
                Close(core, job);
                continue;
            }
            open = true;
        }
        if (!open || moved || AwaitRound(job, &count)) continue;
        for (size_t i = 0; i < count; ++i) {
            if (!Core(i).closed) Close(Core(i), job);
        }
        open = false;
    }
}

void RunVectorBlock(Job& job, uint32_t block) {
    if (!Begin(job, block, 0)) return;
    MakeCurrent(Core(0));
    CurrentContext().role = Role::kAiv0;
    job.kernel(job.arguments);
}

void RunBlock(void* argument, uint32_t block) {
    Job& job = *static_cast<Job*>(argument);
    Context& context = CurrentContext();
    const Context outer = context;
    context.numBlocks = job.config->numBlocks;
    context.kernelType = job.config->kernelType;
    context.tilingKey = job.config->tilingKey;
    context.inputs = job.config->inputs;
    if (job.config->kernelType == KernelType::kAivOnly) {
        RunVectorBlock(job, block);
    } else {
        RunMixBlock(job, block);
    }
    context = outer;
}

}  // namespace

std::string Launch(const LaunchConfig& config, void (*kernel)(const void*), const void* arguments) {
    Job job(&config, kernel, arguments);
    ParallelFor(config.numBlocks, &RunBlock, &job);
    return job.failure;
}

}  // namespace ascend_twin
