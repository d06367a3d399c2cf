// Vector calls on UB. Count form: `count` consecutive elements. Mask form: `repeatTime` repeats of
// 8 blocks of 32 bytes, the first `mask` elements of each repeat; strides in blocks.
#ifndef ASCEND_TWIN_VECTOR_H_
#define ASCEND_TWIN_VECTOR_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "ascend_twin/integer_casts.h"
#include "ascend_twin/params.h"
#include "ascend_twin/tensor.h"
#include "ascend_twin/vector_math.h"

namespace ascend_twin {

constexpr uint32_t kRepeatBlocks = 8;

template <typename T>
constexpr uint32_t kBlockElems = 32 / sizeof(T);

// That many floats, as the compiler's vector extension has them.
template <uint32_t width>
struct LanesOf {
    typedef float Type __attribute__((vector_size(width * sizeof(float))));
};
template <uint32_t width>
using Lanes = typename LanesOf<width>::Type;

// Operators of floats, and of vectors of them (the compiler's vector extension).
struct AddOf {
    template <typename V>
    V operator()(V a, V b) const {
        return a + b;
    }
};
struct SubOf {
    template <typename V>
    V operator()(V a, V b) const {
        return a - b;
    }
};
struct MulOf {
    template <typename V>
    V operator()(V a, V b) const {
        return a * b;
    }
};
struct DivOf {
    template <typename V>
    V operator()(V a, V b) const {
        return a / b;
    }
};
// A NaN operand gives NaN, whichever side it is on.
struct MaxOf {
    template <typename V>
    V operator()(V a, V b) const {
        const V larger = a > b ? a : b;  // b where either is NaN: one instruction
        return a != a ? a : larger;
    }
};
struct MinOf {
    template <typename V>
    V operator()(V a, V b) const {
        const V smaller = a < b ? a : b;
        return a != a ? a : smaller;
    }
};

template <typename Op>
inline void BinaryCount(float* dst, const float* src0, const float* src1, uint32_t count, Op op) {
    ASCEND_TWIN_IVDEP
    for (uint32_t i = 0; i < count; ++i) dst[i] = op(src0[i], src1[i]);
}

// One whole repeat whose blocks lie side by side; src1 too, or one block of it for all eight.
template <typename Op>
inline void BinaryWholeRepeat(float* dst, const float* src0, const float* src1, bool oneBlock,
                              Op op) {
    constexpr uint32_t elems = kBlockElems<float>;
    if (!oneBlock) {
        BinaryCount(dst, src0, src1, kRepeatBlocks * elems, op);
        return;
    }
    Lanes<elems> a, b;
    std::memcpy(&b, src1, sizeof(b));
    for (uint32_t i = 0; i < kRepeatBlocks * elems; i += elems) {
        std::memcpy(&a, src0 + i, sizeof(a));
        a = op(a, b);
        std::memcpy(dst + i, &a, sizeof(a));
    }
}

template <typename Op>
inline void BinaryRepeat(float* dst, const float* src0, const float* src1, uint64_t mask,
                         uint32_t repeatTime, const AscendC::BinaryRepeatParams& p, Op op) {
    constexpr uint32_t elems = kBlockElems<float>;
    const uint32_t blocks = static_cast<uint32_t>(mask / elems);
    const uint32_t tail = static_cast<uint32_t>(mask % elems);
    const bool whole = blocks == kRepeatBlocks && p.dstBlkStride == 1 && p.src0BlkStride == 1 &&
                       p.src1BlkStride <= 1;
    for (uint32_t repeat = 0; repeat < repeatTime; ++repeat) {
        float* d = dst + repeat * p.dstRepStride * elems;
        const float* a = src0 + repeat * p.src0RepStride * elems;
        const float* b = src1 + repeat * p.src1RepStride * elems;
        if (whole) {
            BinaryWholeRepeat(d, a, b, p.src1BlkStride == 0, op);
            continue;
        }
        for (uint32_t block = 0; block < blocks; ++block) {
            for (uint32_t i = 0; i < elems; ++i) d[i] = op(a[i], b[i]);
            d += p.dstBlkStride * elems;
            a += p.src0BlkStride * elems;
            b += p.src1BlkStride * elems;
        }
        for (uint32_t i = 0; i < tail; ++i) d[i] = op(a[i], b[i]);
    }
}

template <typename To, typename From>
inline void CastCount(To* dst, const From* src, uint32_t count) {
    static_assert(std::is_same_v<To, float> != std::is_same_v<From, float>,
                  "the twin's Cast serves half, bfloat16_t and int32_t <-> float, and int8_t and "
                  "int4b_t <-> half");
    if constexpr (std::is_same_v<To, float>) {
        ToFloats(dst, src, count);
    } else {
        FromFloats(dst, src, count);
    }
}

}  // namespace ascend_twin

