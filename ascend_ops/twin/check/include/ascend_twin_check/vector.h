// Vector calls on UB: what each reads and writes, what hardware refuses.
#ifndef ASCEND_TWIN_CHECK_VECTOR_H_
#define ASCEND_TWIN_CHECK_VECTOR_H_

#include <cstdint>
#include <string>
#include <type_traits>

#include "ascend_twin_check/operation.h"
#include "ascend_twin_check/params.h"
#include "ascend_twin_check/tensor.h"

namespace ascend_twin {
namespace check {

constexpr uint64_t kVectorUnit = 32;
constexpr int64_t kMaxCount = kUbBytes;  // a count larger than UB is a wrong one

// `blocks` of each repeat, `mask` elements in all.
struct RepeatShape {
    uint64_t elemBytes;
    uint64_t mask;
    uint64_t repeats;
};

// The whole blocks of every repeat, and the elements behind them; the second is empty where mask
// ends with a block.
struct RepeatAccess {
    Access whole;
    Access tail;
};

RepeatAccess RepeatOf(const Access& tensor, const RepeatShape& shape, uint64_t blockStride,
                      uint64_t repeatStride);

template <typename T>
inline const Access& VectorOperand(Call* call, const char* name,
                                   const AscendC::LocalTensor<T>& tensor, uint64_t bytes,
                                   bool write) {
    call->InSpace(name, tensor.GetPosition(), Space::kUb);
    Access access = tensor.Bytes(bytes);
    const Access& kept = write ? call->Write(access) : call->Read(access);
    call->Align(name, kept, kVectorUnit);
    return kept;
}

template <typename T>
inline void RepeatOperand(Call* call, const char* name, const AscendC::LocalTensor<T>& tensor,
                          const RepeatShape& shape, const Field<uint8_t>& blockStride,
                          const Field<uint8_t>& repeatStride, bool write) {
    call->InSpace(name, tensor.GetPosition(), Space::kUb);
    call->Width(name, "BlkStride", blockStride);
    call->Width(name, "RepStride", repeatStride);
    const RepeatAccess parts =
        RepeatOf(tensor.Bytes(0), shape, static_cast<uint64_t>(blockStride.Wide()),
                 static_cast<uint64_t>(repeatStride.Wide()));
    const Access& first = parts.whole.Empty() ? parts.tail : parts.whole;
    call->Align(name, write ? call->Write(first) : call->Read(first), kVectorUnit);
    if (parts.whole.Empty() || parts.tail.Empty()) return;
    if (write) {
        call->Write(parts.tail);
    } else {
        call->Read(parts.tail);
    }
}

// Which conversions exist on dav-2201, of the dtypes that the twin serves.
template <typename To, typename From>
inline constexpr bool kCastServes =
    (std::is_same_v<To, float> &&
     (std::is_same_v<From, half> || std::is_same_v<From, bfloat16_t>)) ||
    (std::is_same_v<From, float> && (std::is_same_v<To, half> || std::is_same_v<To, bfloat16_t>));

// Which dtypes vector arithmetic takes: never bfloat16_t.
template <typename T>
inline constexpr bool kVectorServes = std::is_same_v<T, float>;

}  // namespace check
}  // namespace ascend_twin

