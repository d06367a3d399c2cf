// Integer helpers and row reductions that two kernels or more use.
#ifndef ASCEND_OPS_COMMON_OP_KERNEL_TILE_MATH_H_
#define ASCEND_OPS_COMMON_OP_KERNEL_TILE_MATH_H_

#include "kernel_operator.h"

namespace ascend_ops {

constexpr uint32_t kBlockBytes = 32;     // unit of UB and L1 addresses
constexpr uint32_t kFractalRows = 16;    // rows of a 512-byte fractal
constexpr uint32_t kFractalBytes = 512;  // unit of L0A and L0B
constexpr uint32_t kFloatsPerBlock = 8;
constexpr uint32_t kFloatsPerRepeat = 64;  // 256 bytes, what one vector instruction takes

template <typename T, typename U>
struct IsSame {
    static constexpr bool kValue = false;
};
template <typename T>
struct IsSame<T, T> {
    static constexpr bool kValue = true;
};

__aicore__ inline uint32_t CeilDiv(uint32_t value, uint32_t divisor) {
    return (value + divisor - 1) / divisor;
}

__aicore__ inline uint32_t AlignUp(uint32_t value, uint32_t unit) {
    return CeilDiv(value, unit) * unit;
}

template <typename T>
__aicore__ inline T MinOf(T a, T b) {
    return a < b ? a : b;
}

template <typename T>
__aicore__ inline T MaxOf(T a, T b) {
    return a > b ? a : b;
}

// dst[row] = max over the 64 floats of repeat `row`. CANN 8.x has the older names alone.
__aicore__ inline void ReduceRepeatMax(const AscendC::LocalTensor<float>& dst,
                                       const AscendC::LocalTensor<float>& src, int32_t repeatTime) {
#ifdef ASCEND_OPS_CANN_8
    AscendC::WholeReduceMax<float>(dst, src, kFloatsPerRepeat, repeatTime, 1, 1, 8,
                                   AscendC::ReduceOrder::ORDER_ONLY_VALUE);
#else
    AscendC::ReduceRepeat<AscendC::ReduceType::MAX>(dst, src, kFloatsPerRepeat, repeatTime, 1, 1, 8,
                                                    AscendC::ReduceOrder::ORDER_ONLY_VALUE);
#endif
}

// dst[row] = sum of the 64 floats of repeat `row`.
__aicore__ inline void ReduceRepeatSum(const AscendC::LocalTensor<float>& dst,
                                       const AscendC::LocalTensor<float>& src, int32_t repeatTime) {
#ifdef ASCEND_OPS_CANN_8
    AscendC::WholeReduceSum<float>(dst, src, kFloatsPerRepeat, repeatTime, 1, 1, 8);
#else
    AscendC::ReduceRepeat<AscendC::ReduceType::SUM>(dst, src, kFloatsPerRepeat, repeatTime, 1, 1,
                                                    8);
#endif
}

// dst[row] = sum of the first `mask` floats of block `row`.
__aicore__ inline void ReduceBlocksSum(const AscendC::LocalTensor<float>& dst,
                                       const AscendC::LocalTensor<float>& src, int32_t repeatTime,
                                       int32_t mask) {
#ifdef ASCEND_OPS_CANN_8
    AscendC::WholeReduceSum<float>(dst, src, mask, repeatTime, 1, 1, 1);
#else
    AscendC::ReduceRepeat<AscendC::ReduceType::SUM>(dst, src, mask, repeatTime, 1, 1, 1);
#endif
}

}  // namespace ascend_ops

#endif  // ASCEND_OPS_COMMON_OP_KERNEL_TILE_MATH_H_
