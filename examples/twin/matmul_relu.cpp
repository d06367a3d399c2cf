// Right: max(a b^T, 0). The AIC multiplies tile after tile into a slot of the workspace, its two
// AIVs clamp half a tile each. Flags go both ways: the slot is full, the slot is free.
#include "matmul_problem.h"

using namespace AscendC;

constexpr uint16_t kFull = 1, kFree = 2;  // cross-core flags: of the slot in the workspace
constexpr uint32_t kHalf = kM / 2;        // rows of a tile that an AIV takes

// The AIC: each tile into the slot, once both AIVs have taken the one before.
__aicore__ inline void Multiply(GM_ADDR a, GM_ADDR b, const GlobalTensor<float>& slot,
                                uint32_t rows) {
    MatmulTile tile;
    tile.Init(a, b);
    for (uint32_t row = 0; row < rows; row += kM) {
        if (row > 0) CrossCoreWaitFlag<2, PIPE_FIX>(kFree);
        tile.Multiply(slot, row, row + kM < rows ? kM : rows - row);
        CrossCoreSetFlag<2, PIPE_FIX>(kFull);
    }
    CrossCoreWaitFlag<2, PIPE_FIX>(kFree);
}

// An AIV: its half of each tile, of which the last may have none for AIV1.
__aicore__ inline void Clamp(const GlobalTensor<float>& slot, const GlobalTensor<float>& out,
                             uint32_t rows) {
    const LocalTensor<float> ub(TPosition::VECCALC, 0, kHalf * kN);
    const uint32_t first = GetSubBlockIdx() * kHalf;
    SetFlag<HardEvent::MTE3_MTE2>(0);
    for (uint32_t row = 0; row < rows; row += kM) {
        const uint32_t left = row + kM < rows ? kM : rows - row;
        const uint32_t mine = left > first ? (left - first < kHalf ? left - first : kHalf) : 0;
        CrossCoreWaitFlag<2, PIPE_MTE2>(kFull);
        if (mine > 0) {
            WaitFlag<HardEvent::MTE3_MTE2>(0);
            DataCopy(ub, slot[first * kN], mine * kN);
        }
        CrossCoreSetFlag<2, PIPE_MTE2>(kFree);
        if (mine > 0) {
            SetFlag<HardEvent::MTE2_V>(0);
            WaitFlag<HardEvent::MTE2_V>(0);
            Maxs(ub, ub, 0.0f, mine * kN);
            SetFlag<HardEvent::V_MTE3>(0);
            WaitFlag<HardEvent::V_MTE3>(0);
            DataCopy(out[(row + first) * kN], ub, mine * kN);
            SetFlag<HardEvent::MTE3_MTE2>(0);
        }
    }
    WaitFlag<HardEvent::MTE3_MTE2>(0);
}

extern "C" __global__ __aicore__ void matmul_relu(GM_ADDR a, GM_ADDR b, GM_ADDR slot, GM_ADDR out,
                                                  uint32_t rows) {
    GlobalTensor<float> slotGm, outGm;
    slotGm.SetGlobalBuffer((__gm__ float*)slot);
    outGm.SetGlobalBuffer((__gm__ float*)out);
    InitSocState();
    if ASCEND_IS_AIC {
        Multiply(a, b, slotGm, rows);
    } else {
        Clamp(slotGm, outGm, rows);
    }
    PipeBarrier<PIPE_ALL>();
}

int main() {
    const uint32_t rows = 2 * kM + kHalf;
    MatmulProblem problem(rows);
    for (float& value : problem.want) value = value > 0.0f ? value : 0.0f;
    Array<float> slot(kM * kN), out(rows * kN);
    using ascend_twin::Gm;
    using ascend_twin::Use;
    const ascend_twin::Outcome outcome =
        ascend_twin::Run({"matmul_relu", ascend_twin::KernelType::kMixAic1Aiv2, 1},
                         {Named("a", problem.a, Use::kIn), Named("b", problem.b, Use::kIn),
                          Named("slot", slot, Use::kWorkspace), Named("out", out, Use::kOut)},
                         [&] {
                             matmul_relu(Gm(problem.a.data()), Gm(problem.b.data()),
                                         Gm(slot.data()), Gm(out.data()), rows);
                         });
    return Report(outcome, out, problem.want);
}