namespace AscendC {

#define ASCEND_TWIN_BINARY(Name, Op)                                                      \
    template <typename T>                                                                 \
    inline void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src0,               \
                     const LocalTensor<T>& src1, const int32_t& count) {                  \
        static_assert(std::is_same_v<T, float>, "the twin's " #Name " serves float");     \
        const uint32_t elems = static_cast<uint32_t>(count);                              \
        const T *a = src0.Source(elems), *b = src1.Source(elems);                         \
        ascend_twin::BinaryCount(dst.Target(elems), a, b, elems, ascend_twin::Op());      \
    }                                                                                     \
    template <typename T>                                                                 \
    inline void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src0,               \
                     const LocalTensor<T>& src1, uint64_t mask, const uint8_t repeatTime, \
                     const BinaryRepeatParams& repeatParams) {                            \
        static_assert(std::is_same_v<T, float>, "the twin's " #Name " serves float");     \
        ascend_twin::BinaryRepeat(dst.Data(), src0.Data(), src1.Data(), mask, repeatTime, \
                                  repeatParams, ascend_twin::Op());                       \
    }
ASCEND_TWIN_BINARY(Add, AddOf)
ASCEND_TWIN_BINARY(Sub, SubOf)
ASCEND_TWIN_BINARY(Mul, MulOf)
ASCEND_TWIN_BINARY(Div, DivOf)
ASCEND_TWIN_BINARY(Max, MaxOf)
ASCEND_TWIN_BINARY(Min, MinOf)
#undef ASCEND_TWIN_BINARY

#define ASCEND_TWIN_SCALAR(Name, Op)                                                             \
    template <typename T>                                                                        \
    inline void Name(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue, \
                     const int32_t& count) {                                                     \
        static_assert(std::is_same_v<T, float>, "the twin's " #Name " serves float");            \
        const T* from = src.Source(static_cast<uint32_t>(count));                                \
        T* to = dst.Target(static_cast<uint32_t>(count));                                        \
        const T value = scalarValue;                                                             \
        const ascend_twin::Op op;                                                                \
        ASCEND_TWIN_IVDEP                                                                        \
        for (int32_t i = 0; i < count; ++i) to[i] = op(from[i], value);                          \
    }
ASCEND_TWIN_SCALAR(Adds, AddOf)
ASCEND_TWIN_SCALAR(Muls, MulOf)
ASCEND_TWIN_SCALAR(Maxs, MaxOf)
ASCEND_TWIN_SCALAR(Mins, MinOf)
#undef ASCEND_TWIN_SCALAR

template <typename T>
inline void Exp(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t& count) {
    static_assert(std::is_same_v<T, float>, "the twin's Exp serves float");
    const T* from = src.Source(static_cast<uint32_t>(count));
    T* to = dst.Target(static_cast<uint32_t>(count));
    ascend_twin::ExpEach(to, from, static_cast<uint32_t>(count));
}

template <typename T>
inline void Ln(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t& count) {
    static_assert(std::is_same_v<T, float>, "the twin's Ln serves float");
    const T* from = src.Source(static_cast<uint32_t>(count));
    T* to = dst.Target(static_cast<uint32_t>(count));
    for (int32_t i = 0; i < count; ++i) to[i] = std::log(from[i]);
}

template <typename T>
inline void Abs(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t& count) {
    static_assert(std::is_same_v<T, float>, "the twin's Abs serves float");
    const T* from = src.Source(static_cast<uint32_t>(count));
    T* to = dst.Target(static_cast<uint32_t>(count));
    ASCEND_TWIN_IVDEP
    for (int32_t i = 0; i < count; ++i) to[i] = std::fabs(from[i]);
}

template <typename T>
inline void Sqrt(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t& count) {
    static_assert(std::is_same_v<T, float>, "the twin's Sqrt serves float");
    const T* from = src.Source(static_cast<uint32_t>(count));
    T* to = dst.Target(static_cast<uint32_t>(count));
    for (int32_t i = 0; i < count; ++i) to[i] = std::sqrt(from[i]);
}

template <typename T>
inline void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, const int32_t& count) {
    const T value = scalarValue;
    std::fill_n(dst.Target(static_cast<uint32_t>(count)), count, value);
}

// Bit form: bit i of mask (mask[0] first) selects element i of each repeat.
template <typename T>
inline void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, uint64_t mask[],
                      const uint8_t repeatTime, const uint16_t dstBlockStride,
                      const uint8_t dstRepeatStride) {
    constexpr uint32_t elems = ascend_twin::kBlockElems<T>;
    constexpr uint32_t repeatElems = elems * ascend_twin::kRepeatBlocks;
    const T value = scalarValue;
    if (repeatElems == 64 && dstBlockStride == 1) {
        // Runs of selected elements, the same in each repeat.
        T* to = dst.Data();
        for (uint64_t left = mask[0]; left != 0;) {
            const uint32_t from = static_cast<uint32_t>(__builtin_ctzll(left));
            const uint64_t past = ~(left >> from);
            const uint32_t run = past == 0 ? 64 : static_cast<uint32_t>(__builtin_ctzll(past));
            for (uint32_t repeat = 0; repeat < repeatTime; ++repeat) {
                std::fill_n(to + repeat * dstRepeatStride * elems + from, run, value);
            }
            left = from + run >= 64 ? 0 : left >> (from + run) << (from + run);
        }
        return;
    }
    for (uint32_t repeat = 0; repeat < repeatTime; ++repeat) {
        T* row = dst.Data() + repeat * dstRepeatStride * elems;
        for (uint32_t i = 0; i < repeatElems; ++i) {
            if ((mask[i / 64] >> (i % 64) & 1u) != 0) {
                row[(i / elems) * dstBlockStride * elems + i % elems] = value;
            }
        }
    }
}

