// c = a b^T on a cube core: some rows of a (rows, K) and all of b (N, K), of half; c (rows, N) of
// float. Every matrix goes through the core's memories once: GM -> L1 -> L0A, L0B -> L0C -> GM.
#ifndef EXAMPLES_TWIN_MATMUL_TILE_H_
#define EXAMPLES_TWIN_MATMUL_TILE_H_

#include "kernel_operator.h"

constexpr uint32_t kM = 32, kN = 64, kK = 48;  // multiples of 16, the side of a fractal
constexpr uint32_t kFractal = 16;

class MatmulTile {
  public:
    __aicore__ inline void Init(GM_ADDR a, GM_ADDR b) {
        a_.SetGlobalBuffer((__gm__ half*)a);
        b_.SetGlobalBuffer((__gm__ half*)b);
        using AscendC::LocalTensor;
        using AscendC::TPosition;
        aL1_ = LocalTensor<half>(TPosition::A1, 0, kM * kK);
        bL1_ = LocalTensor<half>(TPosition::B1, kM * kK * sizeof(half), kN * kK);
        aL0_ = LocalTensor<half>(TPosition::A2, 0, kM * kK);
        bL0_ = LocalTensor<half>(TPosition::B2, 0, kN * kK);
        cL0_ = LocalTensor<float>(TPosition::CO1, 0, kM * kN);
    }

    // Rows [row, row + rows) of a, at most kM and a multiple of 16.
    __aicore__ inline void Multiply(const AscendC::GlobalTensor<float>& c, uint32_t row,
                                    uint32_t rows) {
        AscendC::PipeBarrier<PIPE_ALL>();  // simple: the tile before has left all memories
        CopyIn(aL1_, a_[row * kK], rows);
        CopyIn(bL1_, b_, kN);
        AscendC::SetFlag<AscendC::HardEvent::MTE2_MTE1>(0);
        AscendC::WaitFlag<AscendC::HardEvent::MTE2_MTE1>(0);
        LoadA(rows);
        LoadB();
        AscendC::SetFlag<AscendC::HardEvent::MTE1_M>(0);
        AscendC::WaitFlag<AscendC::HardEvent::MTE1_M>(0);
        AscendC::MmadParams product;
        product.m = rows;
        product.n = kN;
        product.k = kK;
        product.cmatrixInitVal = true;  // the sum starts at zero
        AscendC::Mmad(cL0_, aL0_, bL0_, product);
        AscendC::SetFlag<AscendC::HardEvent::M_FIX>(0);
        AscendC::WaitFlag<AscendC::HardEvent::M_FIX>(0);
        CopyOut(c, rows);
    }

  private:
    // GM (rows, K) -> L1, cut into fractals: column blocks of 16, each with all rows
    __aicore__ inline void CopyIn(const AscendC::LocalTensor<half>& dst,
                                  const AscendC::GlobalTensor<half>& src, uint32_t rows) {
        AscendC::Nd2NzParams copy;
        copy.ndNum = 1;
        copy.nValue = rows;
        copy.dValue = kK;
        copy.srcDValue = kK;
        copy.dstNzC0Stride = rows;
        copy.dstNzNStride = 1;
        AscendC::DataCopy(dst, src, copy);
    }

    // L1 (rows, K) -> L0A: row blocks, and in each the fractals along K
    __aicore__ inline void LoadA(uint32_t rows) {
        AscendC::LoadData2DParams load;
        load.repeatTimes = kK / kFractal;
        load.srcStride = rows / kFractal;
        for (uint32_t m = 0; m < rows / kFractal; ++m) {
            AscendC::LoadData(aL0_[m * kFractal * kK], aL1_[m * kFractal * kFractal], load);
        }
    }

    // L1 (N, K) -> L0B: blocks along K, and in each the fractals along N
    __aicore__ inline void LoadB() {
        AscendC::LoadData2DParams load;
        load.repeatTimes = kN / kFractal;
        load.srcStride = 1;
        for (uint32_t k = 0; k < kK / kFractal; ++k) {
            AscendC::LoadData(bL0_[k * kFractal * kN], bL1_[k * kFractal * kN], load);
        }
    }

    // L0C -> GM c (rows, N)
    __aicore__ inline void CopyOut(const AscendC::GlobalTensor<float>& c, uint32_t rows) {
        AscendC::FixpipeParamsV220 fix;
        fix.nSize = kN;
        fix.mSize = rows;
        fix.srcStride = rows;
        fix.dstStride = kN;
        AscendC::Fixpipe<float, float, AscendC::CFG_ROW_MAJOR>(c, cL0_, fix);
    }

    AscendC::GlobalTensor<half> a_, b_;
    AscendC::LocalTensor<half> aL1_, bL1_, aL0_, bL0_;
    AscendC::LocalTensor<float> cL0_;
};

#endif  // EXAMPLES_TWIN_MATMUL_TILE_H_
