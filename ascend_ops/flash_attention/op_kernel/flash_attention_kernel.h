// FlashAttention on one core: AIC and its two AIVs work off the same stream of tasks.
//
// AIC for task t: C1(t) = Q K^T, then C2(t-2) = P V. AIV for task t: V1(t) = softmax, then
// V2(t-2) = accumulate. AIC is two tasks ahead, so three workspace slots a core are enough (with
// one slot, where AIC and AIV take turns, read t-2 as t and t+3 as t+1):
// - S(t+3) is written after AIC waited for P(t), which AIV set after it had read S(t);
// - P(t+3) is written after AIV waited for S(t+3), whose Fixpipe follows C2(t) in program order;
// - O(t+3) is written after AIC waited for P(t+3), which AIV set after V2(t) had read O(t). An AIV
//   without rows in task t+3 sets P(t+3) at once, but then that tile has eight rows at most, and
//   this AIV's rows of O(t) lie behind them.
//
// Where keys are split, what the parts of a Q tile come to lies in the workspace of all cores, and
// the AIVs meet before they add it up. For SyncAll the hardware needs all cores at once: no more
// than there are (numCores), and started together (flash_attention_def.cpp), or two streams may
// each hold cores that the other waits for.
#ifndef ASCEND_OPS_FLASH_ATTENTION_KERNEL_H_
#define ASCEND_OPS_FLASH_ATTENTION_KERNEL_H_

#include "flash_attention/op_kernel/flash_attention_combine.h"
#include "flash_attention/op_kernel/flash_attention_cube.h"
#include "flash_attention/op_kernel/flash_attention_sequences.h"
#include "flash_attention/op_kernel/flash_attention_tasks.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"
#include "flash_attention/op_kernel/flash_attention_vector.h"
#include "kernel_operator.h"

namespace ascend_ops {

struct FlashAttentionGm {
    GM_ADDR q;
    GM_ADDR kCache;
    GM_ADDR vCache;
    GM_ADDR blockTable;
    GM_ADDR cuSeqlensQ;
    GM_ADDR seqLenKv;
    GM_ADDR prefixLen;
    GM_ADDR o;
    GM_ADDR lse;
    GM_ADDR workspace;
};

// Q: element type of q and o; T: of the K/V cache.
template <typename Q, typename T>
class FlashAttentionKernel {
  public:
    __aicore__ inline void Init(const FlashAttentionTilingData* tiling,
                                const FlashAttentionGm& gm) {
        uint32_t core = static_cast<uint32_t>(AscendC::GetBlockIdx());
        if ASCEND_IS_AIV {
            core /= 2;
        }
        taskSlots_ = tiling->taskSlots;
        split_ = tiling->partRows > 0;
        GM_ADDR workspace = gm.workspace + core * tiling->workspaceBytes;
        stream_.Init(tiling, (__gm__ int32_t*)gm.cuSeqlensQ, (__gm__ int32_t*)gm.seqLenKv,
                     (__gm__ int32_t*)gm.prefixLen, core);
        if ASCEND_IS_AIC {
            cube_.Init(tiling, (__gm__ T*)gm.q, (__gm__ T*)gm.kCache, (__gm__ T*)gm.vCache,
                       (__gm__ int32_t*)gm.blockTable, workspace);
        }
        if ASCEND_IS_AIV {
            vector_.Init(tiling, (__gm__ Q*)gm.q, (__gm__ Q*)gm.o, (__gm__ float*)gm.lse,
                         gm.workspace, workspace);
            if (split_) {
                walk_.Init(tiling, (__gm__ int32_t*)gm.cuSeqlensQ, (__gm__ int32_t*)gm.seqLenKv,
                           (__gm__ int32_t*)gm.prefixLen);
                combine_.Init(tiling, (__gm__ Q*)gm.o, (__gm__ float*)gm.lse, gm.workspace);
            }
        }
    }

    __aicore__ inline void Process() {
        if ASCEND_IS_AIC {
            cube_.Begin();
            Pipeline(cube_);
            cube_.End();
        }
        if ASCEND_IS_AIV {
            vector_.Begin();
            Pipeline(vector_);
            vector_.End();
            if (split_) {
                AscendC::PipeBarrier<PIPE_ALL>();
                AscendC::SyncAll<true>();
                combine_.Process(walk_);
            }
        }
    }

  private:
    using Cube = FlashAttentionCube<T, !IsSame<Q, T>::kValue>;
    using Vector = FlashAttentionVector<Q, T>;

    // Stage one of task t, then stage two of task t - 2; at the end stage two of the last two.
    template <typename Side>
    __aicore__ inline void Pipeline(Side& side) {
        AttentionTask ring[kMaxTaskSlots];
        uint32_t opened = 0;
        uint32_t closed = 0;
        while (stream_.Next(&ring[opened % kMaxTaskSlots])) {
            side.StageOne(ring[opened % kMaxTaskSlots]);
            ++opened;
            if (opened - closed == taskSlots_) side.StageTwo(ring[closed++ % kMaxTaskSlots]);
        }
        while (closed < opened) side.StageTwo(ring[closed++ % kMaxTaskSlots]);
    }

    uint32_t taskSlots_ = kMaxTaskSlots;
    bool split_ = false;
    TaskStream stream_;
    Cube cube_;
    Vector vector_;
    SequenceWalk walk_;  // of combine_
    FlashAttentionCombine<Q> combine_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_KERNEL_H_