// Eight consecutive elements a repeat, each to a whole block.
template <typename T>
inline void Brcb(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint8_t repeatTime,
                 const BrcbRepeatParams& repeatParams) {
    constexpr uint32_t elems = ascend_twin::kBlockElems<T>;
    const T* from = src.Data();
    T* to = dst.Data();
    for (uint32_t repeat = 0; repeat < repeatTime; ++repeat) {
        for (uint32_t i = 0; i < 8; ++i) {
            T* block =
                to + (repeat * repeatParams.dstRepStride + i * repeatParams.dstBlkStride) * elems;
            const T value = from[repeat * 8 + i];
            for (uint32_t j = 0; j < elems; ++j) block[j] = value;
        }
    }
}

template <typename T, typename U>
inline void Cast(const LocalTensor<T>& dst, const LocalTensor<U>& src,
                 const RoundMode& /*roundMode: NONE to widen, RINT to narrow*/,
                 const uint32_t count) {
    const U* from = src.Source(count);
    ascend_twin::CastCount(dst.Target(count), from, count);
}

// dst[i] = src at byte srcBaseAddr + srcOffset[i].
template <typename T>
inline void Gather(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                   const LocalTensor<uint32_t>& srcOffset, const uint32_t srcBaseAddr,
                   const uint32_t count) {
    const auto* base = reinterpret_cast<const uint8_t*>(src.Data()) + srcBaseAddr;
    const uint32_t* offsets = srcOffset.Data();
    T* to = dst.Data();
    for (uint32_t i = 0; i < count; ++i) std::memcpy(to + i, base + offsets[i], sizeof(T));
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_VECTOR_H_
