// Which scores of a tile a query does not see.
#ifndef ASCEND_OPS_FLASH_ATTENTION_MASK_H_
#define ASCEND_OPS_FLASH_ATTENTION_MASK_H_

#include "common/op_kernel/online_softmax.h"
#include "common/op_kernel/tile_math.h"
#include "flash_attention/op_kernel/flash_attention_tasks.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

class AttentionMask {
  public:
    __aicore__ inline void Init(const FlashAttentionTilingData* tiling) { tiling_ = tiling; }

    // tile (count, cols) holds scores of the Q tile's rows from `row` on: what they do not see
    // becomes -inf. A query at p sees [0, prefix) and [lo, hi).
    __aicore__ inline void Hide(const AttentionTask& task, const AscendC::LocalTensor<float>& tile,
                                uint32_t row, uint32_t count, uint32_t cols) {
        const uint32_t group = tiling_->groupSize;
        for (uint32_t done = 0; done < count;) {
            const uint32_t tileRow = row + done;
            const uint32_t live = MinOf(group - tileRow % group, count - done);
            HideFromToken(task, tile, task.position + static_cast<int32_t>(tileRow / group), done,
                          live, cols);
            done += live;
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

  private:
    __aicore__ inline void HideFromToken(const AttentionTask& task,
                                         const AscendC::LocalTensor<float>& tile, int32_t position,
                                         uint32_t row, uint32_t live, uint32_t cols) {
        const int32_t len = static_cast<int32_t>(task.seqLenKv);
        const int32_t prefix = static_cast<int32_t>(task.prefixLen);
        const int32_t window = static_cast<int32_t>(tiling_->window);
        int32_t hi = len;
        if (tiling_->causal != 0) {
            hi = MinOf(len, position + 1);
        } else if (window != 0) {
            hi = MinOf(len, MinOf(position, len) + window);
        }
        const int32_t lo = window != 0 ? MaxOf(0, position - window + 1) : 0;
        HideKeys(task, tile, MaxOf(prefix, hi), static_cast<int32_t>(task.kvStart + cols), row,
                 live, cols);
        if (lo > prefix) {
            // The two ranges may share a 32-byte block.
            AscendC::PipeBarrier<PIPE_V>();
            HideKeys(task, tile, prefix, MinOf(lo, MaxOf(prefix, hi)), row, live, cols);
        }
    }

    // Keys [from, to) of the sequence, as far as they lie in the tile.
    __aicore__ inline void HideKeys(const AttentionTask& task,
                                    const AscendC::LocalTensor<float>& tile, int32_t from,
                                    int32_t to, uint32_t row, uint32_t live, uint32_t cols) {
        const int32_t start = static_cast<int32_t>(task.kvStart);
        const int32_t begin = MaxOf(from - start, 0);
        const int32_t end = MinOf(to - start, static_cast<int32_t>(cols));
        if (begin < end) {
            MaskColumns(tile, row, live, cols, static_cast<uint32_t>(begin),
                        static_cast<uint32_t>(end));
        }
    }

    const FlashAttentionTilingData* tiling_ = nullptr;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_MASK_H_
