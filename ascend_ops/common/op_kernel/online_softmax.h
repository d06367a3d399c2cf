// Row operations on (rows, cols) float tiles in UB: mask, reduce, scale by a value a row.
#ifndef ASCEND_OPS_COMMON_OP_KERNEL_ONLINE_SOFTMAX_H_
#define ASCEND_OPS_COMMON_OP_KERNEL_ONLINE_SOFTMAX_H_

#include "common/op_kernel/tile_math.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Below every score that a row can see; finite, so that exp(-inf - kLowestMax) is 0 and not NaN.
constexpr float kLowestMax = -3.0e38f;

__aicore__ inline float NegativeInfinity() { return -1.0f / 0.0f; }

// tile[row : row + rowCount, colBegin : colEnd] = -inf
__aicore__ inline void MaskColumns(const AscendC::LocalTensor<float>& tile, uint32_t row,
                                   uint32_t rowCount, uint32_t pitch, uint32_t colBegin,
                                   uint32_t colEnd) {
    for (uint32_t chunk = colBegin / kFloatsPerRepeat; chunk * kFloatsPerRepeat < colEnd; ++chunk) {
        const uint32_t base = chunk * kFloatsPerRepeat;
        const uint32_t from = MaxOf(colBegin, base) - base;
        const uint32_t to = MinOf(colEnd, base + kFloatsPerRepeat) - base;
        const uint64_t upTo = to == kFloatsPerRepeat ? ~0ull : (1ull << to) - 1;
        uint64_t mask[2] = {upTo & ~((1ull << from) - 1), 0};
        AscendC::Duplicate<float>(tile[row * pitch + base], NegativeInfinity(), mask, rowCount, 1,
                                  pitch / kFloatsPerBlock);
    }
}

// dst[row] = max of tile[row, :]. fold (rows, 64) is scratch; cols is a multiple of 64.
__aicore__ inline void RowMax(const AscendC::LocalTensor<float>& dst,
                              const AscendC::LocalTensor<float>& tile,
                              const AscendC::LocalTensor<float>& fold, uint32_t rows,
                              uint32_t cols) {
    const uint8_t pitch = cols / kFloatsPerBlock;
    if (cols == kFloatsPerRepeat) {
        ReduceRepeatMax(dst, tile, rows);
    } else {
        AscendC::Max(fold, tile, tile[kFloatsPerRepeat], kFloatsPerRepeat, rows,
                     {1, 1, 1, 8, pitch, pitch});
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t col = 2 * kFloatsPerRepeat; col < cols; col += kFloatsPerRepeat) {
            AscendC::Max(fold, fold, tile[col], kFloatsPerRepeat, rows, {1, 1, 1, 8, 8, pitch});
            AscendC::PipeBarrier<PIPE_V>();
        }
        ReduceRepeatMax(dst, fold, rows);
    }
    AscendC::PipeBarrier<PIPE_V>();
}

// dst[row] = sum of tile[row, :], like RowMax.
__aicore__ inline void RowSum(const AscendC::LocalTensor<float>& dst,
                              const AscendC::LocalTensor<float>& tile,
                              const AscendC::LocalTensor<float>& fold, uint32_t rows,
                              uint32_t cols) {
    const uint8_t pitch = cols / kFloatsPerBlock;
    if (cols == kFloatsPerRepeat) {
        ReduceRepeatSum(dst, tile, rows);
    } else {
        AscendC::Add(fold, tile, tile[kFloatsPerRepeat], kFloatsPerRepeat, rows,
                     {1, 1, 1, 8, pitch, pitch});
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t col = 2 * kFloatsPerRepeat; col < cols; col += kFloatsPerRepeat) {
            AscendC::Add(fold, fold, tile[col], kFloatsPerRepeat, rows, {1, 1, 1, 8, 8, pitch});
            AscendC::PipeBarrier<PIPE_V>();
        }
        ReduceRepeatSum(dst, fold, rows);
    }
    AscendC::PipeBarrier<PIPE_V>();
}

// dst[row] = sum of tile[row, :] where cols is any multiple of 8. fold (rows, 64) is scratch.
__aicore__ inline void RowSumOf(const AscendC::LocalTensor<float>& dst,
                                const AscendC::LocalTensor<float>& tile,
                                const AscendC::LocalTensor<float>& fold, uint32_t rows,
                                uint32_t cols) {
    const uint8_t pitch = cols / kFloatsPerBlock;
    AscendC::Duplicate<float>(fold, 0.0f, rows * kFloatsPerRepeat);
    AscendC::PipeBarrier<PIPE_V>();
    for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
        const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
        AscendC::Add(fold, fold, tile[col], mask, rows, {1, 1, 1, 8, 8, pitch});
        AscendC::PipeBarrier<PIPE_V>();
    }
    ReduceRepeatSum(dst, fold, rows);
    AscendC::PipeBarrier<PIPE_V>();
}

// blocks (rows, 8): each row's value eight times, the form in which SubRows and its like take it.
__aicore__ inline void SpreadRows(const AscendC::LocalTensor<float>& blocks,
                                  const AscendC::LocalTensor<float>& values, uint32_t rows) {
    AscendC::Brcb(blocks, values, CeilDiv(rows, kFloatsPerBlock), {1, 8});
    AscendC::PipeBarrier<PIPE_V>();
}

// tile[row, :] -= blocks[row]
__aicore__ inline void SubRows(const AscendC::LocalTensor<float>& tile,
                               const AscendC::LocalTensor<float>& blocks, uint32_t rows,
                               uint32_t cols) {
    const uint8_t pitch = cols / kFloatsPerBlock;
    for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
        const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
        AscendC::Sub(tile[col], tile[col], blocks, mask, rows, {1, 1, 0, pitch, pitch, 1});
    }
    AscendC::PipeBarrier<PIPE_V>();
}

// tile[row, :] *= blocks[row]
__aicore__ inline void MulRows(const AscendC::LocalTensor<float>& tile,
                               const AscendC::LocalTensor<float>& blocks, uint32_t rows,
                               uint32_t cols) {
    const uint8_t pitch = cols / kFloatsPerBlock;
    for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
        const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
        AscendC::Mul(tile[col], tile[col], blocks, mask, rows, {1, 1, 0, pitch, pitch, 1});
    }
    AscendC::PipeBarrier<PIPE_V>();
}

// tile[row, :] /= blocks[row]
__aicore__ inline void DivRows(const AscendC::LocalTensor<float>& tile,
                               const AscendC::LocalTensor<float>& blocks, uint32_t rows,
                               uint32_t cols) {
    const uint8_t pitch = cols / kFloatsPerBlock;
    for (uint32_t col = 0; col < cols; col += kFloatsPerRepeat) {
        const uint64_t mask = MinOf(kFloatsPerRepeat, cols - col);
        AscendC::Div(tile[col], tile[col], blocks, mask, rows, {1, 1, 0, pitch, pitch, 1});
    }
    AscendC::PipeBarrier<PIPE_V>();
}

}  // namespace ascend_ops

#endif  // ASCEND_OPS_COMMON_OP_KERNEL_ONLINE_SOFTMAX_H_
