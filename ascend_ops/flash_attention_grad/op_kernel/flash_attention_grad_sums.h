// The sums of dV, dK and dQ over the tasks of an item, and their way out.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_SUMS_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_SUMS_H_

#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/token_rows.h"
#include "common/op_kernel/ub_space.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_buffers.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_gm.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tasks.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// dV and dK of this AIV's keys are summed in UB, dQ in the workspace.
template <typename T>
class GradSums {
  public:
    using Buffers = GradBuffers<T>;

    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling,
                                const FlashAttentionGradGm& gm, GM_ADDR workspace, UbSpace* ub,
                                Buffers* buffers) {
        tiling_ = tiling;
        buffers_ = buffers;
        layout_ = {tiling->numHeads, tiling->groupSize, tiling->headDim};
        dQ_.SetGlobalBuffer((__gm__ T*)gm.dQ);
        dK_.SetGlobalBuffer((__gm__ T*)gm.dK);
        dV_.SetGlobalBuffer((__gm__ T*)gm.dV);
        dVPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDvPart));
        dKPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDkPart));
        dQPart_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDqPart));
        dQSum_.SetGlobalBuffer((__gm__ float*)(workspace + tiling->workspaceDq));
        const uint32_t accElems = tiling->blockN / 2 * tiling->headDim;
        dVUb_ = ub->Take<float>(accElems);
        dKUb_ = ub->Take<float>(accElems);
    }

    __aicore__ inline void Begin() {
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(Buffers::kEventSum);
    }

    __aicore__ inline void End() {
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(Buffers::kEventSum);
    }

    __aicore__ inline void AddKeyParts(const GradTask& task) {
        const RowSpan keys = OwnRows(task.kvRows);
        for (uint32_t row = 0; row < keys.count; row += tiling_->vecRows) {
            const RowSpan pass = {row, MinOf(tiling_->vecRows, keys.count - row)};
            KeyPass(task, dVUb_, dVPart_, dV_, keys.begin, pass);
            KeyPass(task, dKUb_, dKPart_, dK_, keys.begin, pass);
        }
    }

    __aicore__ inline void AddQueryParts(const GradTask& task) {
        const RowSpan rows = OwnRows(task.rows);
        if (rows.count == 0) return;  // nor the flag: nothing would keep its sets apart
        // A sum of dQ is read only after the last one has arrived in GM.
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(Buffers::kEventSum);
        for (uint32_t row = 0; row < rows.count; row += tiling_->vecRows) {
            QueryPass(task, rows.begin + row, MinOf(tiling_->vecRows, rows.count - row));
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(Buffers::kEventSum);
    }

  private:
    // sum (+)= part of this AIV's keys `pass`; after the last task of the K/V tile, sum -> GM out
    __aicore__ inline void KeyPass(const GradTask& task, const AscendC::LocalTensor<float>& sums,
                                   const AscendC::GlobalTensor<float>& part,
                                   const AscendC::GlobalTensor<T>& out, uint32_t firstKey,
                                   const RowSpan& pass) {
        const uint32_t d = tiling_->headDim;
        const uint32_t elems = pass.count * d;
        const uint64_t slot = task.index % tiling_->taskSlots * (tiling_->blockN * d);
        const AscendC::LocalTensor<float> sum = sums[pass.begin * d];
        const AscendC::LocalTensor<float> one = buffers_->One();
        buffers_->Open();
        if (task.rows > 0) AscendC::DataCopy(one, part[slot + (firstKey + pass.begin) * d], elems);
        buffers_->Ready();
        if (task.rows == 0) {
            AscendC::Duplicate<float>(one, 0.0f, elems);
        } else if (!task.lastOfKv) {
            if (task.firstOfKv) {
                AscendC::Adds(sum, one, 0.0f, elems);
            } else {
                AscendC::Add(sum, sum, one, elems);
            }
        } else if (!task.firstOfKv) {
            AscendC::Add(one, sum, one, elems);
        }
        AscendC::PipeBarrier<PIPE_V>();
        if (task.lastOfKv) {
            const AscendC::LocalTensor<T> rounded = buffers_->RoundOne(elems);
            buffers_->HandOver();
            CopyOutKeys(out, rounded, task, firstKey + pass.begin, pass.count);
        } else {
            buffers_->HandOver();
        }
        buffers_->Close();
    }

    // dQ sum (+)= part of rows [row, row + count) of the Q tile; the last sum -> GM dq
    __aicore__ inline void QueryPass(const GradTask& task, uint32_t row, uint32_t count) {
        const uint32_t d = tiling_->headDim;
        const uint64_t slot = task.index % tiling_->taskSlots * (tiling_->blockM * d);
        const uint64_t place = PlaceOf(tiling_, task.tile, task.rows, row) * d;
        const AscendC::LocalTensor<float> one = buffers_->One();
        buffers_->Open();
        AscendC::DataCopy(one, dQPart_[slot + row * d], count * d);
        if (!task.firstOfQ) AscendC::DataCopy(buffers_->Two(), dQSum_[place], count * d);
        buffers_->Ready();
        if (!task.firstOfQ) {
            AscendC::Add(one, buffers_->Two(), one, count * d);
            AscendC::PipeBarrier<PIPE_V>();
        }
        if (task.lastOfQ) {
            const AscendC::LocalTensor<T> rounded = buffers_->RoundOne(count * d);
            buffers_->HandOver();
            CopyRowsOut(dQ_, rounded, layout_, task.item.qToken, task.item.group,
                        task.tile * tiling_->blockM + row, count);
        } else {
            buffers_->HandOver();
            AscendC::DataCopy(dQSum_[place], one, count * d);
        }
        buffers_->Close();
    }

    // UB (count, headDim) -> GM dk or dv, keys from `row` of the K/V tile on
    __aicore__ inline void CopyOutKeys(const AscendC::GlobalTensor<T>& dst,
                                       const AscendC::LocalTensor<T>& src, const GradTask& task,
                                       uint32_t row, uint32_t count) {
        const uint32_t d = tiling_->headDim;
        const uint64_t token = static_cast<uint64_t>(task.item.kvToken) + task.kvStart + row;
        AscendC::DataCopyExtParams params;
        params.blockCount = count;
        params.blockLen = d * sizeof(T);
        params.srcStride = 0;
        params.dstStride = (tiling_->numKvHeads - 1) * d * sizeof(T);
        AscendC::DataCopyPad(dst[(token * tiling_->numKvHeads + task.item.group) * d], src, params);
    }

    const FlashAttentionGradTilingData* tiling_ = nullptr;
    Buffers* buffers_ = nullptr;
    RowLayout layout_ = {};
    AscendC::GlobalTensor<T> dQ_;
    AscendC::GlobalTensor<T> dK_;
    AscendC::GlobalTensor<T> dV_;
    AscendC::GlobalTensor<float> dVPart_;
    AscendC::GlobalTensor<float> dKPart_;
    AscendC::GlobalTensor<float> dQPart_;
    AscendC::GlobalTensor<float> dQSum_;  // by place
    AscendC::LocalTensor<float> dVUb_;    // (blockN / 2, headDim)
    AscendC::LocalTensor<float> dKUb_;    // the same
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_SUMS_H_
