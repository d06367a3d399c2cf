// What launches share. Workspace of one call: taken from the calling thread's buffer, which grows
// and is reused.
#ifndef ASCEND_OPS_LAUNCH_WORKSPACE_H_
#define ASCEND_OPS_LAUNCH_WORKSPACE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "ascend_twin/core.h"

namespace ascend_ops {

// An argument as kernels take it.
inline GM_ADDR Gm(const void* pointer) { return static_cast<GM_ADDR>(const_cast<void*>(pointer)); }

// Valid until the thread's next Workspace; 512-byte aligned, as kernels expect of GM.
class Workspace {
  public:
    explicit Workspace(size_t bytes) {
        thread_local std::unique_ptr<uint8_t[]> buffer;
        thread_local size_t capacity = 0;
        if (capacity < bytes + kAlign) {
            buffer.reset(new uint8_t[bytes + kAlign]);
            capacity = bytes + kAlign;
        }
        const auto address = reinterpret_cast<uintptr_t>(buffer.get());
        data_ = buffer.get() + (kAlign - address % kAlign) % kAlign;
    }

    uint8_t* data() const { return data_; }

  private:
    static constexpr size_t kAlign = 512;
    uint8_t* data_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_LAUNCH_WORKSPACE_H_
