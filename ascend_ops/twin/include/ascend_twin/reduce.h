// Reductions of each repeat to one value: ReduceRepeat, and its older names WholeReduceMax/Sum.
#ifndef ASCEND_TWIN_REDUCE_H_
#define ASCEND_TWIN_REDUCE_H_

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "ascend_twin/params.h"
#include "ascend_twin/tensor.h"
#include "ascend_twin/vector.h"

namespace ascend_twin {

// The binary tree over the lanes of one vector: lane i joins lane i + width / 2.
template <uint32_t width, typename Op>
inline float FoldLanes(Lanes<width> lanes, Op op) {
    if constexpr (width == 2) {
        return op(lanes[0], lanes[1]);
    } else {
        Lanes<width / 2> low, high;
        std::memcpy(&low, &lanes, sizeof(low));
        std::memcpy(&high, reinterpret_cast<const uint8_t*>(&lanes) + sizeof(low), sizeof(high));
        return FoldLanes<width / 2>(op(low, high), op);
    }
}

// A binary tree over 64 lanes; lanes past `mask` hold the identity.
template <typename Op>
inline float ReduceLanes(const float* src, uint32_t blockStride, uint32_t mask, float identity,
                         Op op) {
    constexpr uint32_t kLanes = 64;
    constexpr uint32_t kPart = 8;  // what every wide instruction set has
    constexpr uint32_t elems = kBlockElems<float>;
    alignas(64) float padded[kLanes];
    if (mask != kLanes || blockStride != 1) {
        for (uint32_t i = 0; i < kLanes; ++i) {
            padded[i] = i < mask ? src[(i / elems) * blockStride * elems + i % elems] : identity;
        }
        src = padded;
    }
    Lanes<kPart> part[kLanes / kPart];
    std::memcpy(part, src, sizeof(part));
    for (uint32_t half = kLanes / kPart / 2; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; ++i) part[i] = op(part[i], part[i + half]);
    }
    return FoldLanes<kPart>(part[0], op);
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
