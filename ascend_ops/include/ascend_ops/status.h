// What a host call returns: a code for the program and a sentence for the person.
#ifndef ASCEND_OPS_STATUS_H_
#define ASCEND_OPS_STATUS_H_

#include <string>
#include <utility>

namespace ascend_ops {

enum class StatusCode {
    kOk = 0,
    kInvalidShape,  // the arguments contradict one another
    kNoFit,         // even the smallest tile is larger than a memory of the core
    kInternal,      // a bug of ours: a kernel hung
};

struct Status {
    StatusCode code = StatusCode::kOk;
    std::string message;

    bool ok() const { return code == StatusCode::kOk; }

    static Status Ok() { return {}; }
    static Status Error(StatusCode code, std::string message) {
        Status status;
        status.code = code;
        status.message = std::move(message);
        return status;
    }
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_STATUS_H_
