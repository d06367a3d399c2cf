// Wrong: y = 2 x, where the vector unit does not wait for the copy. On a CPU, and on hardware on a
// good day, the copy is done by then.
#include "example.h"

using namespace AscendC;

constexpr uint32_t kTile = 4096;

extern "C" __global__ __aicore__ void missing_wait(GM_ADDR x, GM_ADDR y) {
    GlobalTensor<float> xGm, yGm;
    xGm.SetGlobalBuffer((__gm__ float*)x);
    yGm.SetGlobalBuffer((__gm__ float*)y);
    const LocalTensor<float> tile(TPosition::VECCALC, 0, kTile);
    InitSocState();
    DataCopy(tile, xGm, kTile);
    SetFlag<HardEvent::MTE2_V>(0);
    // wrong: WaitFlag<HardEvent::MTE2_V>(0) belongs here
    Muls(tile, tile, 2.0f, kTile);
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    DataCopy(yGm, tile, kTile);
    PipeBarrier<PIPE_ALL>();
}

int main() {
    const Array<float> x = Numbers<float>(kTile, 1);
    Array<float> y(kTile), want(kTile);
    for (uint32_t i = 0; i < kTile; ++i) want[i] = 2.0f * x[i];
    using ascend_twin::Use;
    const ascend_twin::Outcome outcome = ascend_twin::Run(
        {"missing_wait", ascend_twin::KernelType::kAivOnly, 1},
        {Named("x", x, Use::kIn), Named("y", y, Use::kOut)},
        [&] { missing_wait(ascend_twin::Gm(x.data()), ascend_twin::Gm(y.data())); });
    return Report(outcome, y, want);
}
