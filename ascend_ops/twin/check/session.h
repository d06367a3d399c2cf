// What check mode is told, and what it has found since it was last asked.
#ifndef ASCEND_TWIN_CHECK_SESSION_H_
#define ASCEND_TWIN_CHECK_SESSION_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "counters.h"
#include "findings.h"

namespace ascend_twin {
namespace check {

struct Options {
    uint32_t firstSeed = 0;
    uint32_t seeds = 2;           // adversarial schedules of each launch
    uint32_t physicalCores = 24;  // AI cores of the machine that is stood in for
    bool hardwareTiling = true;   // else tilings are the fast twin's, whose memories are larger
};

void SetOptions(const Options& options);
Options CurrentOptions();

// Both of all launches of the process since the last call.
std::vector<Finding> TakeFindings();
std::map<std::string, Counters> TakeCounters();

// For launches.
void Report(const std::vector<Finding>& findings);
void Count(const std::string& kernel, const Counters& counters);

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_SESSION_H_
