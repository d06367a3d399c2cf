// Wrong: y = 2 x through two buffers, each refilled one step early: when it was multiplied, not
// when it was written out.
#include "example.h"

using namespace AscendC;

constexpr uint32_t kTile = 4096, kTiles = 5;

extern "C" __global__ __aicore__ void early_reuse(GM_ADDR x, GM_ADDR y) {
    GlobalTensor<float> xGm, yGm;
    xGm.SetGlobalBuffer((__gm__ float*)x);
    yGm.SetGlobalBuffer((__gm__ float*)y);
    const LocalTensor<float> tiles[2] = {
        LocalTensor<float>(TPosition::VECCALC, 0, kTile),
        LocalTensor<float>(TPosition::VECCALC, kTile * sizeof(float), kTile)};
    InitSocState();
    for (int32_t b = 0; b < 2; ++b) SetFlag<HardEvent::V_MTE2>(b);
    for (uint32_t i = 0; i < kTiles; ++i) {
        const int32_t b = i % 2;
        WaitFlag<HardEvent::V_MTE2>(b);  // wrong: MTE3_MTE2, for MTE3 still reads the buffer
        DataCopy(tiles[b], xGm[i * kTile], kTile);
        SetFlag<HardEvent::MTE2_V>(b);
        WaitFlag<HardEvent::MTE2_V>(b);
        Muls(tiles[b], tiles[b], 2.0f, kTile);
        SetFlag<HardEvent::V_MTE2>(b);
        SetFlag<HardEvent::V_MTE3>(b);
        WaitFlag<HardEvent::V_MTE3>(b);
        DataCopy(yGm[i * kTile], tiles[b], kTile);
    }
    for (int32_t b = 0; b < 2; ++b) WaitFlag<HardEvent::V_MTE2>(b);
    PipeBarrier<PIPE_ALL>();
}

int main() {
    const Array<float> x = Numbers<float>(kTiles * kTile, 1);
    Array<float> y(kTiles * kTile), want(kTiles * kTile);
    for (uint32_t i = 0; i < kTiles * kTile; ++i) want[i] = 2.0f * x[i];
    using ascend_twin::Use;
    const ascend_twin::Outcome outcome = ascend_twin::Run(
        {"early_reuse", ascend_twin::KernelType::kAivOnly, 1},
        {Named("x", x, Use::kIn), Named("y", y, Use::kOut)},
        [&] { early_reuse(ascend_twin::Gm(x.data()), ascend_twin::Gm(y.data())); });
    return Report(outcome, y, want);
}
