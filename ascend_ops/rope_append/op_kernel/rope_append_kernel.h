// rope_append on one vector core: rotates q and k of its tokens, writes k and v to their pages.
#ifndef ASCEND_OPS_ROPE_APPEND_KERNEL_H_
#define ASCEND_OPS_ROPE_APPEND_KERNEL_H_

#include "common/op_kernel/tile_math.h"
#include "common/op_kernel/ub_space.h"
#include "kernel_operator.h"
#include "rope_append/op_kernel/rope_append_tiling_data.h"

namespace ascend_ops {

struct RopeAppendGm {
    GM_ADDR qkv;
    GM_ADDR cos;
    GM_ADDR sin;
    GM_ADDR kCache;
    GM_ADDR vCache;
    GM_ADDR blockTable;
    GM_ADDR cuSeqlensQ;
    GM_ADDR seqLenKv;
    GM_ADDR q;
};

// Q: element type of qkv and q. T: of the K/V cache. The rotation is computed in float:
//   out[2i]     = x[2i] cos_i - x[2i+1] sin_i
//   out[2i + 1] = x[2i+1] cos_i + x[2i] sin_i
// as x * cosFull + swap(x) * sinFull, where swap exchanges the two of a pair and sinFull carries
// the signs.
template <typename Q, typename T>
class RopeAppendKernel {
  public:
    __aicore__ inline void Init(const RopeAppendTilingData* tiling, const RopeAppendGm& gm) {
        tiling_ = tiling;
        qkv_.SetGlobalBuffer((__gm__ Q*)gm.qkv);
        q_.SetGlobalBuffer((__gm__ Q*)gm.q);
        cos_.SetGlobalBuffer((__gm__ float*)gm.cos);
        sin_.SetGlobalBuffer((__gm__ float*)gm.sin);
        kCache_.SetGlobalBuffer((__gm__ T*)gm.kCache);
        vCache_.SetGlobalBuffer((__gm__ T*)gm.vCache);
        blockTable_.SetGlobalBuffer((__gm__ int32_t*)gm.blockTable);
        cuSeqlensQ_.SetGlobalBuffer((__gm__ int32_t*)gm.cuSeqlensQ);
        seqLenKv_.SetGlobalBuffer((__gm__ int32_t*)gm.seqLenKv);

        const uint32_t elems = tiling->headsPerPass * tiling->headDim;
        rawUb_ = ub_.Take<Q>(elems);
        xUb_ = ub_.Take<float>(elems);
        outUb_ = ub_.Take<T>(elems);
        swapUb_ = ub_.Take<float>(tiling->headsPerPass * tiling->rotaryDim);
        cosRawUb_ = ub_.Take<float>(tiling->rotaryDim);
        sinRawUb_ = ub_.Take<float>(tiling->rotaryDim);
        cosUb_ = ub_.Take<float>(tiling->rotaryDim);
        sinUb_ = ub_.Take<float>(tiling->rotaryDim);
        signUb_ = ub_.Take<float>(tiling->rotaryDim);
        pairOffsetUb_ = ub_.Take<uint32_t>(tiling->rotaryDim);
        swapOffsetUb_ = ub_.Take<uint32_t>(tiling->rotaryDim);
    }

    __aicore__ inline void Process() {
        const uint32_t core = static_cast<uint32_t>(AscendC::GetBlockIdx());
        const uint32_t perCore = CeilDiv(tiling_->numTokens, tiling_->numCores);
        const uint32_t begin = MinOf(core * perCore, tiling_->numTokens);
        const uint32_t end = MinOf(begin + perCore, tiling_->numTokens);
        FillPatterns();
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(kEvent);
        uint32_t seq = 0;
        for (uint32_t token = begin; token < end; ++token) {
            while (static_cast<uint32_t>(cuSeqlensQ_.GetValue(seq + 1)) <= token) ++seq;
            const uint32_t seqEnd = static_cast<uint32_t>(cuSeqlensQ_.GetValue(seq + 1));
            const uint32_t position =
                static_cast<uint32_t>(seqLenKv_.GetValue(seq)) - (seqEnd - token);
            ProcessToken(token, seq, position);
        }
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(kEvent);
    }

  private:
    static constexpr int32_t kEvent = 0;

