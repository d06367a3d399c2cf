// LoadData, Mmad and Fixpipe: L1 to L0, the product, L0C to GM.
#ifndef ASCEND_TWIN_CHECK_CUBE_H_
#define ASCEND_TWIN_CHECK_CUBE_H_

#include <cstdint>
#include <string>
#include <type_traits>

#include "ascend_twin_check/copy.h"
#include "ascend_twin_check/operation.h"
#include "ascend_twin_check/params.h"
#include "ascend_twin_check/tensor.h"

namespace ascend_twin {
namespace check {

constexpr uint64_t kL0Unit = 512;    // of L0A and L0B addresses
constexpr uint64_t kL0cUnit = 64;    // of L0C addresses
constexpr uint64_t kSmallMmad = 10;  // fractals of C, below which accumulation wants PIPE_M
constexpr int64_t kMaxMmad = 4095;

// What Mmad takes: nothing else compiles on hardware.
template <typename C, typename A>
inline constexpr bool kMmadServes =
    std::is_same_v<C, float> &&
    (std::is_same_v<A, half> || std::is_same_v<A, bfloat16_t> || std::is_same_v<A, float>);

inline uint64_t Ceil(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit; }

template <typename T>
inline void RequireL0(Call* call, const AscendC::LocalTensor<T>& dst) {
    const bool toA = dst.GetPosition() == TPosition::A2;
    call->InSpace("dst", dst.GetPosition(), toA ? Space::kL0a : Space::kL0b);
}

}  // namespace check
}  // namespace ascend_twin

