// Right: halves to floats, any number of them. DataCopyPad moves single bytes of GM; in UB every
// block starts at a multiple of 32.
#include "example.h"

using namespace AscendC;

constexpr uint32_t kTile = 8192;

extern "C" __global__ __aicore__ void ragged_cast(GM_ADDR x, GM_ADDR y, uint32_t count) {
    GlobalTensor<half> xGm;
    GlobalTensor<float> yGm;
    xGm.SetGlobalBuffer((__gm__ half*)x);
    yGm.SetGlobalBuffer((__gm__ float*)y);
    const LocalTensor<half> in(TPosition::VECIN, 0, kTile);
    const LocalTensor<float> out(TPosition::VECOUT, kTile * sizeof(half), kTile);
    InitSocState();
    SetFlag<HardEvent::V_MTE2>(0);
    SetFlag<HardEvent::MTE3_V>(0);
    for (uint32_t begin = 0; begin < count; begin += kTile) {
        const uint32_t elems = begin + kTile < count ? kTile : count - begin;
        DataCopyExtParams copy;
        WaitFlag<HardEvent::V_MTE2>(0);
        copy.blockLen = elems * sizeof(half);
        DataCopyPad(in, xGm[begin], copy, DataCopyPadExtParams<half>());
        SetFlag<HardEvent::MTE2_V>(0);
        WaitFlag<HardEvent::MTE2_V>(0);
        WaitFlag<HardEvent::MTE3_V>(0);
        Cast(out, in, RoundMode::CAST_NONE, elems);
        SetFlag<HardEvent::V_MTE2>(0);
        SetFlag<HardEvent::V_MTE3>(0);
        WaitFlag<HardEvent::V_MTE3>(0);
        copy.blockLen = elems * sizeof(float);
        DataCopyPad(yGm[begin], out, copy);
        SetFlag<HardEvent::MTE3_V>(0);
    }
    WaitFlag<HardEvent::V_MTE2>(0);
    WaitFlag<HardEvent::MTE3_V>(0);
    PipeBarrier<PIPE_ALL>();
}

int main() {
    const uint32_t count = 2 * kTile + 77;
    const Array<half> x = Numbers<half>(count, 1);
    Array<float> y(count), want(count);
    for (uint32_t i = 0; i < count; ++i) want[i] = static_cast<float>(x[i]);
    using ascend_twin::Use;
    const ascend_twin::Outcome outcome = ascend_twin::Run(
        {"ragged_cast", ascend_twin::KernelType::kAivOnly, 1},
        {Named("x", x, Use::kIn), Named("y", y, Use::kOut)},
        [&] { ragged_cast(ascend_twin::Gm(x.data()), ascend_twin::Gm(y.data()), count); });
    return Report(outcome, y, want);
}
