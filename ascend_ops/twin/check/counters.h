// What a launch moved: bytes and bursts by tensor and by the two memories of each move; and the
// instructions of each pipe.
#ifndef ASCEND_TWIN_CHECK_COUNTERS_H_
#define ASCEND_TWIN_CHECK_COUNTERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <tuple>

namespace ascend_twin {
namespace check {

struct Traffic {
    uint64_t bytes = 0;
    uint64_t bursts = 0;
};

struct Counters {
    uint64_t calls = 0;
    // (from, to, tensor): memories are gm, workspace, l1, l0a, l0b, l0c, ub.
    std::map<std::tuple<std::string, std::string, std::string>, Traffic> moves;
    std::map<std::string, uint64_t> instructions;  // by pipe
    // The pipe-time model: cycles until the last pipe is done, and those that each pipe works, the
    // average of its kind ("AIC M").
    double cycles = 0;
    std::map<std::string, double> busy;
};

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_COUNTERS_H_
