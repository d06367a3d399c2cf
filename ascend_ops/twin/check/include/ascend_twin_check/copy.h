// DataCopy and DataCopyPad between GM, UB and L1.
#ifndef ASCEND_TWIN_CHECK_COPY_H_
#define ASCEND_TWIN_CHECK_COPY_H_

#include <cstdint>
#include <string>

#include "ascend_twin_check/operation.h"
#include "ascend_twin_check/params.h"
#include "ascend_twin_check/tensor.h"

namespace ascend_twin {
namespace check {

constexpr uint64_t kBurstBlock = 32;
constexpr int64_t kMaxBlockCount = 4095;
constexpr int64_t kMaxBlockLen = 2097151;
constexpr int64_t kMaxPadBytes = 32;

// Runs `body`, which stores to the GM bytes of `access`; where the core adds atomically, what they
// held is added.
void StoreToGm(const Access& access, const std::function<void()>& body);

// Blocks of a DataCopyPad on both of its sides.
template <typename T>
inline Access BlocksOnGm(const AscendC::GlobalTensor<T>& gm,
                         const AscendC::DataCopyExtParams& params, uint64_t gap) {
    Access access = gm.Bytes(static_cast<uint64_t>(params.blockLen.Wide()));
    access.Repeat(static_cast<uint64_t>(params.blockCount.Wide()), access.run + gap);
    return access;
}
template <typename T>
inline Access BlocksOnUb(const AscendC::LocalTensor<T>& ub,
                         const AscendC::DataCopyExtParams& params, uint64_t padBytes,
                         uint64_t gap) {
    const uint64_t length = static_cast<uint64_t>(params.blockLen.Wide());
    const uint64_t pitch = (length + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    Access access = ub.Bytes(length + padBytes);
    access.Repeat(static_cast<uint64_t>(params.blockCount.Wide()), pitch + gap * kBlockBytes);
    return access;
}

inline void LimitBlocks(Call* call, const AscendC::DataCopyExtParams& params) {
    call->Limit("blockCount", params.blockCount, 1, kMaxBlockCount);
    call->Limit("blockLen", params.blockLen, 1, kMaxBlockLen);
    call->Width("srcStride", params.srcStride);
    call->Width("dstStride", params.dstStride);
}

}  // namespace check
}  // namespace ascend_twin

namespace AscendC {

template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, int64_t count,
                     ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    const bool toUb = SpaceOf(dst.GetPosition()) == Space::kUb;
    Call call("DataCopy", PIPE_MTE2, toUb ? RoleKind::kAiv : RoleKind::kAic, site);
    call.IsCopy();
    if (!toUb) call.InSpace("dst", dst.GetPosition(), Space::kL1);
    call.Number("count", count, 0, UINT32_MAX);
    const uint64_t bytes = static_cast<uint64_t>(count) * sizeof(T);
    call.Multiple("the size", bytes, kBurstBlock);
    call.Read(src.Bytes(bytes));
    call.Align("dst", call.Write(dst.Bytes(bytes)), kBurstBlock);
    call.Run(
        [=] { literal::DataCopy(dst.Literal(), src.Literal(), static_cast<uint32_t>(count)); });
}

template <typename T>
inline void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, int64_t count,
                     ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("DataCopy", PIPE_MTE3, RoleKind::kAiv, site);
    call.IsCopy();
    call.InSpace("src", src.GetPosition(), Space::kUb);
    call.Number("count", count, 0, UINT32_MAX);
    const uint64_t bytes = static_cast<uint64_t>(count) * sizeof(T);
    call.Multiple("the size", bytes, kBurstBlock);
    call.Align("src", call.Read(src.Bytes(bytes)), kBurstBlock);
    const Access stored = call.Write(dst.Bytes(bytes));
    call.Run([=] {
        StoreToGm(stored, [&] {
            literal::DataCopy(dst.Literal(), src.Literal(), static_cast<uint32_t>(count));
        });
    });
}

