// Rows token x head of one KV group in tensors (T, N, D), and their way to UB and back.
#ifndef ASCEND_OPS_COMMON_OP_KERNEL_TOKEN_ROWS_H_
#define ASCEND_OPS_COMMON_OP_KERNEL_TOKEN_ROWS_H_

#include "common/op_kernel/tile_math.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Of q, o and their gradients.
struct RowLayout {
    uint32_t numHeads;
    uint32_t groupSize;
    uint32_t headDim;
};

// Rows that lie side by side: the end of a token's heads, whole tokens, or the beginning of a
// token's heads.
struct RowRun {
    uint32_t rows;
    uint32_t heads;  // rows of one token
    uint32_t tokens;
    uint64_t offset;  // element of the tensor
};

// The run that starts `row` rows after the group's first row of `token`, at most `count` rows long.
__aicore__ inline RowRun RowRunAt(const RowLayout& layout, uint32_t token, uint32_t group,
                                  uint32_t row, uint32_t count) {
    const uint32_t size = layout.groupSize;
    const uint32_t head = row % size;
    const uint64_t rowToken = static_cast<uint64_t>(token) + row / size;
    const bool whole = head == 0 && count >= size;
    RowRun run;
    run.heads = whole ? size : MinOf(size - head, count);
    run.tokens = whole ? count / size : 1;
    run.rows = run.heads * run.tokens;
    run.offset = (rowToken * layout.numHeads + group * size + head) * layout.headDim;
    return run;
}

// GM src, `count` rows from row `row` of the group at `token` on -> UB dst (count, headDim)
template <typename T>
__aicore__ inline void CopyRowsIn(const AscendC::LocalTensor<T>& dst,
                                  const AscendC::GlobalTensor<T>& src, const RowLayout& layout,
                                  uint32_t token, uint32_t group, uint32_t row, uint32_t count) {
    for (uint32_t done = 0; done < count;) {
        const RowRun run = RowRunAt(layout, token, group, row + done, count - done);
        AscendC::DataCopyExtParams params;
        params.blockCount = run.tokens;
        params.blockLen = run.heads * layout.headDim * sizeof(T);
        params.srcStride = (layout.numHeads - layout.groupSize) * layout.headDim * sizeof(T);
        params.dstStride = 0;
        AscendC::DataCopyPadExtParams<T> pad;
        AscendC::DataCopyPad(dst[done * layout.headDim], src[run.offset], params, pad);
        done += run.rows;
    }
}

// UB src (count, headDim) -> GM dst, the same rows
template <typename T>
__aicore__ inline void CopyRowsOut(const AscendC::GlobalTensor<T>& dst,
                                   const AscendC::LocalTensor<T>& src, const RowLayout& layout,
                                   uint32_t token, uint32_t group, uint32_t row, uint32_t count) {
    for (uint32_t done = 0; done < count;) {
        const RowRun run = RowRunAt(layout, token, group, row + done, count - done);
        AscendC::DataCopyExtParams params;
        params.blockCount = run.tokens;
        params.blockLen = run.heads * layout.headDim * sizeof(T);
        params.srcStride = 0;
        params.dstStride = (layout.numHeads - layout.groupSize) * layout.headDim * sizeof(T);
        AscendC::DataCopyPad(dst[run.offset], src[done * layout.headDim], params);
        done += run.rows;
    }
}

}  // namespace ascend_ops

#endif  // ASCEND_OPS_COMMON_OP_KERNEL_TOKEN_ROWS_H_