namespace AscendC {

template <typename T>
inline void LoadData(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                     const LoadData2DParams& params,
                     ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("LoadData", PIPE_MTE1, RoleKind::kAic, site);
    call.IsCopy(kFractalBytes);
    RequireL0(&call, dst);
    call.InSpace("src", src.GetPosition(), Space::kL1);
    call.Width("startIndex", params.startIndex);
    call.Limit("repeatTimes", params.repeatTimes, 1, 255);
    call.Width("srcStride", params.srcStride);
    call.Width("dstGap", params.dstGap);
    if (params.ifTranspose && sizeof(T) != 2) {
        call.Fail("dtype", "ifTranspose of elements of " + std::to_string(sizeof(T)) + " bytes",
                  "16-bit elements", "use LoadDataWithTranspose");
        call.Forbid();
    }
    const auto number = [](const auto& field) { return static_cast<uint64_t>(field.Wide()); };
    Access from = src.Bytes(kFractalBytes);
    from.begin += number(params.startIndex) * kFractalBytes;
    from.Repeat(number(params.repeatTimes), number(params.srcStride) * kFractalBytes);
    call.Align("src", call.Read(from), kFractalBytes);
    Access to = dst.Bytes(kFractalBytes);
    to.Repeat(number(params.repeatTimes), (1 + number(params.dstGap)) * kFractalBytes);
    call.Align("dst", call.Write(to), kL0Unit);
    call.Run([=] { literal::LoadData<T>(dst.Literal(), src.Literal(), params); });
}

template <typename T>
inline void LoadDataWithTranspose(
    const LocalTensor<T>& dst, const LocalTensor<T>& src, const LoadData2dTransposeParams& params,
    ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    Call call("LoadDataWithTranspose", PIPE_MTE1, RoleKind::kAic, site);
    call.IsCopy(kFractalBytes);
    RequireL0(&call, dst);
    call.InSpace("src", src.GetPosition(), Space::kL1);
    call.Width("startIndex", params.startIndex);
    call.Limit("repeatTimes", params.repeatTimes, 1, 255);
    call.Width("srcStride", params.srcStride);
    call.Width("dstGap", params.dstGap);
    call.Width("dstFracGap", params.dstFracGap);
    const auto number = [](const auto& field) { return static_cast<uint64_t>(field.Wide()); };
    constexpr uint64_t kSquare = 2 * kFractalBytes;
    Access from = src.Bytes(kSquare);
    from.begin += number(params.startIndex) * kSquare;
    from.Repeat(number(params.repeatTimes), number(params.srcStride) * kSquare);
    call.Align("src", call.Read(from), kFractalBytes);
    Access to = dst.Bytes(kFractalBytes);
    to.Repeat(2, (1 + number(params.dstFracGap)) * kFractalBytes);
    to.Repeat(number(params.repeatTimes), (1 + number(params.dstGap)) * kFractalBytes);
    call.Align("dst", call.Write(to), kL0Unit);
    call.Run([=] { literal::LoadDataWithTranspose<T>(dst.Literal(), src.Literal(), params); });
}

template <typename T, typename U>
inline void Mmad(const LocalTensor<T>& dst, const LocalTensor<U>& fm, const LocalTensor<U>& filter,
                 const MmadParams& params,
                 ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    static_assert(kMmadServes<T, U>, "Mmad takes half, bfloat16_t or float and gives float");
    Call call("Mmad", PIPE_M, RoleKind::kAic, site);
    call.InSpace("dst", dst.GetPosition(), Space::kL0c);
    call.InSpace("fm", fm.GetPosition(), Space::kL0a);
    call.InSpace("filter", filter.GetPosition(), Space::kL0b);
    call.Limit("m", params.m, 1, kMaxMmad);
    call.Limit("n", params.n, 1, kMaxMmad);
    call.Limit("k", params.k, 1, kMaxMmad);
    if (params.m.Wide() == 1) {
        call.Fail("mmad_m1", "m = 1", "2 or more rows",
                  "m = 1 makes Mmad a GEMV, which reads A as a plain vector: pass max(2, rows)");
    }
    const auto number = [](const auto& field) { return static_cast<uint64_t>(field.Wide()); };
    constexpr uint64_t kDepth = kBlockBytes / sizeof(U);
    const uint64_t m = Ceil(number(params.m), 16), n = Ceil(number(params.n), 16);
    const uint64_t k = Ceil(number(params.k), kDepth);
    // 16 x 16 x 16 of 16 bits a cycle, a quarter of that of float, whose fractals are half as deep.
    call.IsMmad(!params.cmatrixInitVal,
                (number(params.m) / 16) * (number(params.n) / 16) < kSmallMmad,
                m * n * k * (sizeof(U) == 2 ? 1 : 2));
    call.Align("fm", call.Read(fm.Bytes(m * k * kFractalBytes)), kL0Unit);
    call.Align("filter", call.Read(filter.Bytes(n * k * kFractalBytes)), kL0Unit);
    const uint64_t bytes = m * n * 256 * sizeof(T);
    if (!params.cmatrixInitVal) call.Read(dst.Bytes(bytes));
    call.Align("dst", call.Write(dst.Bytes(bytes)), kL0cUnit);
    call.Run([=] { literal::Mmad<T, U>(dst.Literal(), fm.Literal(), filter.Literal(), params); });
}

template <typename T, typename U, const FixpipeConfig& config = CFG_ROW_MAJOR>
inline void Fixpipe(const GlobalTensor<T>& dst, const LocalTensor<U>& src,
                    const FixpipeParamsV220& params,
                    ascend_twin::check::Site site = ascend_twin::check::Site::Here()) {
    using namespace ascend_twin::check;
    static_assert(config.format == CO2Layout::ROW_MAJOR, "the twin's Fixpipe serves CFG_ROW_MAJOR");
    static_assert(std::is_same_v<T, float> && std::is_same_v<U, float>,
                  "the twin's Fixpipe serves float to float");
    Call call("Fixpipe", PIPE_FIX, RoleKind::kAic, site);
    call.IsCopy();
    call.InSpace("src", src.GetPosition(), Space::kL0c);
    call.Limit("nSize", params.nSize, 1, 4095);
    call.Limit("mSize", params.mSize, 1, 8192);
    call.Width("srcStride", params.srcStride);
    call.Width("dstStride", params.dstStride);
    call.Limit("ndNum", params.ndNum, 1, 1);  // what the twin serves
    const auto number = [](const auto& field) { return static_cast<uint64_t>(field.Wide()); };
    call.Multiple("nSize", number(params.nSize), 16);
    if (number(params.srcStride) % 16 != 0 || number(params.srcStride) < number(params.mSize)) {
        call.Fail("parameter", "srcStride " + std::to_string(params.srcStride.Wide()),
                  "mSize rounded up to 16: " + std::to_string(Ceil(number(params.mSize), 16) * 16),
                  "srcStride is the rows of the tile in L0C");
    }
    if (params.quantPre >= QuantMode_t::DEQF16 && params.deqScalar == 0) {
        call.Fail("deq_scalar", "quantPre with deqScalar = 0", "the scale's bits in deqScalar",
                  "set params.deqScalar; unset, every result is multiplied by 0");
    }
    if (params.quantPre != QuantMode_t::NoQuant) {
        call.Fail("not_served", "quantPre", "QuantMode_t::NoQuant",
                  "emit float and convert on the AIV");
        call.Forbid();
    }
    const uint64_t n = Ceil(number(params.nSize), 16);
    Access from = src.Bytes(number(params.mSize) * 16 * sizeof(U));
    from.Repeat(n, number(params.srcStride) * 16 * sizeof(U));
    call.Align("src", call.Read(from), kL0cUnit);
    Access to = dst.Bytes(number(params.nSize) * sizeof(T));
    to.Repeat(number(params.mSize), number(params.dstStride) * sizeof(T));
    const Access stored = call.Write(to);
    call.Run([=] {
        StoreToGm(stored,
                  [&] { literal::Fixpipe<T, U, config>(dst.Literal(), src.Literal(), params); });
    });
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_CHECK_CUBE_H_
