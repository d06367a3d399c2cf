// DataCopy, DataCopyPad, LoadData, LoadDataWithTranspose and Fixpipe: every move between memories.
#ifndef ASCEND_TWIN_COPY_H_
#define ASCEND_TWIN_COPY_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ascend_twin/integers.h"
#include "ascend_twin/params.h"
#include "ascend_twin/product.h"
#include "ascend_twin/tensor.h"
#include "ascend_twin/transpose.h"

namespace ascend_twin {

// Elements of one fractal row: 16 for half, 8 for float.
template <typename T>
constexpr uint32_t kFractalCols = kBlockBytes / sizeof(T);

// One block, through a register.
inline void CopyBlock(void* to, const void* from) {
    typedef uint64_t Block __attribute__((vector_size(kBlockBytes)));
    Block block;
    std::memcpy(&block, from, kBlockBytes);
    std::memcpy(to, &block, kBlockBytes);
}

// rows x blocks of 32 bytes, row-major with a pitch, to fractals some bytes apart.
inline void RowsToFractals(uint8_t* to, uint64_t blockStep, uint64_t rowStep, const uint8_t* from,
                           uint64_t pitch, uint32_t rows, uint32_t blocks) {
    for (uint32_t block = 0; block < blocks; ++block) {
        uint8_t* out = to + block * blockStep;
        const uint8_t* in = from + block * kBlockBytes;
        // The rows of the next call, a line for every two of their blocks.
        const uint8_t* next = block % 2 == 0 ? in + rows * pitch : in;
        for (uint32_t row = 0; row < rows; ++row) {
            __builtin_prefetch(next);
            CopyBlock(out, in);
            out += rowStep;
            in += pitch;
            next += pitch;
        }
    }
}

// One fractal of T to a float panel of the same shape.
template <typename T>
inline void FractalToPanel(float* panel, const FractalView& fractal) {
    for (uint32_t row = 0; row < kFractalRows; ++row, panel += kFractalCols<T>) {
        const T* from = reinterpret_cast<const T*>(fractal.rows + uint64_t{row} * fractal.pitch);
        if constexpr (sizeof(T) == 2) {
            ToFloats(panel, from, kFractalCols<T>);
        } else {
            static_assert(std::is_same_v<T, float>, "LoadData serves half, bfloat16_t and float");
            std::memcpy(panel, from, kBlockBytes);
        }
    }
}

// How LoadData leaves fractals of T in L0B; only 16-bit types can be transposed on their way.
template <typename T>
constexpr FractalForm FormOf(bool transposed) {
    if constexpr (std::is_same_v<T, half>) {
        return transposed ? FractalForm::kHalfRowsK : FractalForm::kHalfRowsN;
    } else if constexpr (std::is_same_v<T, bfloat16_t>) {
        return transposed ? FractalForm::kBfloat16RowsK : FractalForm::kBfloat16RowsN;
    } else {
        return FractalForm::kFloatRowsN;
    }
}

// panel[c][r] = fractal[r][c].
template <typename T>
inline void FractalToPanelTransposed(float* panel, const FractalView& fractal) {
    constexpr uint32_t cols = kFractalCols<T>;
    alignas(64) float rows[kFractalRows * cols];
    FractalToPanel<T>(rows, fractal);
    for (uint32_t c = 0; c < cols; c += 8) {
        Transpose8(panel + c * kFractalRows, kFractalRows, rows + c, cols);
        Transpose8(panel + c * kFractalRows + 8, kFractalRows, rows + 8 * cols + c, cols);
    }
}

// Serves a copy of an input's whole fractals by views of them; false where it cannot.
template <typename T>
inline bool ViewMatrices(const AscendC::LocalTensor<T>& dst, const AscendC::GlobalTensor<T>& src,
                         const AscendC::Nd2NzParams& params) {
    constexpr uint32_t cols = kFractalCols<T>, elems = kFractalBytes / sizeof(T);
    const uint32_t pitch = params.srcDValue * static_cast<uint32_t>(sizeof(T));
    CoreMemory* memory = CurrentContext().memory;
    const uint64_t begin = L1Offset(memory, dst.FirstFractal());
    const bool whole = params.dValue % cols == 0 && params.nValue % kFractalRows == 0 &&
                       params.dstNzNStride == 1 && params.dstNzC0Stride % kFractalRows == 0 &&
                       params.dstNzMatrixStride % elems == 0 && begin % kFractalBytes == 0;
    if (!src.IsInput() || !whole || pitch > kMaxViewPitch) return false;
    for (uint32_t nd = 0; nd < params.ndNum; ++nd) {
        const auto* matrix = reinterpret_cast<const uint8_t*>(
            src.GetPhyAddr() + static_cast<uint64_t>(nd) * params.srcNdMatrixStride);
        const uint64_t to = begin + nd * params.dstNzMatrixStride * sizeof(T);
        for (uint32_t block = 0; block < params.dValue / cols; ++block) {
            const uint64_t column = to + block * params.dstNzC0Stride * uint64_t{kBlockBytes};
            for (uint32_t row = 0; row < params.nValue; row += kFractalRows) {
                ViewFractal(memory, column + row * kBlockBytes,
                            {matrix + uint64_t{row} * pitch + block * kBlockBytes, pitch});
            }
            // The first line of each row; who reads it asks for the next ones.
            for (uint32_t row = 0; block == 0 && row < params.nValue; ++row) {
                __builtin_prefetch(matrix + uint64_t{row} * pitch, 0, 2);
            }
        }
    }
    return true;
}

// Serves a copy of whole fractals of an input, one after the other, by views of them; false where
// it cannot.
template <typename T>
inline bool ViewFractals(const AscendC::LocalTensor<T>& dst, const AscendC::GlobalTensor<T>& src,
                         uint32_t count) {
    const uint64_t bytes = uint64_t{count} * sizeof(T);
    CoreMemory* memory = CurrentContext().memory;
    const uint64_t begin = L1Offset(memory, dst.FirstFractal());
    if (!src.IsInput() || bytes % kFractalBytes != 0 || begin % kFractalBytes != 0) return false;
    const auto* from = reinterpret_cast<const uint8_t*>(src.GetPhyAddr());
    for (uint64_t at = 0; at < bytes; at += kFractalBytes) {
        ViewFractal(memory, begin + at, {from + at, kBlockBytes});
    }
    return true;
}

// LoadData of int8: fractals are referred to, in L1 or in GM.
inline void LoadBytes(const AscendC::LocalTensor<int8_t>& dst,
                      const AscendC::LocalTensor<int8_t>& src,
                      const AscendC::LoadData2DParams& params) {
    CoreMemory* memory = CurrentContext().memory;
    const bool toB = dst.GetPosition() == AscendC::TPosition::B2;
    const auto* base = reinterpret_cast<const uint8_t*>(toB ? memory->l0b.panels : memory->l0a);
    const auto* to = reinterpret_cast<const uint8_t*>(dst.Panel());
    uint32_t at = static_cast<uint32_t>(to - base) / kFractalBytes;
    FlushProduct();
    const auto* from = reinterpret_cast<const uint8_t*>(src.FirstFractal()) +
                       uint64_t{params.startIndex} * kFractalBytes;
    for (uint32_t repeat = 0; repeat < params.repeatTimes; ++repeat, at += 1 + params.dstGap) {
        const uint8_t* fractal = LocateBytes(memory, from);
        if (toB) {
            memory->l0b.Place(at, {fractal, kBlockBytes}, FractalForm::kBytes);
        } else {
            memory->integers.source[at] = fractal;
        }
        from += uint64_t{params.srcStride} * kFractalBytes;
    }
}

// The two fractals of a square, left and right half of 16 rows of floats: a view of both where
// their halves lie side by side, else as they lie in L1.
inline FractalView LocateSquare(CoreMemory* memory, const float* square) {
    const FractalView left = Locate(memory, square);
    const FractalView right = Locate(memory, square + kFractalBytes / sizeof(float));
    if (left.pitch > kBlockBytes && left.pitch == right.pitch &&
        right.rows == left.rows + kBlockBytes) {
        return left;
    }
    SettleL1(memory, square, 2 * kFractalBytes);
    return {reinterpret_cast<const uint8_t*>(square), kBlockBytes};
}

}  // namespace ascend_twin

