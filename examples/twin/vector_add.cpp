// Right: z = x + y on several vector cores. Two buffers, so that one is filled while the other is
// added up and the one before it is written out.
#include "example.h"

using namespace AscendC;

constexpr uint32_t kTile = 4096;  // elements: 16 KB, a burst that GM likes
constexpr uint32_t kBuffers = 2;

class AddKernel {
  public:
    __aicore__ inline void Init(GM_ADDR x, GM_ADDR y, GM_ADDR z, uint32_t count) {
        x_.SetGlobalBuffer((__gm__ float*)x);
        y_.SetGlobalBuffer((__gm__ float*)y);
        z_.SetGlobalBuffer((__gm__ float*)z);
        count_ = count;
        for (uint32_t b = 0; b < kBuffers; ++b) {
            const uint32_t address = 2 * b * kTile * sizeof(float);
            xUb_[b] = LocalTensor<float>(TPosition::VECIN, address, kTile);
            yUb_[b] = LocalTensor<float>(TPosition::VECIN, address + kTile * sizeof(float), kTile);
        }
    }

    __aicore__ inline void Process() {
        InitSocState();
        // MTE3_MTE2: the buffer was written out, so it may be filled. At the start it may.
        for (uint32_t b = 0; b < kBuffers; ++b) SetFlag<HardEvent::MTE3_MTE2>(b);
        uint32_t step = 0;
        for (uint32_t begin = GetBlockIdx() * kTile; begin < count_;
             begin += GetBlockNum() * kTile, ++step) {
            const uint32_t b = step % kBuffers;
            const uint32_t elems = begin + kTile < count_ ? kTile : count_ - begin;
            CopyIn(b, begin, elems);
            Compute(b, elems);
            CopyOut(b, begin, elems);
        }
        // Every set has its wait: a flag that is left over would meet the next operator.
        for (uint32_t b = 0; b < kBuffers; ++b) WaitFlag<HardEvent::MTE3_MTE2>(b);
        PipeBarrier<PIPE_ALL>();
    }

  private:
    // GM x, y [begin : begin + elems] -> UB
    __aicore__ inline void CopyIn(uint32_t b, uint32_t begin, uint32_t elems) {
        WaitFlag<HardEvent::MTE3_MTE2>(b);
        DataCopyExtParams copy;
        copy.blockLen = elems * sizeof(float);
        DataCopyPad(xUb_[b], x_[begin], copy, DataCopyPadExtParams<float>());
        DataCopyPad(yUb_[b], y_[begin], copy, DataCopyPadExtParams<float>());
        SetFlag<HardEvent::MTE2_V>(b);
    }

    __aicore__ inline void Compute(uint32_t b, uint32_t elems) {
        WaitFlag<HardEvent::MTE2_V>(b);
        Add(xUb_[b], xUb_[b], yUb_[b], elems);
        SetFlag<HardEvent::V_MTE3>(b);
    }

    // UB -> GM z [begin : begin + elems]
    __aicore__ inline void CopyOut(uint32_t b, uint32_t begin, uint32_t elems) {
        WaitFlag<HardEvent::V_MTE3>(b);
        DataCopyExtParams copy;
        copy.blockLen = elems * sizeof(float);
        DataCopyPad(z_[begin], xUb_[b], copy);
        SetFlag<HardEvent::MTE3_MTE2>(b);
    }

    GlobalTensor<float> x_, y_, z_;
    LocalTensor<float> xUb_[kBuffers], yUb_[kBuffers];
    uint32_t count_ = 0;
};

extern "C" __global__ __aicore__ void vector_add(GM_ADDR x, GM_ADDR y, GM_ADDR z, uint32_t count) {
    AddKernel op;
    op.Init(x, y, z, count);
    op.Process();
}

int main() {
    const uint32_t count = 9 * kTile + 1000;
    const Array<float> x = Numbers<float>(count, 1), y = Numbers<float>(count, 2);
    Array<float> z(count), want(count);
    for (uint32_t i = 0; i < count; ++i) want[i] = x[i] + y[i];
    using ascend_twin::Use;
    const ascend_twin::Outcome outcome = ascend_twin::Run(
        {"vector_add", ascend_twin::KernelType::kAivOnly, 2},
        {Named("x", x, Use::kIn), Named("y", y, Use::kIn), Named("z", z, Use::kOut)}, [&] {
            using ascend_twin::Gm;
            vector_add(Gm(x.data()), Gm(y.data()), Gm(z.data()), count);
        });
    return Report(outcome, z, want);
}
