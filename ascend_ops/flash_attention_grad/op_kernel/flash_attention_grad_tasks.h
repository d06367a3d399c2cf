// The stream of tasks that one core works off: (sequence, KV group) x K/V tiles x Q tiles.
#ifndef ASCEND_OPS_FLASH_ATTENTION_GRAD_TASKS_H_
#define ASCEND_OPS_FLASH_ATTENTION_GRAD_TASKS_H_

#include "common/op_kernel/tile_math.h"
#include "flash_attention_grad/op_kernel/flash_attention_grad_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

// One sequence and KV group: what a core owns as a whole. Its rows are token x head of the group.
struct GradItem {
    uint32_t group;
    uint32_t qToken;   // first query token of the sequence, row of q
    uint32_t kvToken;  // first key of the sequence, row of k
    uint32_t tokens;
    uint32_t seqLenKv;
    uint32_t prefixLen;
    uint32_t rows;
    uint32_t tiles;  // Q tiles
};

// One Q tile and one K/V tile that it sees. AIC and AIV derive the same stream, each for itself.
struct GradTask {
    GradItem item;
    uint32_t index;    // position in this core's stream
    uint32_t tile;     // Q tile of the item
    uint32_t rows;     // of that tile; 0 where no Q tile sees the K/V tile
    uint32_t kvStart;  // first key of the K/V tile
    uint32_t kvRows;   // keys of the K/V tile; 0 where the sequence has none
    bool firstOfItem;
    bool firstOfKv;  // first task of the K/V tile
    bool lastOfKv;
    bool firstOfQ;  // first task that touches the Q tile
    bool lastOfQ;
};

// Keys that a Q tile sees: [0, prefix) and [lo, hi), which may be empty.
struct VisibleKeys {
    int32_t prefix;
    int32_t lo;
    int32_t hi;
};

// Position of row `row` of the item; negative where the sequence has fewer keys than tokens.
__aicore__ inline int32_t PositionOf(const FlashAttentionGradTilingData* tiling,
                                     const GradItem& item, uint32_t row) {
    return static_cast<int32_t>(item.seqLenKv) - static_cast<int32_t>(item.tokens) +
           static_cast<int32_t>(row / tiling->groupSize);
}

// Keys that some query at a position from `first` to `last` sees.
__aicore__ inline VisibleKeys VisibleFrom(const FlashAttentionGradTilingData* tiling,
                                          const GradItem& item, int32_t first, int32_t last) {
    const int32_t len = static_cast<int32_t>(item.seqLenKv);
    const int32_t window = static_cast<int32_t>(tiling->window);
    VisibleKeys keys = {static_cast<int32_t>(item.prefixLen), 0, len};
    if (tiling->causal != 0) {
        keys.hi = MinOf(len, last + 1);
    } else if (window != 0) {
        keys.hi = MinOf(len, MinOf(last, len) + window);
    }
    if (window != 0) keys.lo = MaxOf(0, first - window + 1);
    if (keys.hi <= keys.lo) keys.hi = keys.lo = 0;
    return keys;
}

__aicore__ inline VisibleKeys VisibleToTile(const FlashAttentionGradTilingData* tiling,
                                            const GradItem& item, uint32_t tile) {
    const uint32_t begin = tile * tiling->blockM;
    const uint32_t end = MinOf(begin + tiling->blockM, item.rows);
    return VisibleFrom(tiling, item, PositionOf(tiling, item, begin),
                       PositionOf(tiling, item, end - 1));
}

__aicore__ inline bool SeesNothing(const VisibleKeys& keys) {
    return MaxOf(keys.prefix, keys.hi) == 0;
}

class GradTaskStream {
  public:
    __aicore__ inline void Init(const FlashAttentionGradTilingData* tiling,
                                __gm__ int32_t* cuSeqlensQ, __gm__ int32_t* cuSeqlensKv,
                                __gm__ int32_t* prefixLen, uint32_t core) {
        tiling_ = tiling;
        core_ = core;
        cuSeqlensQ_.SetGlobalBuffer(cuSeqlensQ);
        cuSeqlensKv_.SetGlobalBuffer(cuSeqlensKv);
        prefixLen_.SetGlobalBuffer(prefixLen);
    }

