// The way of the gradient's tiles from GM to L1.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_TILES_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_TILES_H_

#include "common/op_kernel/tile_math.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tasks.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// Every tile lies in L1 as NZ matrices of 16 rows, one after the other: fractal c of row block r is
// number r * (width / columns of a fractal) + c. The same tile then serves as left or right
// operand, turned or not, for LoadDataWithTranspose of float finds the two fractals of a 16 x 16
// square side by side.
template <typename T>
class GradTileLoader {
  public:
    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling) { tiling_ = tiling; }

    // GM k or v [kvStart : kvStart + kvRows] of one group -> L1
    __aicore__ inline void CopyInKv(const AscendC::LocalTensor<T>& dst,
                                    const AscendC::GlobalTensor<T>& src, const GradTask& task) {
        const uint32_t d = tiling_->headDim;
        const uint32_t pitch = tiling_->numKvHeads * d;
        const uint64_t token = static_cast<uint64_t>(task.item.kvToken) + task.kvStart;
        CopyInRows(dst, src[token * pitch + task.item.group * d], task.kvRows, d, d, pitch);
    }

    // GM P or dS (rows, kvRows) of the task's slot -> L1
    __aicore__ inline void CopyInSquare(const AscendC::LocalTensor<T>& dst,
                                        const AscendC::GlobalTensor<T>& src, const GradTask& task) {
        const uint64_t slot = task.index % tiling_->taskSlots * (tiling_->blockM * tiling_->blockN);
        CopyInRows(dst, src[slot], task.rows, task.kvRows, AlignUp(task.kvRows, kFractalRows),
                   AlignUp(task.kvRows, kFloatsPerRepeat));
    }

    // GM q or do, the rows (token x head of one group) of the Q tile -> L1
    __aicore__ inline void CopyInQ(const AscendC::LocalTensor<T>& dst,
                                   const AscendC::GlobalTensor<T>& src, const GradTask& task) {
        const uint32_t d = tiling_->headDim;
        const uint32_t heads = tiling_->groupSize;
        const uint32_t pitch = tiling_->numHeads * d;
        const uint32_t firstRow = task.tile * tiling_->blockM;
        const uint64_t start =
            static_cast<uint64_t>(task.item.qToken) * pitch + task.item.group * heads * d;
        if (heads == 1 || heads == tiling_->numHeads) {
            const uint32_t rowPitch = heads == 1 ? pitch : d;
            CopyInRows(dst, src[start + static_cast<uint64_t>(firstRow) * rowPitch], task.rows, d,
                       d, rowPitch);
            return;
        }
        AscendC::Nd2NzParams params = RowParams(d, d, d);
        params.srcNdMatrixStride = pitch;
        params.dstNzMatrixStride = heads * kC0;
        for (uint32_t row = 0; row < task.rows;) {
            // The rest of a token, whole tokens, or the beginning of one, inside 16 rows.
            const uint32_t head = (firstRow + row) % heads;
            const uint64_t token = (firstRow + row) / heads;
            const uint32_t inBlock = row % kFractalRows;
            const uint32_t room = MinOf(kFractalRows - inBlock, task.rows - row);
            const bool whole = head == 0 && room >= heads;
            params.ndNum = whole ? room / heads : 1;
            params.nValue = whole ? heads : MinOf(heads - head, room);
            AscendC::DataCopy(dst[(row - inBlock) * d + inBlock * kC0],
                              src[start + token * pitch + head * d], params);
            row += params.ndNum * params.nValue;
        }
    }

  private:
    static constexpr uint32_t kC0 = kBlockBytes / sizeof(T);  // columns of a fractal
    static constexpr uint32_t kMaxStride = 65535;             // of Nd2NzParams, elements

    __aicore__ inline AscendC::Nd2NzParams RowParams(uint32_t cols, uint32_t width,
                                                     uint32_t pitch) {
        AscendC::Nd2NzParams params;
        params.ndNum = 1;
        params.nValue = kFractalRows;
        params.dValue = cols;
        params.srcNdMatrixStride = 0;
        params.srcDValue = pitch;
        params.dstNzC0Stride = kFractalRows;
        params.dstNzNStride = 1;
        params.dstNzMatrixStride = kFractalRows * width;
        return params;
    }

    // GM (rows, cols) of one row pitch -> L1, 16 rows after 16 rows.
    __aicore__ inline void CopyInRows(const AscendC::LocalTensor<T>& dst,
                                      const AscendC::GlobalTensor<T>& src, uint32_t rows,
                                      uint32_t cols, uint32_t width, uint32_t pitch) {
        AscendC::Nd2NzParams params = RowParams(cols, width, pitch);
        const uint32_t whole = rows / kFractalRows;
        const uint32_t stride = kFractalRows * pitch;
        if (stride <= kMaxStride && whole > 0) {
            params.ndNum = whole;
            params.srcNdMatrixStride = stride;
            AscendC::DataCopy(dst, src, params);
            params.ndNum = 1;
            params.srcNdMatrixStride = 0;
        } else {
            for (uint32_t block = 0; block < whole; ++block) {
                AscendC::DataCopy(dst[block * kFractalRows * width],
                                  src[static_cast<uint64_t>(block) * stride], params);
            }
        }
        params.nValue = rows % kFractalRows;
        if (params.nValue > 0) {
            AscendC::DataCopy(dst[whole * kFractalRows * width],
                              src[static_cast<uint64_t>(whole) * stride], params);
        }
    }

    const FlashAttentionGradTilingData* tiling_ = nullptr;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_TILES_H_