template <typename T>
inline void DataCopyPad(const LocalTensor<T>& dst, const GlobalTensor<T>& src,
                        const DataCopyExtParams& params, const DataCopyPadExtParams<T>& pad,
                        ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("DataCopyPad", PIPE_MTE2, RoleKind::kAiv, site);
    call.IsCopy();
    call.InSpace("dst", dst.GetPosition(), Space::kUb);
    LimitBlocks(&call, params);
    constexpr int64_t kMaxPad = kMaxPadBytes / static_cast<int64_t>(sizeof(T));
    call.Limit("leftPadding", pad.leftPadding, 0, kMaxPad);
    call.Limit("rightPadding", pad.rightPadding, 0, kMaxPad);
    const uint64_t padding =
        pad.isPad ? static_cast<uint64_t>(pad.leftPadding.Wide() + pad.rightPadding.Wide()) : 0;
    call.Read(BlocksOnGm(src, params, static_cast<uint64_t>(params.srcStride.Wide())));
    const Access& written = call.Write(BlocksOnUb(dst, params, padding * sizeof(T),
                                                  static_cast<uint64_t>(params.dstStride.Wide())));
    call.Align("dst", written, kBurstBlock);
    call.Run([=] { literal::DataCopyPad<T>(dst.Literal(), src.Literal(), params, pad); });
}

template <typename T>
inline void DataCopyPad(const GlobalTensor<T>& dst, const LocalTensor<T>& src,
                        const DataCopyExtParams& params,
                        ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("DataCopyPad", PIPE_MTE3, RoleKind::kAiv, site);
    call.IsCopy();
    call.IsBytewise();
    call.InSpace("src", src.GetPosition(), Space::kUb);
    LimitBlocks(&call, params);
    const Access& read =
        call.Read(BlocksOnUb(src, params, 0, static_cast<uint64_t>(params.srcStride.Wide())));
    call.Align("src", read, kBurstBlock);
    const Access stored =
        call.Write(BlocksOnGm(dst, params, static_cast<uint64_t>(params.dstStride.Wide())));
    call.Run([=] {
        StoreToGm(stored, [&] { literal::DataCopyPad<T>(dst.Literal(), src.Literal(), params); });
    });
}

// GM rows to the NZ layout of L1.
template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src,
                     const Nd2NzParams& params,
                     ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("DataCopy(Nd2NzParams)", PIPE_MTE2, RoleKind::kAic, site);
    call.IsCopy();
    call.InSpace("dst", dst.GetPosition(), Space::kL1);
    call.Limit("ndNum", params.ndNum, 1, 4095);
    call.Limit("nValue", params.nValue, 1, 16384);
    call.Limit("dValue", params.dValue, 1, 65535);
    call.Width("srcNdMatrixStride", params.srcNdMatrixStride);
    call.Limit("srcDValue", params.srcDValue, 1, 65535);
    call.Limit("dstNzC0Stride", params.dstNzC0Stride, 1, 16384);
    call.Limit("dstNzNStride", params.dstNzNStride, 1, 16384);
    call.Width("dstNzMatrixStride", params.dstNzMatrixStride);
    const auto number = [](const auto& field) { return static_cast<uint64_t>(field.Wide()); };
    const uint64_t cols = number(params.dValue);
    const uint64_t blocks = (cols * sizeof(T) + kBlockBytes - 1) / kBlockBytes;
    Access from = src.Bytes(cols * sizeof(T));
    from.Repeat(number(params.nValue), number(params.srcDValue) * sizeof(T));
    from.Repeat(number(params.ndNum), number(params.srcNdMatrixStride) * sizeof(T));
    call.Read(from);
    Access to = dst.Bytes(kBlockBytes);
    to.Repeat(number(params.nValue), number(params.dstNzNStride) * kBlockBytes);
    to.Repeat(blocks, number(params.dstNzC0Stride) * kBlockBytes);
    to.Repeat(number(params.ndNum), number(params.dstNzMatrixStride) * sizeof(T));
    call.Align("dst", call.Write(to), kBlockBytes);
    call.Multiple("dstNzMatrixStride", number(params.dstNzMatrixStride) * sizeof(T), kBlockBytes);
    call.Run([=] { literal::DataCopy<T>(dst.Literal(), src.Literal(), params); });
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_CHECK_COPY_H_