namespace AscendC {

template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, uint32_t count) {
    if (ascend_twin::IsL1(dst.GetPosition())) {
        if (ascend_twin::ViewFractals(dst, src, count)) return;
        ascend_twin::BeforeL1Write(dst.FirstFractal(), dst.FirstFractal() + count);
    }
    dst.CopyIn(src.GetPhyAddr(), count);
}

template <typename T>
inline void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, uint32_t count) {
    ascend_twin::BeforeGmWrite(dst.GetPhyAddr(), count * sizeof(T));
    std::memcpy(dst.GetPhyAddr(), src.Source(count), count * sizeof(T));
}

// dstStride is 32-byte units on UB, srcStride bytes on GM; each block is padded to 32 bytes on UB.
template <typename T>
inline void DataCopyPad(const LocalTensor<T>& dst, const GlobalTensor<T>& src,
                        const DataCopyExtParams& params, const DataCopyPadExtParams<T>& pad) {
    const uint32_t ubLen = (params.blockLen + ascend_twin::kBlockBytes - 1) /
                           ascend_twin::kBlockBytes * ascend_twin::kBlockBytes;
    auto* to = reinterpret_cast<uint8_t*>(dst.Data());
    const auto* from = reinterpret_cast<const uint8_t*>(src.GetPhyAddr());
    for (uint32_t block = 0; block < params.blockCount; ++block) {
        uint8_t* row = to;
        if (pad.isPad) {
            T* elems = reinterpret_cast<T*>(row);
            for (uint32_t i = 0; i < pad.leftPadding; ++i) elems[i] = pad.paddingValue;
            row += pad.leftPadding * sizeof(T);
            elems = reinterpret_cast<T*>(row + params.blockLen);
            for (uint32_t i = 0; i < pad.rightPadding; ++i) elems[i] = pad.paddingValue;
        }
        std::memcpy(row, from, params.blockLen);
        to += ubLen + params.dstStride * ascend_twin::kBlockBytes;
        from += params.blockLen + params.srcStride;
    }
}

