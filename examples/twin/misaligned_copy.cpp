// Wrong: y = 2 x row by row, 17 floats each. A row is 68 bytes, and DataCopy moves multiples of 32
// between GM and multiples of 32 in UB. DataCopyPad takes any size (ragged_cast.cpp).
#include "example.h"

using namespace AscendC;

constexpr uint32_t kRows = 16, kWidth = 17;

extern "C" __global__ __aicore__ void misaligned_copy(GM_ADDR x, GM_ADDR y) {
    GlobalTensor<float> xGm, yGm;
    xGm.SetGlobalBuffer((__gm__ float*)x);
    yGm.SetGlobalBuffer((__gm__ float*)y);
    const LocalTensor<float> tile(TPosition::VECCALC, 0, kRows * kWidth);
    InitSocState();
    for (uint32_t row = 0; row < kRows; ++row) {
        DataCopy(tile[row * kWidth], xGm[row * kWidth], kWidth);  // wrong
    }
    SetFlag<HardEvent::MTE2_V>(0);
    WaitFlag<HardEvent::MTE2_V>(0);
    Muls(tile, tile, 2.0f, kRows * kWidth);
    SetFlag<HardEvent::V_MTE3>(0);
    WaitFlag<HardEvent::V_MTE3>(0);
    DataCopy(yGm, tile, kRows * kWidth);
    PipeBarrier<PIPE_ALL>();
}

int main() {
    const Array<float> x = Numbers<float>(kRows * kWidth, 1);
    Array<float> y(kRows * kWidth), want(kRows * kWidth);
    for (uint32_t i = 0; i < kRows * kWidth; ++i) want[i] = 2.0f * x[i];
    using ascend_twin::Use;
    const ascend_twin::Outcome outcome = ascend_twin::Run(
        {"misaligned_copy", ascend_twin::KernelType::kAivOnly, 1},
        {Named("x", x, Use::kIn), Named("y", y, Use::kOut)},
        [&] { misaligned_copy(ascend_twin::Gm(x.data()), ascend_twin::Gm(y.data())); });
    return Report(outcome, y, want);
}
