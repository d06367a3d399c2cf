// The Unified Buffer of an AIV, handed out from its beginning.
#ifndef ASCEND_OPS_COMMON_OP_KERNEL_UB_SPACE_H_
#define ASCEND_OPS_COMMON_OP_KERNEL_UB_SPACE_H_

#include "common/op_kernel/tile_math.h"
#include "kernel_operator.h"

namespace ascend_ops {

class UbSpace {
  public:
    // `elems` elements in whole blocks of 32 bytes.
    template <typename E>
    __aicore__ inline AscendC::LocalTensor<E> Take(uint32_t elems) {
        const uint32_t address = bytes_;
        bytes_ += AlignUp(elems * static_cast<uint32_t>(sizeof(E)), kBlockBytes);
        return AscendC::LocalTensor<E>(AscendC::TPosition::VECCALC, address, elems);
    }

  private:
    uint32_t bytes_ = 0;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_COMMON_OP_KERNEL_UB_SPACE_H_
