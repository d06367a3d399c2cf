// Vector clocks. An agent is one pipe of one role of one core; its operations are numbered from 1,
// and a clock says of every agent up to which number its operations are known to have ended.
#ifndef ASCEND_TWIN_CHECK_CLOCK_H_
#define ASCEND_TWIN_CHECK_CLOCK_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

namespace ascend_twin {
namespace check {

using Clock = std::vector<uint32_t>;
using ClockRef = std::shared_ptr<const Clock>;

inline void Join(Clock* clock, const Clock& other) {
    for (size_t i = 0; i < other.size(); ++i) (*clock)[i] = std::max((*clock)[i], other[i]);
}

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_CLOCK_H_
