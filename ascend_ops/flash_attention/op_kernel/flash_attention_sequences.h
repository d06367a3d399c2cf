// The sequences of a call: their Q tiles, the keys that these see, and the parts that a long range
// of keys is cut into.
#ifndef ASCEND_OPS_FLASH_ATTENTION_SEQUENCES_H_
#define ASCEND_OPS_FLASH_ATTENTION_SEQUENCES_H_

#include "common/op_kernel/tile_math.h"
#include "flash_attention/op_kernel/flash_attention_tiling_data.h"
#include "kernel_operator.h"

namespace ascend_ops {

struct AttentionSequence {
    uint32_t index;
    uint32_t tokenBegin;  // row of q
    uint32_t tokens;
    uint32_t blocks;  // Q tiles
    uint32_t seqLenKv;
    uint32_t prefixLen;
    uint32_t parts;      // of its keys; 1: they are not cut
    uint32_t firstPart;  // the first part's number: parts begin at multiples of splitKeys
    uint32_t partRow;    // the first part's first row in the workspace
};

struct KeyRange {
    uint32_t begin;
    uint32_t end;
};

// Goes through the sequences that have queries. Every core does so, each for itself.
class SequenceWalk {
  public:
    __aicore__ inline void Init(const FlashAttentionTilingData* tiling, __gm__ int32_t* cuSeqlensQ,
                                __gm__ int32_t* seqLenKv, __gm__ int32_t* prefixLen) {
        tiling_ = tiling;
        cuSeqlensQ_.SetGlobalBuffer(cuSeqlensQ);
        seqLenKv_.SetGlobalBuffer(seqLenKv);
        prefixLen_.SetGlobalBuffer(prefixLen);
        sequence_ = {};
        Load();
    }

    __aicore__ inline bool Done() const { return sequence_.index >= tiling_->numSeqs; }

    __aicore__ inline const AttentionSequence& Current() const { return sequence_; }

    __aicore__ inline void Advance() {
        if (sequence_.parts > 1) sequence_.partRow = PartRow(sequence_.parts, 0);
        ++sequence_.index;
        Load();
    }

    // Rows of the Q tile at `firstToken`, `tokens` long, see no key outside of this range, which
    // starts at a multiple of blockN.
    __aicore__ inline KeyRange RangeOf(uint32_t firstToken, uint32_t tokens) const {
        const int32_t len = static_cast<int32_t>(sequence_.seqLenKv);
        const int32_t window = static_cast<int32_t>(tiling_->window);
        const int32_t position = Position(firstToken);
        const int32_t last = position + static_cast<int32_t>(tokens) - 1;
        int32_t end = len;
        if (tiling_->causal != 0) {
            end = MinOf(end, last + 1);
        } else if (window != 0) {
            end = MinOf(end, MinOf(last, len) + window);
        }
        end = MaxOf(end, static_cast<int32_t>(sequence_.prefixLen));
        int32_t begin = 0;
        if (window != 0 && sequence_.prefixLen == 0) begin = MaxOf(0, position - window + 1);
        return {static_cast<uint32_t>(begin) / tiling_->blockN * tiling_->blockN,
                static_cast<uint32_t>(MaxOf(end, 0))};
    }

    // Of a token of the sequence; negative where seq_len_kv < len_q.
    __aicore__ inline int32_t Position(uint32_t token) const {
        return static_cast<int32_t>(sequence_.seqLenKv) - static_cast<int32_t>(sequence_.tokens) +
               static_cast<int32_t>(token);
    }

    // The first workspace row of a part of a group. Whole blocks of 32 bytes of statistics.
    __aicore__ inline uint32_t PartRow(uint32_t part, uint32_t group) const {
        const uint32_t rows = AlignUp(sequence_.tokens * tiling_->groupSize, kFloatsPerBlock);
        return sequence_.partRow + (part * tiling_->numKvHeads + group) * rows;
    }

  private:
    __aicore__ inline void Load() {
        while (!Done()) {
            sequence_.tokenBegin = static_cast<uint32_t>(cuSeqlensQ_.GetValue(sequence_.index));
            sequence_.tokens = static_cast<uint32_t>(cuSeqlensQ_.GetValue(sequence_.index + 1)) -
                               sequence_.tokenBegin;
            if (sequence_.tokens > 0) break;
            ++sequence_.index;
        }
        if (Done()) return;
        sequence_.blocks = CeilDiv(sequence_.tokens, tiling_->tokensPerBlock);
        sequence_.seqLenKv = static_cast<uint32_t>(seqLenKv_.GetValue(sequence_.index));
        sequence_.prefixLen = 0;
        if (tiling_->hasPrefix != 0) {
            sequence_.prefixLen = static_cast<uint32_t>(prefixLen_.GetValue(sequence_.index));
        }
        CutKeys();
    }

    __aicore__ inline void CutKeys() {
        sequence_.parts = 1;
        sequence_.firstPart = 0;
        if (tiling_->splitKeys == 0 || sequence_.tokens > tiling_->splitTokens) return;
        const KeyRange keys = RangeOf(0, sequence_.tokens);
        const uint32_t from = keys.begin / tiling_->splitKeys;
        const uint32_t to = CeilDiv(keys.end, tiling_->splitKeys);
        if (to <= from + 1) return;
        sequence_.parts = to - from;
        sequence_.firstPart = from;
    }

    const FlashAttentionTilingData* tiling_ = nullptr;
    AscendC::GlobalTensor<int32_t> cuSeqlensQ_;
    AscendC::GlobalTensor<int32_t> seqLenKv_;
    AscendC::GlobalTensor<int32_t> prefixLen_;
    AttentionSequence sequence_ = {};
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_FLASH_ATTENTION_SEQUENCES_H_