namespace AscendC {

#define ASCEND_TWIN_BINARY(Name)                                                                  \
    template <typename T>                                                                         \
    inline void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src0,                       \
                     const LocalTensor<T>& src1, int64_t count,                                   \
                     ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {          \
        using namespace ascend_twin::check;                                                       \
        static_assert(kVectorServes<T>, "the twin's " #Name " serves float");                     \
        Call call(#Name, PIPE_V, RoleKind::kAiv, site);                                           \
        call.Number("count", count, 0, kMaxCount);                                                \
        const uint64_t bytes = static_cast<uint64_t>(count) * sizeof(T);                          \
        VectorOperand(&call, "src0", src0, bytes, false);                                         \
        VectorOperand(&call, "src1", src1, bytes, false);                                         \
        VectorOperand(&call, "dst", dst, bytes, true);                                            \
        call.NoPartialOverlap();                                                                  \
        call.Run([=] {                                                                            \
            literal::Name<T>(dst.Literal(), src0.Literal(), src1.Literal(),                       \
                             static_cast<int32_t>(count));                                        \
        });                                                                                       \
    }                                                                                             \
    template <typename T>                                                                         \
    inline void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src0,                       \
                     const LocalTensor<T>& src1, uint64_t mask, TwinField<uint8_t> repeatTime,    \
                     const BinaryRepeatParams& p,                                                 \
                     ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {          \
        using namespace ascend_twin::check;                                                       \
        static_assert(kVectorServes<T>, "the twin's " #Name " serves float");                     \
        Call call(#Name, PIPE_V, RoleKind::kAiv, site);                                           \
        call.Number("mask", static_cast<int64_t>(mask), 1, 256 / sizeof(T));                      \
        call.Limit("repeatTime", repeatTime, 0, 255);                                             \
        const RepeatShape shape = {sizeof(T), mask, static_cast<uint64_t>(repeatTime.Wide())};    \
        RepeatOperand(&call, "src0", src0, shape, p.src0BlkStride, p.src0RepStride, false);       \
        RepeatOperand(&call, "src1", src1, shape, p.src1BlkStride, p.src1RepStride, false);       \
        RepeatOperand(&call, "dst", dst, shape, p.dstBlkStride, p.dstRepStride, true);            \
        call.NoPartialOverlap();                                                                  \
        call.Run([=] {                                                                            \
            literal::Name<T>(dst.Literal(), src0.Literal(), src1.Literal(), mask, repeatTime, p); \
        });                                                                                       \
    }
ASCEND_TWIN_BINARY(Add)
ASCEND_TWIN_BINARY(Sub)
ASCEND_TWIN_BINARY(Mul)
ASCEND_TWIN_BINARY(Div)
ASCEND_TWIN_BINARY(Max)
ASCEND_TWIN_BINARY(Min)
#undef ASCEND_TWIN_BINARY

#define ASCEND_TWIN_SCALAR(Name)                                                                 \
    template <typename T>                                                                        \
    inline void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue, \
                     int64_t count,                                                              \
                     ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {         \
        using namespace ascend_twin::check;                                                      \
        static_assert(kVectorServes<T>, "the twin's " #Name " serves float");                    \
        Call call(#Name, PIPE_V, RoleKind::kAiv, site);                                          \
        call.Number("count", count, 0, kMaxCount);                                               \
        const uint64_t bytes = static_cast<uint64_t>(count) * sizeof(T);                         \
        VectorOperand(&call, "src", src, bytes, false);                                          \
        VectorOperand(&call, "dst", dst, bytes, true);                                           \
        call.NoPartialOverlap();                                                                 \
        call.Run([=] {                                                                           \
            literal::Name<T>(dst.Literal(), src.Literal(), scalarValue,                          \
                             static_cast<int32_t>(count));                                       \
        });                                                                                      \
    }
ASCEND_TWIN_SCALAR(Adds)
ASCEND_TWIN_SCALAR(Muls)
ASCEND_TWIN_SCALAR(Maxs)
ASCEND_TWIN_SCALAR(Mins)
#undef ASCEND_TWIN_SCALAR

#define ASCEND_TWIN_UNARY(Name)                                                                    \
    template <typename T>                                                                          \
    inline void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, int64_t count,          \
                     ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {           \
        using namespace ascend_twin::check;                                                        \
        static_assert(kVectorServes<T>, "the twin's " #Name " serves float");                      \
        Call call(#Name, PIPE_V, RoleKind::kAiv, site);                                            \
        call.Number("count", count, 0, kMaxCount);                                                 \
        const uint64_t bytes = static_cast<uint64_t>(count) * sizeof(T);                           \
        VectorOperand(&call, "src", src, bytes, false);                                            \
        VectorOperand(&call, "dst", dst, bytes, true);                                             \
        call.NoPartialOverlap();                                                                   \
        call.Run(                                                                                  \
            [=] { literal::Name<T>(dst.Literal(), src.Literal(), static_cast<int32_t>(count)); }); \
    }
ASCEND_TWIN_UNARY(Exp)
ASCEND_TWIN_UNARY(Ln)
ASCEND_TWIN_UNARY(Sqrt)
#undef ASCEND_TWIN_UNARY

template <typename T>
inline void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, int64_t count,
                      ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("Duplicate", PIPE_V, RoleKind::kAiv, site);
    call.Number("count", count, 0, kMaxCount);
    VectorOperand(&call, "dst", dst, static_cast<uint64_t>(count) * sizeof(T), true);
    call.Run(
        [=] { literal::Duplicate<T>(dst.Literal(), scalarValue, static_cast<int32_t>(count)); });
}

// Bit form. The bits of one repeat are at most a few runs; each is an operand of its own.
template <typename T>
inline void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, uint64_t mask[],
                      TwinField<uint8_t> repeatTime, TwinField<uint16_t> dstBlockStride,
                      TwinField<uint8_t> dstRepeatStride,
                      ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("Duplicate", PIPE_V, RoleKind::kAiv, site);
    call.InSpace("dst", dst.GetPosition(), Space::kUb);
    call.Limit("repeatTime", repeatTime, 0, 255);
    call.Width("dstBlockStride", dstBlockStride);
    call.Width("dstRepeatStride", dstRepeatStride);
    constexpr uint32_t kElems = 256 / sizeof(T);
    uint32_t first = 0, last = 0;  // the selected elements, from the first to the last
    for (uint32_t i = 0; i < kElems; ++i) {
        if ((mask[i / 64] >> (i % 64) & 1u) == 0) continue;
        if (last == 0) first = i;
        last = i + 1;
    }
    Access to = dst.Bytes(sizeof(T) * (last - first));
    to.begin += first * sizeof(T);
    to.Repeat(static_cast<uint64_t>(repeatTime.Wide()),
              static_cast<uint64_t>(dstRepeatStride.Wide()) * kVectorUnit);
    call.Write(to);
    call.Align("dst", dst.Bytes(0), kVectorUnit);
    const uint64_t low = mask[0], high = kElems > 64 ? mask[1] : 0;
    call.Run([=] {
        uint64_t bits[2] = {low, high};
        literal::Duplicate<T>(dst.Literal(), scalarValue, bits, repeatTime, dstBlockStride,
                              dstRepeatStride);
    });
}

template <typename T>
inline void Brcb(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                 TwinField<uint8_t> repeatTime, const BrcbRepeatParams& p,
                 ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("Brcb", PIPE_V, RoleKind::kAiv, site);
    call.Limit("repeatTime", repeatTime, 0, 255);
    call.Width("dstBlkStride", p.dstBlkStride);
    call.Width("dstRepStride", p.dstRepStride);
    const uint64_t repeats = static_cast<uint64_t>(repeatTime.Wide());
    VectorOperand(&call, "src", src, repeats * 8 * sizeof(T), false);
    call.InSpace("dst", dst.GetPosition(), Space::kUb);
    Access to = dst.Bytes(kVectorUnit);
    to.Repeat(8, static_cast<uint64_t>(p.dstBlkStride.Wide()) * kVectorUnit);
    to.Repeat(repeats, static_cast<uint64_t>(p.dstRepStride.Wide()) * kVectorUnit);
    call.Align("dst", call.Write(to), kVectorUnit);
    call.NoPartialOverlap();
    call.Run([=] { literal::Brcb<T>(dst.Literal(), src.Literal(), repeatTime, p); });
}

template <typename T, typename U>
inline void Cast(const LocalTensor<T>& dst, const LocalTensor<U>& src, const RoundMode& roundMode,
                 int64_t count, ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    static_assert(kCastServes<T, U>, "Cast serves half <-> float and bfloat16_t <-> float");
    Call call("Cast", PIPE_V, RoleKind::kAiv, site);
    call.Number("count", count, 0, kMaxCount);
    const RoundMode wanted = sizeof(T) > sizeof(U) ? RoundMode::CAST_NONE : RoundMode::CAST_RINT;
    if (roundMode != wanted) {
        call.Fail("round_mode",
                  sizeof(T) > sizeof(U) ? "a rounding mode of a widening Cast"
                                        : "a mode other than CAST_RINT",
                  sizeof(T) > sizeof(U) ? "CAST_NONE" : "CAST_RINT",
                  "widening is exact and takes CAST_NONE; to narrow, the twin serves CAST_RINT");
    }
    VectorOperand(&call, "src", src, static_cast<uint64_t>(count) * sizeof(U), false);
    VectorOperand(&call, "dst", dst, static_cast<uint64_t>(count) * sizeof(T), true);
    call.NoPartialOverlap();
    call.Run([=] {
        literal::Cast<T, U>(dst.Literal(), src.Literal(), roundMode, static_cast<uint32_t>(count));
    });
}

template <typename T>
inline void Gather(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                   const LocalTensor<uint32_t>& srcOffset, uint32_t srcBaseAddr, int64_t count,
                   ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("Gather", PIPE_V, RoleKind::kAiv, site);
    call.Number("count", count, 0, kMaxCount);
    const uint64_t elems = static_cast<uint64_t>(count);
    VectorOperand(&call, "srcOffset", srcOffset, elems * sizeof(uint32_t), false);
    // Which elements it takes is known when it runs: to be safe, from the base to the end.
    Access from = src.Bytes(0);
    const uint64_t end = from.end;
    from.begin += srcBaseAddr;
    from.run = end > from.begin ? end - from.begin : 0;
    call.InSpace("src", src.GetPosition(), Space::kUb);
    call.Read(from);
    VectorOperand(&call, "dst", dst, elems * sizeof(T), true);
    const uint64_t room = from.run;
    call.Run([=] {
        const ascend_twin_literal::LocalTensor<uint32_t> offsets = srcOffset.Literal();
        for (uint32_t i = 0; i < elems; ++i) {
            if (offsets.GetValue(i) + sizeof(T) <= room) continue;
            FailNow(
                "tensor_bounds", "Gather", site,
                "srcOffset[" + std::to_string(i) + "] is " + std::to_string(offsets.GetValue(i)),
                "at most " + std::to_string(room - sizeof(T)),
                "offsets are bytes from srcBaseAddr and must stay inside of src");
            return;
        }
        literal::Gather<T>(dst.Literal(), src.Literal(), offsets, srcBaseAddr,
                           static_cast<uint32_t>(elems));
    });
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_CHECK_VECTOR_H_
