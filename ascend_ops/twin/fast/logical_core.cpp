// The calling thread's logical cores, and the calls of a kernel that make a role wait.
#include "logical_core.h"

#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

namespace ascend_twin {
namespace {

constexpr const char* kRoleNames[kRoles] = {"AIC", "AIV0", "AIV1"};

thread_local Context tContext;
// A thread runs one block after the other, but several at once where they wait in SyncAll: hardware
// has a core for each block, and here a worker may be asleep or have a share of several blocks.
thread_local std::vector<std::unique_ptr<LogicalCore>> tCores;
thread_local LogicalCore* tRunning = nullptr;

}  // namespace

LogicalCore* CoreOfThread(size_t index) {
    try {
        if (index == tCores.size()) tCores.push_back(std::make_unique<LogicalCore>());
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
    return tCores[index].get();
}

LogicalCore& Core(size_t index) { return *tCores[index]; }

void MakeCurrent(LogicalCore& core) {
    tRunning = &core;
    tContext.memory = &core.memory;
    tContext.block = core.block;
}

Context& CurrentContext() { return tContext; }

std::string DescribeHang(const LogicalCore& core, Job& job) {
    std::string text = std::string("twin: ") + job.config->kernelName + " hangs on core " +
                       std::to_string(core.block) + ":";
    for (uint32_t role = 0; role < kRoles; ++role) {
        text += std::string(role == 0 ? " " : ", ") + kRoleNames[role];
        if (core.fibers[role].Done()) {
            text += " has returned";
        } else if (core.WaitsForAll(role)) {
            text += " waits in SyncAll";
        } else {
            text += " waits for flag " + std::to_string(core.waitsFor[role]);
        }
    }
    if (core.AnyWaitsForAll()) {
        std::lock_guard<std::mutex> lock(job.mutex);
        text += "; " + std::to_string(job.arrived) + " of " +
                std::to_string(kAivPerCore * job.config->numBlocks) + " AIVs have come to it";
    }
    return text;
}

void CrossCoreSet(uint32_t flag) {
    LogicalCore& core = *tRunning;
    if (tContext.role == Role::kAic) {
        for (auto& flags : core.toAiv) ++flags[flag];
    } else {
        ++core.toAic[tContext.role == Role::kAiv1][flag];
    }
}

void CrossCoreWait(uint32_t flag) {
    LogicalCore& core = *tRunning;
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

void SyncAllAivs() {
    LogicalCore& core = *tRunning;
    Job& job = *core.job;
    const uint32_t role = static_cast<uint32_t>(tContext.role);
    if (tContext.kernelType == KernelType::kAivOnly || tContext.role == Role::kAic) {
        job.Fail(std::string("twin: ") + job.config->kernelName +
                 " calls SyncAll, which is served in AIVs of MIX kernels");
        return;
    }
    {
        std::lock_guard<std::mutex> lock(job.mutex);
        core.round[role] = job.round.load(std::memory_order_relaxed);
        if (++job.arrived == kAivPerCore * job.config->numBlocks) {
            job.arrived = 0;
            job.resting = 0;
            job.round.fetch_add(1, std::memory_order_release);
            return;
        }
    }
    while (!core.CanPass(role, kWaitsForAll)) {
        core.waitsFor[role] = kWaitsForAll;
        core.fibers[role].Yield();
    }
}

}  // namespace ascend_twin
