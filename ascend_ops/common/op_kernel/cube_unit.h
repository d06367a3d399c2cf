// L0A, L0B and L0C of an AIC in two buffers each, and the steps of a product in them.
#ifndef ASCEND_OPS_COMMON_OP_KERNEL_CUBE_UNIT_H_
#define ASCEND_OPS_COMMON_OP_KERNEL_CUBE_UNIT_H_

#include "common/op_kernel/tile_math.h"
#include "kernel_operator.h"

namespace ascend_ops {

// A product: OpenSum; for each stretch of its depth OpenOperands, loads to A() and B(),
// MultiplyStep; CloseSum; CopyOut. T: type in which operands are loaded; Sum: of L0C; Operand: as
// which the cube takes T, another one where T are the bytes of int4b_t.
template <typename T, typename Sum = float, typename Operand = T>
class CubeUnit {
  public:
    // Elements of one buffer.
    __aicore__ inline void Init(uint32_t aElems, uint32_t bElems, uint32_t cElems) {
        const uint32_t aBytes = aElems * static_cast<uint32_t>(sizeof(T));
        const uint32_t bBytes = bElems * static_cast<uint32_t>(sizeof(T));
        const uint32_t cBytes = cElems * static_cast<uint32_t>(sizeof(Sum));
        for (uint32_t i = 0; i < 2; ++i) {
            l0a_[i] = AscendC::LocalTensor<T>(AscendC::TPosition::A2, i * aBytes, aElems);
            l0b_[i] = AscendC::LocalTensor<T>(AscendC::TPosition::B2, i * bBytes, bElems);
            l0c_[i] = AscendC::LocalTensor<Sum>(AscendC::TPosition::CO1, i * cBytes, cElems);
        }
    }

    // Hands every buffer to the pipe that fills it.
    __aicore__ inline void Begin() {
        for (int32_t i = 0; i < 2; ++i) {
            AscendC::SetFlag<AscendC::HardEvent::M_MTE1>(i);
            AscendC::SetFlag<AscendC::HardEvent::FIX_M>(i);
        }
    }

    // Takes back what Begin and the last product handed out.
    __aicore__ inline void End() {
        for (int32_t i = 0; i < 2; ++i) {
            AscendC::WaitFlag<AscendC::HardEvent::M_MTE1>(i);
            AscendC::WaitFlag<AscendC::HardEvent::FIX_M>(i);
        }
    }

    __aicore__ inline void OpenSum() { AscendC::WaitFlag<AscendC::HardEvent::FIX_M>(l0cBuffer_); }

    __aicore__ inline void CloseSum() { AscendC::SetFlag<AscendC::HardEvent::M_FIX>(l0cBuffer_); }

    __aicore__ inline void OpenOperands() {
        AscendC::WaitFlag<AscendC::HardEvent::M_MTE1>(l0Buffer_);
    }

    // L0A and L0B of the step that is being loaded.
    __aicore__ inline const AscendC::LocalTensor<T>& A() { return l0a_[l0Buffer_]; }
    __aicore__ inline const AscendC::LocalTensor<T>& B() { return l0b_[l0Buffer_]; }

    // l0c (rows, cols) (+)= l0a (rows, depth) l0b (depth, cols), then on to the other L0 buffers.
    __aicore__ inline void MultiplyStep(uint32_t rows, uint32_t cols, uint32_t depth, bool fresh) {
        AscendC::SetFlag<AscendC::HardEvent::MTE1_M>(l0Buffer_);
        AscendC::WaitFlag<AscendC::HardEvent::MTE1_M>(l0Buffer_);
        AscendC::MmadParams params;
        params.m = MaxOf(2u, rows);  // m = 1 would mean a vector times a matrix, laid out otherwise
        params.n = cols;
        params.k = depth;
        params.cmatrixInitVal = fresh;
        if constexpr (IsSame<T, Operand>::kValue) {
            AscendC::Mmad(l0c_[l0cBuffer_], l0a_[l0Buffer_], l0b_[l0Buffer_], params);
        } else {
            AscendC::Mmad(l0c_[l0cBuffer_], l0a_[l0Buffer_].template ReinterpretCast<Operand>(),
                          l0b_[l0Buffer_].template ReinterpretCast<Operand>(), params);
        }
        // Small products that accumulate into one another need a barrier of their own; only whole
        // fractals count.
        if ((rows / kFractalRows) * (cols / kFractalRows) < 10) {
            AscendC::PipeBarrier<PIPE_M>();
        }
        AscendC::SetFlag<AscendC::HardEvent::M_MTE1>(l0Buffer_);
        l0Buffer_ ^= 1;
    }

    // L0C (rows, cols) -> GM, then on to the other L0C buffer.
    __aicore__ inline void CopyOut(const AscendC::GlobalTensor<Sum>& dst, uint32_t rows,
                                   uint32_t cols, uint32_t pitch) {
        AscendC::WaitFlag<AscendC::HardEvent::M_FIX>(l0cBuffer_);
        AscendC::FixpipeParamsV220 params;
        params.nSize = AlignUp(cols, kFractalRows);
        params.mSize = rows;
        params.srcStride = AlignUp(MaxOf(2u, rows), kFractalRows);
        params.dstStride = pitch;
        params.ndNum = 1;
        params.srcNdStride = 0;
        params.dstNdStride = 0;
        AscendC::Fixpipe<Sum, Sum, AscendC::CFG_ROW_MAJOR>(dst, l0c_[l0cBuffer_], params);
        AscendC::SetFlag<AscendC::HardEvent::FIX_M>(l0cBuffer_);
        l0cBuffer_ ^= 1;
    }

  private:
    AscendC::LocalTensor<T> l0a_[2];
    AscendC::LocalTensor<T> l0b_[2];
    AscendC::LocalTensor<Sum> l0c_[2];
    int32_t l0Buffer_ = 0;
    int32_t l0cBuffer_ = 0;
};

}  // namespace ascend_ops

#endif  // ASCEND_OPS_COMMON_OP_KERNEL_CUBE_UNIT_H_