    // Fills the next task; false when this core's stream has ended.
    __aicore__ inline bool Next(GradTask* task) {
        if (!inItem_ && !NextItem()) return false;
        task_.index = count_++;
        task_.tile = tile_;
        task_.rows = 0;
        task_.firstOfQ = false;
        task_.lastOfQ = false;
        uint32_t next = item_.tiles;
        if (tile_ < item_.tiles) {
            const VisibleKeys keys = VisibleToTile(tiling_, item_, tile_);
            const uint32_t blockN = tiling_->blockN;
            const uint32_t first = keys.prefix > 0 ? 0 : static_cast<uint32_t>(keys.lo);
            const uint32_t end = static_cast<uint32_t>(MaxOf(keys.prefix, keys.hi));
            task_.rows = MinOf(tiling_->blockM, item_.rows - tile_ * tiling_->blockM);
            task_.firstOfQ = task_.kvStart / blockN == first / blockN;
            task_.lastOfQ = task_.kvStart / blockN == (end - 1) / blockN;
            next = FindTile(tile_ + 1);
        }
        task_.lastOfKv = next == item_.tiles;
        *task = task_;
        task_.firstOfItem = false;
        task_.firstOfKv = task_.lastOfKv;
        tile_ = next;
        if (task_.lastOfKv) OpenKvTile(task_.kvStart + tiling_->blockN);
        return true;
    }

  private:
    // Deals the sequences' groups to the cores in turn, and takes this core's next.
    __aicore__ inline bool NextItem() {
        for (; seq_ < tiling_->numSeqs; ++seq_, group_ = 0) {
            LoadSequence();
            for (; group_ < tiling_->numKvHeads && item_.tokens + item_.seqLenKv > 0; ++group_) {
                if (dealt_++ % tiling_->numCores != core_) continue;
                OpenItem();
                ++group_;
                return true;
            }
        }
        return false;
    }

    __aicore__ inline void LoadSequence() {
        item_.qToken = static_cast<uint32_t>(cuSeqlensQ_.GetValue(seq_));
        item_.tokens = static_cast<uint32_t>(cuSeqlensQ_.GetValue(seq_ + 1)) - item_.qToken;
        item_.kvToken = static_cast<uint32_t>(cuSeqlensKv_.GetValue(seq_));
        item_.seqLenKv = static_cast<uint32_t>(cuSeqlensKv_.GetValue(seq_ + 1)) - item_.kvToken;
        item_.prefixLen = 0;
        if (tiling_->hasPrefix != 0) {
            item_.prefixLen = static_cast<uint32_t>(prefixLen_.GetValue(seq_));
        }
        item_.rows = item_.tokens * tiling_->groupSize;
        item_.tiles = CeilDiv(item_.rows, tiling_->blockM);
    }

    __aicore__ inline void OpenItem() {
        item_.group = group_;
        task_.item = item_;
        task_.firstOfItem = true;
        task_.firstOfKv = true;
        OpenKvTile(0);
        inItem_ = true;  // a sequence without keys has one task all the same
    }

    __aicore__ inline void OpenKvTile(uint32_t start) {
        inItem_ = start < item_.seqLenKv;
        task_.kvStart = start;
        task_.kvRows = inItem_ ? MinOf(tiling_->blockN, item_.seqLenKv - start) : 0;
        tile_ = inItem_ ? FindTile(0) : item_.tiles;
    }

    // The first Q tile from `tile` on that sees a key of the K/V tile; item_.tiles if none does.
    __aicore__ inline uint32_t FindTile(uint32_t tile) {
        const int32_t begin = static_cast<int32_t>(task_.kvStart);
        const int32_t end = begin + static_cast<int32_t>(task_.kvRows);
        for (; tile < item_.tiles; ++tile) {
            const VisibleKeys keys = VisibleToTile(tiling_, item_, tile);
            if (begin < keys.prefix || (begin < keys.hi && end > keys.lo)) break;
        }
        return tile;
    }

    const FlashAttentionGradTilingData* tiling_ = nullptr;
    uint32_t core_ = 0;
    AscendC::GlobalTensor<int32_t> cuSeqlensQ_;
    AscendC::GlobalTensor<int32_t> cuSeqlensKv_;
    AscendC::GlobalTensor<int32_t> prefixLen_;
    uint32_t seq_ = 0;
    uint32_t group_ = 0;
    uint32_t dealt_ = 0;
    uint32_t count_ = 0;
    uint32_t tile_ = 0;
    bool inItem_ = false;
    GradItem item_ = {};
    GradTask task_ = {};
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_GRAD_TASKS_H_
