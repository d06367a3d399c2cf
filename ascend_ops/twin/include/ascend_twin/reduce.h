// Reductions of each repeat to one value: ReduceRepeat, and its older names WholeReduceMax/Sum.
#ifndef ASCEND_TWIN_REDUCE_H_
#define ASCEND_TWIN_REDUCE_H_

#include <cstdint>
#include <limits>
#include <type_traits>

#include "ascend_twin/params.h"
#include "ascend_twin/tensor.h"
#include "ascend_twin/vector.h"

namespace ascend_twin {

// A binary tree over 64 lanes; lanes past `mask` hold the identity.
template <typename Op>
inline float ReduceLanes(const float* src, uint32_t blockStride, uint32_t mask, float identity,
                         Op op) {
    constexpr uint32_t kLanes = 64;
    constexpr uint32_t elems = kBlockElems<float>;
    float lanes[kLanes];
    for (uint32_t i = 0; i < kLanes; ++i) {
        lanes[i] = i < mask ? src[(i / elems) * blockStride * elems + i % elems] : identity;
    }
    for (uint32_t width = kLanes / 2; width > 0; width /= 2) {
        for (uint32_t i = 0; i < width; ++i) lanes[i] = op(lanes[i], lanes[i + width]);
    }
    return lanes[0];
}

template <typename Op>
inline void ReduceEach(float* dst, const float* src, int32_t mask, int32_t repeatTime,
                       int32_t dstRepStride, int32_t srcBlkStride, int32_t srcRepStride,
                       float identity, Op op) {
    for (int32_t repeat = 0; repeat < repeatTime; ++repeat) {
        const float* row = src + repeat * srcRepStride * static_cast<int32_t>(kBlockElems<float>);
        dst[repeat * dstRepStride] = ReduceLanes(row, static_cast<uint32_t>(srcBlkStride),
                                                 static_cast<uint32_t>(mask), identity, op);
    }
}

}  // namespace ascend_twin

namespace AscendC {

// Serves SUM, and MAX or MIN with ORDER_ONLY_VALUE.
template <ReduceType reduceType, typename T, typename U>
inline void ReduceRepeat(const LocalTensor<T>& dst, const LocalTensor<U>& src, const int32_t mask,
                         const int32_t repeatTime, const int32_t dstRepStride,
                         const int32_t srcBlkStride, const int32_t srcRepStride,
                         ReduceOrder /*order*/ = ReduceOrder::ORDER_VALUE_INDEX) {
    static_assert(std::is_same_v<T, float> && std::is_same_v<U, float>,
                  "the twin's ReduceRepeat serves float");
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    if constexpr (reduceType == ReduceType::SUM) {
        ascend_twin::ReduceEach(dst.Data(), src.Data(), mask, repeatTime, dstRepStride,
                                srcBlkStride, srcRepStride, 0.0f, ascend_twin::AddOf());
    } else if constexpr (reduceType == ReduceType::MAX) {
        ascend_twin::ReduceEach(dst.Data(), src.Data(), mask, repeatTime, dstRepStride,
                                srcBlkStride, srcRepStride, -kInfinity, ascend_twin::MaxOf());
    } else {
        ascend_twin::ReduceEach(dst.Data(), src.Data(), mask, repeatTime, dstRepStride,
                                srcBlkStride, srcRepStride, kInfinity, ascend_twin::MinOf());
    }
}

template <typename T>
inline void WholeReduceMax(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t mask,
                           const int32_t repeatTime, const int32_t dstRepStride,
                           const int32_t srcBlkStride, const int32_t srcRepStride,
                           ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX) {
    ReduceRepeat<ReduceType::MAX>(dst, src, mask, repeatTime, dstRepStride, srcBlkStride,
                                  srcRepStride, order);
}

template <typename T>
inline void WholeReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t mask,
                           const int32_t repeatTime, const int32_t dstRepStride,
                           const int32_t srcBlkStride, const int32_t srcRepStride) {
    ReduceRepeat<ReduceType::SUM>(dst, src, mask, repeatTime, dstRepStride, srcBlkStride,
                                  srcRepStride);
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_REDUCE_H_
