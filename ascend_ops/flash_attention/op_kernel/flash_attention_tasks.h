// The stream of tasks that one core works off: (sequence, KV group, Q tile) x K/V tiles.
#ifndef ASCEND_OPS_FLASH_ATTENTION_TASKS_H_
#define ASCEND_OPS_FLASH_ATTENTION_TASKS_H_

#include "common/op_kernel/tile_math.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// One K/V tile of one Q tile. AIC and AIV derive the same stream, each for itself.
struct AttentionTask {
    uint32_t index;  // position in this core's stream
    uint32_t item;   // Q tile in this core's stream
    uint32_t seq;
    uint32_t group;
    uint32_t token;    // first query token of the tile, row of q
    uint32_t rows;     // token x head
    int32_t position;  // of that token; negative where seq_len_kv < len_q
    uint32_t seqLenKv;
    uint32_t prefixLen;
    uint32_t kvStart;  // first key of the tile
    uint32_t kvRows;   // keys of the tile; 0 when the Q tile sees nothing
    bool first;        // of the Q tile
    bool last;
};

class TaskStream {
  public:
    __aicore__ inline void Init(const FlashAttentionTilingData* tiling, __gm__ int32_t* cuSeqlensQ,
                                __gm__ int32_t* seqLenKv, __gm__ int32_t* prefixLen,
                                uint32_t core) {
        tiling_ = tiling;
        core_ = core;
        cuSeqlensQ_.SetGlobalBuffer(cuSeqlensQ);
        seqLenKv_.SetGlobalBuffer(seqLenKv);
        prefixLen_.SetGlobalBuffer(prefixLen);
        LoadSequence();
    }

    // Fills the next task; false when this core's stream has ended.
    __aicore__ inline bool Next(AttentionTask* task) {
        if (!inItem_ && !NextItem()) return false;
        task_.index = taskCount_++;
        task_.first = task_.kvStart == kvBegin_;
        task_.kvRows = kvEnd_ > task_.kvStart ? MinOf(tiling_->blockN, kvEnd_ - task_.kvStart) : 0;
        task_.last = task_.kvStart + task_.kvRows >= kvEnd_;
        *task = task_;
        inItem_ = !task_.last;
        task_.kvStart += tiling_->blockN;
        return true;
    }

  private:
    __aicore__ inline void LoadSequence() {
        while (seq_ < tiling_->numSeqs) {
            tokenBegin_ = static_cast<uint32_t>(cuSeqlensQ_.GetValue(seq_));
            seqTokens_ = static_cast<uint32_t>(cuSeqlensQ_.GetValue(seq_ + 1)) - tokenBegin_;
            if (seqTokens_ > 0) break;
            ++seq_;
        }
        blocks_ = CeilDiv(seqTokens_, tiling_->tokensPerBlock);
        block_ = 0;
        group_ = 0;
    }

    // Deals the Q tiles of all sequences and groups to the cores in turn, and takes this core's
    // next.
    __aicore__ inline bool NextItem() {
        while (seq_ < tiling_->numSeqs) {
            const bool mine = dealt_++ % tiling_->numCores == core_;
            if (mine) OpenItem();
            if (++block_ == blocks_) {
                block_ = 0;
                if (++group_ == tiling_->numKvHeads) {
                    ++seq_;
                    LoadSequence();
                }
            }
            if (mine) return true;
        }
        return false;
    }

    __aicore__ inline void OpenItem() {
        // The last Q tile of a causal sequence sees most: deal the long ones first.
        const uint32_t firstToken = (blocks_ - 1 - block_) * tiling_->tokensPerBlock;
        const uint32_t tokens = MinOf(tiling_->tokensPerBlock, seqTokens_ - firstToken);
        task_.item = itemCount_++;
        task_.seq = seq_;
        task_.group = group_;
        task_.token = tokenBegin_ + firstToken;
        task_.rows = tokens * tiling_->groupSize;
        task_.seqLenKv = static_cast<uint32_t>(seqLenKv_.GetValue(seq_));
        task_.prefixLen = 0;
        if (tiling_->hasPrefix != 0) {
            task_.prefixLen = static_cast<uint32_t>(prefixLen_.GetValue(seq_));
        }
        task_.position = static_cast<int32_t>(task_.seqLenKv) - static_cast<int32_t>(seqTokens_) +
                         static_cast<int32_t>(firstToken);
        SetKvRange(task_.position + static_cast<int32_t>(tokens) - 1);
        task_.kvStart = kvBegin_;
        inItem_ = true;
    }

    // [kvBegin_, kvEnd_): keys that some row of the Q tile sees, from a multiple of blockN on.
    __aicore__ inline void SetKvRange(int32_t lastPosition) {
        const int32_t len = static_cast<int32_t>(task_.seqLenKv);
        const int32_t window = static_cast<int32_t>(tiling_->window);
        int32_t end = len;
        if (tiling_->causal != 0) {
            end = MinOf(end, lastPosition + 1);
        } else if (window != 0) {
            end = MinOf(end, MinOf(lastPosition, len) + window);
        }
        end = MaxOf(end, static_cast<int32_t>(task_.prefixLen));
        int32_t begin = 0;
        if (window != 0 && task_.prefixLen == 0) begin = MaxOf(0, task_.position - window + 1);
        kvEnd_ = static_cast<uint32_t>(MaxOf(end, 0));
        kvBegin_ = static_cast<uint32_t>(begin) / tiling_->blockN * tiling_->blockN;
    }

    const FlashAttentionTilingData* tiling_ = nullptr;
    uint32_t core_ = 0;
    AscendC::GlobalTensor<int32_t> cuSeqlensQ_;
    AscendC::GlobalTensor<int32_t> seqLenKv_;
    AscendC::GlobalTensor<int32_t> prefixLen_;
    uint32_t seq_ = 0;
    uint32_t group_ = 0;
    uint32_t block_ = 0;
    uint32_t blocks_ = 0;
    uint32_t tokenBegin_ = 0;
    uint32_t seqTokens_ = 0;
    uint32_t dealt_ = 0;
    uint32_t itemCount_ = 0;
    uint32_t taskCount_ = 0;
    uint32_t kvBegin_ = 0;
    uint32_t kvEnd_ = 0;
    bool inItem_ = false;
    AttentionTask task_ = {};
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_TASKS_H_
