// What the library of the twin's check mode has found and counted. The fast library has none of it.
#ifndef ASCEND_OPS_CHECK_H_
#define ASCEND_OPS_CHECK_H_

#include <cstdint>
#include <string>
#include <vector>

#include "ascend_ops/types.h"

namespace ascend_ops {

struct CheckOptions {
    uint32_t firstSeed = 0;  // adversarial schedules firstSeed, firstSeed + 1, ...
    uint32_t seeds = 2;      // how many of them each launch is run in
    uint32_t physicalCores = 24;
    bool hardwareTiling = true;  // else tilings are the fast twin's, whose memories are larger
};

// Of one kernel, at one place of its source; equal ones are counted.
struct CheckFinding {
    std::string rule;
    bool isError;  // else a warning
    std::string kernel;
    uint32_t core;
    std::string role;
    std::string file;
    uint32_t line;
    std::string call;
    std::string tensor;  // in GM by its name, else the memory
    uint64_t begin;      // bytes from its start
    uint64_t end;
    std::string got;
    std::string wanted;
    std::string advice;
    uint64_t count;
    std::string text;  // all of that for a person
};

// What moved from one memory to another: gm, workspace, l1, l0a, l0b, l0c, ub.
struct MoveCount {
    std::string from;
    std::string to;
    std::string tensor;
    uint64_t bytes;
    uint64_t bursts;  // contiguous runs in GM; fractals between L1 and L0
};

struct PipeCount {
    std::string pipe;
    uint64_t instructions;
};

struct PipeTime {
    std::string pipe;
    double cycles;
};

struct KernelCounters {
    std::string kernel;
    uint64_t calls;
    std::vector<MoveCount> moves;
    std::vector<PipeCount> pipes;
    // The pipe-time model: cycles of dav-2201 until the last pipe is done, and those that each kind
    // of pipe ("AIC M") works, on average over the cores.
    double modelCycles;
    std::vector<PipeTime> pipeTimes;
};

ASCEND_OPS_API void SetCheckOptions(const CheckOptions& options);
ASCEND_OPS_API CheckOptions GetCheckOptions();

// Of all calls of the process since the last time.
ASCEND_OPS_API std::vector<CheckFinding> TakeCheckFindings();
ASCEND_OPS_API std::vector<KernelCounters> TakeKernelCounters();

}  // namespace ascend_ops

#endif  // ASCEND_OPS_CHECK_H_