    // Byte offsets of the pair's angle and of the pair's other element, and the signs of sin.
    __aicore__ inline void FillPatterns() {
        for (uint32_t i = 0; i < tiling_->rotaryDim; ++i) {
            pairOffsetUb_.SetValue(i, i / 2 * static_cast<uint32_t>(sizeof(float)));
            swapOffsetUb_.SetValue(i, (i ^ 1u) * static_cast<uint32_t>(sizeof(float)));
            signUb_.SetValue(i, i % 2 == 0 ? -1.0f : 1.0f);
        }
        AscendC::SetFlag<AscendC::HardEvent::S_V>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::S_V>(kEvent);
    }

    __aicore__ inline void ProcessToken(uint32_t token, uint32_t seq, uint32_t position) {
        const uint32_t d = tiling_->headDim;
        const uint32_t heads = tiling_->numHeads;
        const uint32_t kvHeads = tiling_->numKvHeads;
        const uint64_t row = static_cast<uint64_t>(token) * (heads + 2 * kvHeads) * d;
        const uint64_t page = static_cast<uint64_t>(blockTable_.GetValue(
            static_cast<uint64_t>(seq) * tiling_->maxPages + position / tiling_->pageSize));
        const uint64_t slot =
            (page * kvHeads * tiling_->pageSize + position % tiling_->pageSize) * d;
        bool angles = tiling_->rotaryDim > 0;  // still to be loaded
        for (uint32_t head = 0; head < heads; head += tiling_->headsPerPass) {
            const uint32_t count = MinOf(tiling_->headsPerPass, heads - head);
            CopyIn(row + head * d, count, position, angles);
            angles = false;
            Rotate(count);
            CopyOutQ((static_cast<uint64_t>(token) * heads + head) * d, count);
        }
        for (uint32_t head = 0; head < kvHeads; head += tiling_->headsPerPass) {
            const uint32_t count = MinOf(tiling_->headsPerPass, kvHeads - head);
            const uint64_t offset = slot + static_cast<uint64_t>(head) * tiling_->pageSize * d;
            CopyIn(row + (heads + head) * d, count, position, false);
            Rotate(count);
            CopyOutCache(kCache_[offset], count);
            CopyIn(row + (heads + kvHeads + head) * d, count, position, false);
            CopyOutCache(vCache_[offset], count);
        }
    }