template <typename T>
inline void DataCopyPad(const GlobalTensor<T>& dst, const LocalTensor<T>& src,
                        const DataCopyExtParams& params) {
    const uint32_t ubLen = (params.blockLen + ascend_twin::kBlockBytes - 1) /
                           ascend_twin::kBlockBytes * ascend_twin::kBlockBytes;
    auto* to = reinterpret_cast<uint8_t*>(dst.GetPhyAddr());
    const auto* from = reinterpret_cast<const uint8_t*>(src.Data());
    ascend_twin::BeforeGmWrite(
        to, params.blockCount * (static_cast<uint64_t>(params.blockLen) + params.dstStride));
    for (uint32_t block = 0; block < params.blockCount; ++block) {
        std::memcpy(to, from, params.blockLen);
        to += params.blockLen + params.dstStride;
        from += ubLen + params.srcStride * ascend_twin::kBlockBytes;
    }
}

// GM (rows, cols) -> L1 NZ: column block c of row r goes to c * dstNzC0Stride + r * dstNzNStride.
template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src,
                     const Nd2NzParams& params) {
    constexpr uint32_t cols = ascend_twin::kFractalCols<T>;
    const uint32_t wholeBlocks = params.dValue / cols;
    const uint32_t tail = params.dValue % cols;
    const uint32_t step = params.dstNzC0Stride * cols;
    const uint32_t rowStep = params.dstNzNStride * cols;
    if (ascend_twin::ViewMatrices(dst, src, params)) return;
    const uint32_t blocks = (params.dValue + cols - 1) / cols;
    const uint32_t written = (params.ndNum - 1) * params.dstNzMatrixStride +
                             (params.nValue - 1) * rowStep + (blocks - 1) * step + cols;
    T* const l1 = dst.FirstFractal();
    ascend_twin::BeforeL1Write(l1, l1 + written);
    ascend_twin::SettleL1(ascend_twin::CurrentContext().memory, l1, written * sizeof(T));
    for (uint32_t nd = 0; nd < params.ndNum; ++nd) {
        T* matrix = l1 + nd * params.dstNzMatrixStride;
        const T* source = src.GetPhyAddr() + static_cast<uint64_t>(nd) * params.srcNdMatrixStride;
        // A fractal at a time: the blocks of one row lie a power of two apart, and would share a
        // cache set.
        for (uint32_t first = 0; first < params.nValue; first += ascend_twin::kFractalRows) {
            const uint32_t rows =
                std::min<uint32_t>(ascend_twin::kFractalRows, params.nValue - first);
            T* to = matrix + first * rowStep;
            const T* from = source + static_cast<uint64_t>(first) * params.srcDValue;
            ascend_twin::RowsToFractals(reinterpret_cast<uint8_t*>(to), step * sizeof(T),
                                        rowStep * sizeof(T), reinterpret_cast<const uint8_t*>(from),
                                        static_cast<uint64_t>(params.srcDValue) * sizeof(T), rows,
                                        wholeBlocks);
            for (uint32_t row = 0; tail != 0 && row < rows; ++row) {
                T* block = to + wholeBlocks * step + row * rowStep;
                std::memset(block, 0, ascend_twin::kBlockBytes);
                std::memcpy(
                    block,
                    from + static_cast<uint64_t>(row) * params.srcDValue + wholeBlocks * cols,
                    tail * sizeof(T));
            }
        }
    }
}

