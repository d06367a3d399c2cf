// Where in the kernel's source a call stands.
#ifndef ASCEND_TWIN_CHECK_SITE_H_
#define ASCEND_TWIN_CHECK_SITE_H_

#include <cstdint>

namespace ascend_twin {
namespace check {

struct Site {
    const char* file = "";
    uint32_t line = 0;

    // As the last parameter of a call, `Site site = Site::Here()` is where that call stands.
    static constexpr Site Here(const char* file = __builtin_FILE(),
                               uint32_t line = __builtin_LINE()) {
        return {file, line};
    }
};

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_SITE_H_
