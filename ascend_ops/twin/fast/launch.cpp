// Schedules the three roles of each logical core as fibers of one thread.
#include "launch.h"

#include <memory>
#include <mutex>
#include <new>

#include "fiber.h"
#include "thread_pool.h"

namespace ascend_twin {
namespace {

constexpr uint32_t kRoles = 3;
constexpr uint32_t kNotWaiting = kNumFlags;
constexpr const char* kRoleNames[kRoles] = {"AIC", "AIV0", "AIV1"};

struct Job {
    const LaunchConfig* config;
    void (*kernel)(const void*);
    const void* arguments;
    std::mutex mutex;
    std::string failure;
};

// One core of one thread: memories, fibers and the counters behind CrossCoreSetFlag in mode 2.
struct LogicalCore {
    CoreMemory memory;
    Fiber fibers[kRoles];
    uint32_t toAiv[kAivPerCore][kNumFlags];
    uint32_t toAic[kAivPerCore][kNumFlags];
    uint32_t waitsFor[kRoles];
    const Job* job = nullptr;

    bool CanPass(uint32_t role, uint32_t flag) const {
        if (role == 0) return toAic[0][flag] > 0 && toAic[1][flag] > 0;
        return toAiv[role - 1][flag] > 0;
    }
};

thread_local Context tContext;
thread_local std::unique_ptr<LogicalCore> tCore;

// Null where its memories cannot be had.
LogicalCore* CoreOfThread() {
    try {
        if (!tCore) tCore = std::make_unique<LogicalCore>();
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
    return tCore.get();
}

void Fail(Job& job, std::string message) {
    std::lock_guard<std::mutex> lock(job.mutex);
    if (job.failure.empty()) job.failure = std::move(message);
}

void RunRole(void* argument) {
    const Job* job = static_cast<const Job*>(argument);
    job->kernel(job->arguments);
}

std::string DescribeHang(const LogicalCore& core, const Job& job, uint32_t block) {
    std::string text = std::string("twin: ") + job.config->kernelName + " hangs on core " +
                       std::to_string(block) + ":";
    for (uint32_t role = 0; role < kRoles; ++role) {
        text += std::string(role == 0 ? " " : ", ") + kRoleNames[role];
        if (core.fibers[role].Done()) {
            text += " has returned";
        } else {
            text += " waits for flag " + std::to_string(core.waitsFor[role]);
        }
    }
    return text;
}

// Round robin until all three have returned or none can go on.
std::string RunMixBlock(LogicalCore& core, const Job& job, uint32_t block) {
    for (uint32_t role = 0; role < kRoles; ++role) {
        core.fibers[role].Reset(&RunRole, const_cast<Job*>(&job));
        core.waitsFor[role] = kNotWaiting;
    }
    std::memset(core.toAiv, 0, sizeof(core.toAiv));
    std::memset(core.toAic, 0, sizeof(core.toAic));
    while (true) {
        bool allDone = true;
        bool moved = false;
        for (uint32_t role = 0; role < kRoles; ++role) {
            if (core.fibers[role].Done()) continue;
            allDone = false;
            const uint32_t flag = core.waitsFor[role];
            if (flag != kNotWaiting && !core.CanPass(role, flag)) continue;
            core.waitsFor[role] = kNotWaiting;
            moved = true;
            tContext.role = static_cast<Role>(role);
            core.fibers[role].Resume();
        }
        if (allDone) return {};
        if (!moved) return DescribeHang(core, job, block);
    }
}

void RunBlock(void* argument, uint32_t block) {
    Job& job = *static_cast<Job*>(argument);
    LogicalCore* found = CoreOfThread();
    if (found == nullptr) {
        Fail(job, "twin: no memory for a logical core; lower GLM2_NUM_THREADS");
        return;
    }
    LogicalCore& core = *found;
    const Context outer = tContext;
    tContext.memory = &core.memory;
    tContext.block = block;
    tContext.numBlocks = job.config->numBlocks;
    tContext.kernelType = job.config->kernelType;
    tContext.tilingKey = job.config->tilingKey;
    if (job.config->kernelType == KernelType::kAivOnly) {
        tContext.role = Role::kAiv0;
        job.kernel(job.arguments);
    } else {
        std::string hang = RunMixBlock(core, job, block);
        if (!hang.empty()) Fail(job, std::move(hang));
    }
    tContext = outer;
}

}  // namespace

Context& CurrentContext() { return tContext; }

void CrossCoreSet(uint32_t flag) {
    LogicalCore& core = *tCore;
    if (tContext.role == Role::kAic) {
        for (auto& flags : core.toAiv) ++flags[flag];
    } else {
        ++core.toAic[tContext.role == Role::kAiv1][flag];
    }
}

void CrossCoreWait(uint32_t flag) {
    LogicalCore& core = *tCore;
    const uint32_t role = static_cast<uint32_t>(tContext.role);
    while (!core.CanPass(role, flag)) {
        core.waitsFor[role] = flag;
        core.fibers[role].Yield();
    }
    if (role == 0) {
        for (auto& flags : core.toAic) --flags[flag];
    } else {
        --core.toAiv[role - 1][flag];
    }
}

std::string Launch(const LaunchConfig& config, void (*kernel)(const void*), const void* arguments) {
    Job job{&config, kernel, arguments, {}, {}};
    ParallelFor(config.numBlocks, &RunBlock, &job);
    return job.failure;
}

}  // namespace ascend_twin