// L1 -> L0A or L0B, one fractal a repeat. One of L0A is rows of m with k inside, as in L1. One of
// L0B is rows of n with k inside; Mmad wants k outside, so a plain load turns it there, and
// ifTranspose does not.
template <typename T>
inline void LoadData(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                     const LoadData2DParams& params) {
    using ascend_twin::FractalForm;
    if constexpr (std::is_same_v<T, int8_t>) {
        ascend_twin::LoadBytes(dst, src, params);
        return;
    } else {
        constexpr uint32_t elems = ascend_twin::kFractalBytes / sizeof(T);
        // From the first fractal written to the last: the gap behind that one is not touched.
        const uint32_t span =
            params.repeatTimes == 0 ? 0 : (params.repeatTimes - 1u) * (1u + params.dstGap) + 1;
        ascend_twin::CoreMemory* memory = ascend_twin::CurrentContext().memory;
        const T* source = src.FirstFractal() + params.startIndex * elems;
        const auto fractal = [&](uint32_t repeat) {
            return ascend_twin::Locate(memory, source + repeat * params.srcStride * elems);
        };
        if (dst.GetPosition() == TPosition::B2) {
            const FractalForm form = ascend_twin::FormOf<T>(params.ifTranspose);
            const uint32_t at = ascend_twin::BeforeLoadB(dst.Panel(), elems, span);
            for (uint32_t repeat = 0; repeat < params.repeatTimes; ++repeat) {
                memory->l0b.Place(at + repeat * (1 + params.dstGap), fractal(repeat), form);
            }
            return;
        }
        ascend_twin::BeforeLoadA(dst.Panel(), span * elems);
        for (uint32_t repeat = 0; repeat < params.repeatTimes; ++repeat) {
            float* panel = dst.Panel() + repeat * (1 + params.dstGap) * elems;
            if (params.ifTranspose) {
                ascend_twin::FractalToPanelTransposed<T>(panel, fractal(repeat));
            } else {
                ascend_twin::FractalToPanel<T>(panel, fractal(repeat));
            }
        }
    }
}

// L1 -> L0A or L0B. Two consecutive 16 x 8 fractals make one square, whose transpose is written as
// two fractals dstFracGap apart.
template <typename T>
inline void LoadDataWithTranspose(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                                  const LoadData2dTransposeParams& params) {
    using ascend_twin::FractalForm;
    static_assert(std::is_same_v<T, float>, "the twin's LoadDataWithTranspose serves float");
    constexpr uint32_t elems = ascend_twin::kFractalBytes / sizeof(T);
    const uint32_t gap = 1 + params.dstFracGap;
    const uint32_t span = params.repeatTimes * (1 + params.dstGap) + gap;
    const bool toB = dst.GetPosition() == TPosition::B2;
    ascend_twin::CoreMemory* memory = ascend_twin::CurrentContext().memory;
    const uint32_t at = toB ? ascend_twin::BeforeLoadB(dst.Panel(), elems, span) : 0;
    if (!toB) ascend_twin::BeforeLoadA(dst.Panel(), span * elems);
    for (uint32_t repeat = 0; repeat < params.repeatTimes; ++repeat) {
        const T* square =
            src.FirstFractal() + (params.startIndex + repeat * params.srcStride) * 2 * elems;
        const uint32_t to = repeat * (1 + params.dstGap);
        if (toB) {
            const ascend_twin::FractalView upper = ascend_twin::LocateSquare(memory, square);
            const ascend_twin::FractalView lower = {upper.rows + 8 * upper.pitch, upper.pitch};
            memory->l0b.Place(at + to, upper, FractalForm::kFloatRowsK);
            memory->l0b.Place(at + to + gap, lower, FractalForm::kFloatRowsK);
            continue;
        }
        ascend_twin::SettleL1(memory, square, 2 * ascend_twin::kFractalBytes);
        for (uint32_t half = 0; half < 2; ++half) {  // the upper and the lower eight rows
            float* panel = dst.Panel() + (to + half * gap) * elems;
            const float* rows = square + half * elems / 2;
            ascend_twin::Transpose8(panel, 8, rows, 8);
            ascend_twin::Transpose8(panel + elems / 2, 8, rows + elems, 8);
        }
    }
}

// L0C -> GM, row-major: nSize columns of mSize rows.
template <typename T, typename U, const FixpipeConfig& config = CFG_ROW_MAJOR>
inline void Fixpipe(const GlobalTensor<T>& dst, const LocalTensor<U>& src,
                    const FixpipeParamsV220& params) {
    static_assert(config.format == CO2Layout::ROW_MAJOR, "the twin's Fixpipe serves CFG_ROW_MAJOR");
    static_assert(std::is_same_v<T, U> && (std::is_same_v<T, float> || std::is_same_v<T, int32_t>),
                  "the twin's Fixpipe serves float to float and int32_t to int32_t");
    if constexpr (std::is_same_v<T, int32_t>) {
        ascend_twin::StoreIntegers(dst.GetPhyAddr(), params.dstStride, src.Data(), params.srcStride,
                                   params.mSize, params.nSize);
        return;
    } else {
        ascend_twin::StoreProduct(dst.GetPhyAddr(), params.dstStride, src.Data(), params.srcStride,
                                  params.mSize, params.nSize);
    }
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_COPY_H_