    // GM qkv (count, headDim) -> UB x in float; with `angles` also GM cos, sin of the position
    __aicore__ inline void CopyIn(uint64_t offset, uint32_t count, uint32_t position, bool angles) {
        const uint32_t elems = count * tiling_->headDim;
        AscendC::WaitFlag<AscendC::HardEvent::MTE3_MTE2>(kEvent);
        if constexpr (IsSame<Q, float>::kValue) {
            AscendC::DataCopy(xUb_, qkv_[offset], elems);
        } else {
            AscendC::DataCopy(rawUb_, qkv_[offset], elems);
        }
        if (angles) {
            const uint32_t half = tiling_->rotaryDim / 2;
            AscendC::DataCopyExtParams params;
            params.blockCount = 1;
            params.blockLen = half * sizeof(float);
            AscendC::DataCopyPadExtParams<float> pad;
            AscendC::DataCopyPad(cosRawUb_, cos_[static_cast<uint64_t>(position) * half], params,
                                 pad);
            AscendC::DataCopyPad(sinRawUb_, sin_[static_cast<uint64_t>(position) * half], params,
                                 pad);
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE2_V>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_V>(kEvent);
        if constexpr (!IsSame<Q, float>::kValue) {
            AscendC::Cast(xUb_, rawUb_, AscendC::RoundMode::CAST_NONE, elems);
        }
        if (angles) {
            AscendC::Gather(cosUb_, cosRawUb_, pairOffsetUb_, 0u, tiling_->rotaryDim);
            AscendC::Gather(sinUb_, sinRawUb_, pairOffsetUb_, 0u, tiling_->rotaryDim);
            AscendC::PipeBarrier<PIPE_V>();
            AscendC::Mul(sinUb_, sinUb_, signUb_, tiling_->rotaryDim);
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

    // x[:, :rotaryDim] = x * cos + swap(x) * sin
    __aicore__ inline void Rotate(uint32_t count) {
        const uint32_t rotary = tiling_->rotaryDim;
        if (rotary == 0) return;
        const uint8_t rowPitch = tiling_->headDim / kFloatsPerBlock;
        const uint8_t swapPitch = rotary / kFloatsPerBlock;
        for (uint32_t head = 0; head < count; ++head) {
            const uint32_t base = head * tiling_->headDim * static_cast<uint32_t>(sizeof(float));
            AscendC::Gather(swapUb_[head * rotary], xUb_, swapOffsetUb_, base, rotary);
        }
        AscendC::PipeBarrier<PIPE_V>();
        for (uint32_t col = 0; col < rotary; col += kFloatsPerRepeat) {
            const uint64_t mask = MinOf(kFloatsPerRepeat, rotary - col);
            AscendC::Mul(swapUb_[col], swapUb_[col], sinUb_[col], mask, count,
                         {1, 1, 1, swapPitch, swapPitch, 0});
            AscendC::Mul(xUb_[col], xUb_[col], cosUb_[col], mask, count,
                         {1, 1, 1, rowPitch, rowPitch, 0});
            AscendC::PipeBarrier<PIPE_V>();
            AscendC::Add(xUb_[col], xUb_[col], swapUb_[col], mask, count,
                         {1, 1, 1, rowPitch, rowPitch, swapPitch});
        }
        AscendC::PipeBarrier<PIPE_V>();
    }

    // UB x (count, headDim) -> GM q
    __aicore__ inline void CopyOutQ(uint64_t offset, uint32_t count) {
        const uint32_t elems = count * tiling_->headDim;
        if constexpr (!IsSame<Q, float>::kValue) {
            AscendC::Cast(rawUb_, xUb_, AscendC::RoundMode::CAST_RINT, elems);
        }
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kEvent);
        if constexpr (IsSame<Q, float>::kValue) {
            AscendC::DataCopy(q_[offset], xUb_, elems);
        } else {
            AscendC::DataCopy(q_[offset], rawUb_, elems);
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(kEvent);
    }

    // UB x (count, headDim) -> GM cache: one row in each head's part of the page
    __aicore__ inline void CopyOutCache(const AscendC::GlobalTensor<T>& dst, uint32_t count) {
        const uint32_t rowBytes = tiling_->headDim * static_cast<uint32_t>(sizeof(T));
        AscendC::DataCopyExtParams params;
        params.blockCount = count;
        params.blockLen = rowBytes;
        params.srcStride = 0;
        params.dstStride = (tiling_->pageSize - 1) * rowBytes;
        if constexpr (!IsSame<T, float>::kValue) {
            AscendC::Cast(outUb_, xUb_, AscendC::RoundMode::CAST_RINT, count * tiling_->headDim);
        }
        AscendC::SetFlag<AscendC::HardEvent::V_MTE3>(kEvent);
        AscendC::WaitFlag<AscendC::HardEvent::V_MTE3>(kEvent);
        if constexpr (IsSame<T, float>::kValue) {
            AscendC::DataCopyPad(dst, xUb_, params);
        } else {
            AscendC::DataCopyPad(dst, outUb_, params);
        }
        AscendC::SetFlag<AscendC::HardEvent::MTE3_MTE2>(kEvent);
    }

    const RopeAppendTilingData* tiling_ = nullptr;
    AscendC::GlobalTensor<Q> qkv_;
    AscendC::GlobalTensor<Q> q_;
    AscendC::GlobalTensor<float> cos_;
    AscendC::GlobalTensor<float> sin_;
    AscendC::GlobalTensor<T> kCache_;
    AscendC::GlobalTensor<T> vCache_;
    AscendC::GlobalTensor<int32_t> blockTable_;
    AscendC::GlobalTensor<int32_t> cuSeqlensQ_;
    AscendC::GlobalTensor<int32_t> seqLenKv_;
    AscendC::LocalTensor<Q> rawUb_;       // (headsPerPass, headDim), as it comes and as q goes
    AscendC::LocalTensor<float> xUb_;     // the same in float
    AscendC::LocalTensor<T> outUb_;       // the same as the cache takes it
    AscendC::LocalTensor<float> swapUb_;  // (headsPerPass, rotaryDim)
    AscendC::LocalTensor<float> cosRawUb_;
    AscendC::LocalTensor<float> sinRawUb_;
    AscendC::LocalTensor<float> cosUb_;
    AscendC::LocalTensor<float> sinUb_;
    AscendC::LocalTensor<float> signUb_;
    AscendC::LocalTensor<uint32_t> pairOffsetUb_;
    AscendC::LocalTensor<uint32_t> swapOffsetUb_;
    UbSpace ub_;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_ROPE_APPEND_KERNEL_H_
