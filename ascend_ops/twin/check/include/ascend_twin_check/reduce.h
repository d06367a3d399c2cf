// Reductions of each repeat to one value.
#ifndef ASCEND_TWIN_CHECK_REDUCE_H_
#define ASCEND_TWIN_CHECK_REDUCE_H_

#include <cstdint>

#include "ascend_twin_check/vector.h"

namespace AscendC {

template <ReduceType reduceType, typename T, typename U>
inline void ReduceRepeat(const LocalTensor<T>& dst, const LocalTensor<U>& src, int64_t mask,
                         int64_t repeatTime, int64_t dstRepStride, int64_t srcBlkStride,
                         int64_t srcRepStride, ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX,
                         ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    static_assert(kVectorServes<T> && kVectorServes<U>, "the twin's ReduceRepeat serves float");
    Call call("ReduceRepeat", PIPE_V, RoleKind::kAiv, site);
    call.Number("mask", mask, 1, 64);
    call.Number("repeatTime", repeatTime, 0, 255);
    call.Number("dstRepStride", dstRepStride, 0, 65535);
    call.Number("srcBlkStride", srcBlkStride, 0, 65535);
    call.Number("srcRepStride", srcRepStride, 0, 65535);
    if (reduceType != ReduceType::SUM && order != ReduceOrder::ORDER_ONLY_VALUE) {
        call.Fail("parameter", "an order with indices", "ORDER_ONLY_VALUE",
                  "the other orders write an index beside each value, which the twin does not");
    }
    const RepeatShape shape = {sizeof(U), static_cast<uint64_t>(mask),
                               static_cast<uint64_t>(repeatTime)};
    call.InSpace("src", src.GetPosition(), Space::kUb);
    call.InSpace("dst", dst.GetPosition(), Space::kUb);
    const RepeatAccess parts = RepeatOf(src.Bytes(0), shape, static_cast<uint64_t>(srcBlkStride),
                                        static_cast<uint64_t>(srcRepStride));
    const Access& first = parts.whole.Empty() ? parts.tail : parts.whole;
    call.Align("src", call.Read(first), kVectorUnit);
    if (!parts.whole.Empty() && !parts.tail.Empty()) call.Read(parts.tail);
    Access to = dst.Bytes(sizeof(T));
    to.Repeat(static_cast<uint64_t>(repeatTime), static_cast<uint64_t>(dstRepStride) * sizeof(T));
    call.Align("dst", call.Write(to), sizeof(T));
    call.Run([=] {
        literal::ReduceRepeat<reduceType, T, U>(
            dst.Literal(), src.Literal(), static_cast<int32_t>(mask),
            static_cast<int32_t>(repeatTime), static_cast<int32_t>(dstRepStride),
            static_cast<int32_t>(srcBlkStride), static_cast<int32_t>(srcRepStride), order);
    });
}

template <typename T>
inline void WholeReduceMax(const LocalTensor<T>& dst, const LocalTensor<T>& src, int64_t mask,
                           int64_t repeatTime, int64_t dstRepStride, int64_t srcBlkStride,
                           int64_t srcRepStride, ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX,
                           ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    ReduceRepeat<ReduceType::MAX>(dst, src, mask, repeatTime, dstRepStride, srcBlkStride,
                                  srcRepStride, order, site);
}

template <typename T>
inline void WholeReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, int64_t mask,
                           int64_t repeatTime, int64_t dstRepStride, int64_t srcBlkStride,
                           int64_t srcRepStride,
                           ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    ReduceRepeat<ReduceType::SUM>(dst, src, mask, repeatTime, dstRepStride, srcBlkStride,
                                  srcRepStride, ReduceOrder::ORDER_ONLY_VALUE, site);
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_CHECK_REDUCE_H_
