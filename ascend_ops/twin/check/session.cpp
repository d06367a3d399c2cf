// Findings and counters of the process.
#include "session.h"

#include <mutex>
#include <utility>

namespace ascend_twin {
namespace check {
namespace {

std::mutex gMutex;
Options gOptions;
Findings gFindings;
std::map<std::string, Counters> gCounters;

}  // namespace

void SetOptions(const Options& options) {
    const std::lock_guard<std::mutex> lock(gMutex);
    gOptions = options;
}

Options CurrentOptions() {
    const std::lock_guard<std::mutex> lock(gMutex);
    return gOptions;
}

std::vector<Finding> TakeFindings() {
    const std::lock_guard<std::mutex> lock(gMutex);
    std::vector<Finding> all = gFindings.All();
    gFindings.Clear();
    return all;
}

std::map<std::string, Counters> TakeCounters() {
    const std::lock_guard<std::mutex> lock(gMutex);
    return std::exchange(gCounters, {});
}

void Report(const std::vector<Finding>& findings) {
    const std::lock_guard<std::mutex> lock(gMutex);
    for (const Finding& finding : findings) gFindings.Add(finding);
}

void Count(const std::string& kernel, const Counters& counters) {
    const std::lock_guard<std::mutex> lock(gMutex);
    Counters& all = gCounters[kernel];
    ++all.calls;
    for (const auto& [key, traffic] : counters.moves) {
        all.moves[key].bytes += traffic.bytes;
        all.moves[key].bursts += traffic.bursts;
    }
    for (const auto& [pipe, count] : counters.instructions) all.instructions[pipe] += count;
    all.cycles += counters.cycles;
    for (const auto& [pipe, cycles] : counters.busy) all.busy[pipe] += cycles;
}

}  // namespace check
}  // namespace ascend_twin
