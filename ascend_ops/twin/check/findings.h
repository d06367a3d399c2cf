// What check mode has to say: one finding a rule, place and tensor, however often it happened.
#ifndef ASCEND_TWIN_CHECK_FINDINGS_H_
#define ASCEND_TWIN_CHECK_FINDINGS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ascend_twin_check/operation.h"

namespace ascend_twin {
namespace check {

struct Finding {
    std::string rule;
    Severity severity = Severity::kError;
    std::string kernel;
    uint32_t core = 0;
    std::string role;
    std::string file;  // of the kernel's source; empty where no call is to blame
    uint32_t line = 0;
    std::string call;
    std::string tensor;  // of GM its name, else the memory
    uint64_t begin = 0;  // bytes from the start of that
    uint64_t end = 0;
    std::string got;
    std::string wanted;
    std::string advice;
    uint64_t count = 1;
};

// One line for a person.
std::string Describe(const Finding& finding);

class Findings {
  public:
    void Add(Finding finding);
    const std::vector<Finding>& All() const { return all_; }
    void Clear();

  private:
    std::vector<Finding> all_;
    std::map<std::string, size_t> index_;
};

}  // namespace check
}  // namespace ascend_twin

#endif  // ASCEND_TWIN_CHECK_FINDINGS_H_
