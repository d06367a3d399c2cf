// Right: c = a b^T of one tile, on one cube core (matmul_tile.h).
#include "matmul_problem.h"

extern "C" __global__ __aicore__ void matmul(GM_ADDR a, GM_ADDR b, GM_ADDR c) {
    AscendC::InitSocState();
    if ASCEND_IS_AIC {
        AscendC::GlobalTensor<float> cGm;
        cGm.SetGlobalBuffer((__gm__ float*)c);
        MatmulTile tile;
        tile.Init(a, b);
        tile.Multiply(cGm, 0, kM);
    }
    AscendC::PipeBarrier<PIPE_ALL>();
}

int main() {
    const MatmulProblem problem(kM);
    Array<float> c(kM * kN);
    using ascend_twin::Gm;
    using ascend_twin::Use;
    const ascend_twin::Outcome outcome =
        ascend_twin::Run({"matmul", ascend_twin::KernelType::kMixAic1Aiv2, 1},
                         {Named("a", problem.a, Use::kIn), Named("b", problem.b, Use::kIn),
                          Named("c", c, Use::kOut)},
                         [&] { matmul(Gm(problem.a.data()), Gm(problem.b.data()), Gm(c.data())); });
    return Report(outcome, c, problem.want);
}
