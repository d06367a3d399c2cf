// Right: the sum of each row of x (rows, 64), one vector core. A repeat of the vector unit is 256
// bytes, which is a row here, so one instruction adds up all rows of a tile.
#include "example.h"

using namespace AscendC;

constexpr uint32_t kWidth = 64, kRows = 128;

extern "C" __global__ __aicore__ void row_sum(GM_ADDR x, GM_ADDR sums, uint32_t rows) {
    GlobalTensor<float> xGm, sumsGm;
    xGm.SetGlobalBuffer((__gm__ float*)x);
    sumsGm.SetGlobalBuffer((__gm__ float*)sums);
    const LocalTensor<float> tile(TPosition::VECIN, 0, kRows * kWidth);
    const LocalTensor<float> out(TPosition::VECOUT, kRows * kWidth * sizeof(float), kRows);
    InitSocState();
    SetFlag<HardEvent::V_MTE2>(0);  // the tile was added up, so it may be filled
    SetFlag<HardEvent::MTE3_V>(0);  // the sums were written out
    for (uint32_t row = 0; row < rows; row += kRows) {
        WaitFlag<HardEvent::V_MTE2>(0);
        DataCopy(tile, xGm[row * kWidth], kRows * kWidth);
        SetFlag<HardEvent::MTE2_V>(0);
        WaitFlag<HardEvent::MTE2_V>(0);
        WaitFlag<HardEvent::MTE3_V>(0);
        WholeReduceSum(out, tile, kWidth, kRows, 1, 1, 8);
        SetFlag<HardEvent::V_MTE2>(0);
        SetFlag<HardEvent::V_MTE3>(0);
        WaitFlag<HardEvent::V_MTE3>(0);
        DataCopy(sumsGm[row], out, kRows);
        SetFlag<HardEvent::MTE3_V>(0);
    }
    WaitFlag<HardEvent::V_MTE2>(0);
    WaitFlag<HardEvent::MTE3_V>(0);
    PipeBarrier<PIPE_ALL>();
}

int main() {
    const uint32_t rows = 3 * kRows;
    const Array<float> x = Numbers<float>(rows * kWidth, 1);
    Array<float> sums(rows), want(rows);
    for (uint32_t i = 0; i < rows * kWidth; ++i) want[i / kWidth] += x[i];
    using ascend_twin::Use;
    const ascend_twin::Outcome outcome = ascend_twin::Run(
        {"row_sum", ascend_twin::KernelType::kAivOnly, 1},
        {Named("x", x, Use::kIn), Named("sums", sums, Use::kOut)},
        [&] { row_sum(ascend_twin::Gm(x.data()), ascend_twin::Gm(sums.data()), rows); });
    return Report(outcome, sums, want);
}
