// The stream of tasks that one core works off: (sequence, part of its keys, KV group, Q tile) x K/V
// tiles.
#ifndef ASCEND_OPS_FLASH_ATTENTION_TASKS_H_
#define ASCEND_OPS_FLASH_ATTENTION_TASKS_H_

#include "common/op_kernel/tile_math.h"
#include "flash_attention/op_kernel/flash_attention_sequences.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// One K/V tile of one Q tile. AIC and AIV derive the same stream, each for itself. An item is a Q
// tile with all of its keys, or with one part of them.
struct AttentionTask {
    uint32_t index;  // position in this core's stream
    uint32_t item;   // the same of the item
    uint32_t seq;
    uint32_t group;
    uint32_t token;    // first query token of the tile, row of q
    uint32_t rows;     // token x head
    int32_t position;  // of that token; negative where seq_len_kv < len_q
    uint32_t seqLenKv;
    uint32_t prefixLen;
    uint32_t kvStart;  // first key of the tile
    uint32_t kvRows;   // keys of the tile; 0 when the Q tile sees nothing
    bool first;        // of the item
    bool last;
    bool whole;        // the item has all keys: its result goes to o and lse, not to the workspace
    uint32_t partRow;  // else to this row of the parts
};

class TaskStream {
  public:
    __aicore__ inline void Init(const FlashAttentionTilingData* tiling, __gm__ int32_t* cuSeqlensQ,
                                __gm__ int32_t* seqLenKv, __gm__ int32_t* prefixLen,
                                uint32_t core) {
        tiling_ = tiling;
        core_ = core;
        walk_.Init(tiling, cuSeqlensQ, seqLenKv, prefixLen);
    }

    // Fills the next task; false when this core's stream has ended.
    __aicore__ inline bool Next(AttentionTask* task) {
        if (!inItem_ && !NextItem()) return false;
        task_.index = taskCount_++;
        task_.first = task_.kvStart == keys_.begin;
        task_.kvRows =
            keys_.end > task_.kvStart ? MinOf(tiling_->blockN, keys_.end - task_.kvStart) : 0;
        task_.last = task_.kvStart + task_.kvRows >= keys_.end;
        *task = task_;
        inItem_ = !task_.last;
        task_.kvStart += tiling_->blockN;
        return true;
    }

  private:
    // Deals the items of all sequences to the cores, and takes this core's next. The order of cores
    // turns about with every round, or the first one would get the longest item of each. The groups
    // of a part follow one another: their keys are as many.
    __aicore__ inline bool NextItem() {
        while (!walk_.Done()) {
            const bool mine = position_ == (forth_ ? core_ : tiling_->numCores - 1 - core_);
            if (++position_ == tiling_->numCores) {
                position_ = 0;
                forth_ = !forth_;
            }
            if (mine) OpenItem();
            if (++block_ == walk_.Current().blocks) {
                block_ = 0;
                if (++group_ == tiling_->numKvHeads) {
                    group_ = 0;
                    if (++part_ == walk_.Current().parts) {
                        part_ = 0;
                        walk_.Advance();
                    }
                }
            }
            if (mine) return true;
        }
        return false;
    }

    __aicore__ inline void OpenItem() {
        const AttentionSequence& sequence = walk_.Current();
        // The last Q tile of a causal sequence sees most: deal the long ones first.
        const uint32_t firstToken = (sequence.blocks - 1 - block_) * tiling_->tokensPerBlock;
        const uint32_t tokens = MinOf(tiling_->tokensPerBlock, sequence.tokens - firstToken);
        task_.item = itemCount_++;
        task_.seq = sequence.index;
        task_.group = group_;
        task_.token = sequence.tokenBegin + firstToken;
        task_.rows = tokens * tiling_->groupSize;
        task_.seqLenKv = sequence.seqLenKv;
        task_.prefixLen = sequence.prefixLen;
        task_.position = walk_.Position(firstToken);
        keys_ = walk_.RangeOf(firstToken, tokens);
        task_.whole = sequence.parts == 1;
        if (!task_.whole) {
            const uint32_t start = (sequence.firstPart + part_) * tiling_->splitKeys;
            keys_.begin = MaxOf(keys_.begin, start);
            keys_.end = MinOf(keys_.end, start + tiling_->splitKeys);
            task_.partRow = walk_.PartRow(part_, group_);
        }
        task_.kvStart = keys_.begin;
        inItem_ = true;
    }

    const FlashAttentionTilingData* tiling_ = nullptr;
    uint32_t core_ = 0;
    SequenceWalk walk_;
    uint32_t part_ = 0;
    uint32_t group_ = 0;
    uint32_t block_ = 0;
    uint32_t position_ = 0;  // in the round that is being dealt
    bool forth_ = true;
    uint32_t itemCount_ = 0;
    uint32_t taskCount_ = 0;
    KeyRange keys_ = {0, 0};
    bool inItem_ = false;
    AttentionTask task_ = {};
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_TASKS_H_
