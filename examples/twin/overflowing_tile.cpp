// Wrong: y = 2 x through buffers of 192 KB, all that UB has. The top 8 KB are taken by some vector
// instructions: plan for 184.
#include "example.h"

using namespace AscendC;

constexpr uint32_t kTile = 24 * 1024;  // elements: 96 KB

extern "C" __global__ __aicore__ void overflowing_tile(GM_ADDR x, GM_ADDR y) {
    GlobalTensor<float> xGm, yGm;
    xGm.SetGlobalBuffer((__gm__ float*)x);
    yGm.SetGlobalBuffer((__gm__ float*)y);
    const LocalTensor<float> in(TPosition::VECIN, 0, kTile);
    const LocalTensor<float> out(TPosition::VECOUT, kTile * sizeof(float), kTile);  // wrong
    InitSocState();
    DataCopy(in, xGm, kTile);
    SetFlag<HardEvent::MTE2_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
    Muls(out, in, 2.0f, kTile);
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    DataCopy(yGm, out, kTile);
    PipeBarrier<PIPE_ALL>();
}

int main() {
    const Array<float> x = Numbers<float>(kTile, 1);
    Array<float> y(kTile), want(kTile);
    for (uint32_t i = 0; i < kTile; ++i) want[i] = 2.0f * x[i];
    using ascend_twin::Use;
    const ascend_twin::Outcome outcome = ascend_twin::Run(
        {"overflowing_tile", ascend_twin::KernelType::kAivOnly, 1},
        {Named("x", x, Use::kIn), Named("y", y, Use::kOut)},
        [&] { overflowing_tile(ascend_twin::Gm(x.data()), ascend_twin::Gm(y.data())); });
    return Report(outcome, y, want);
}
