// DataCopy, DataCopyPad, LoadData, LoadDataWithTranspose and Fixpipe: every move between memories.
#ifndef ASCEND_TWIN_COPY_H_
#define ASCEND_TWIN_COPY_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "ascend_twin/params.h"
#include "ascend_twin/product.h"
#include "ascend_twin/tensor.h"

namespace ascend_twin {

constexpr uint32_t kBlockBytes = 32;
constexpr uint32_t kFractalBytes = 512;
constexpr uint32_t kFractalRows = 16;

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

// One 512-byte fractal of T, rows as stored, to a float panel of the same shape.
template <typename T>
inline void FractalToPanel(float* panel, const T* fractal) {
    if constexpr (sizeof(T) == 2) {
        ToFloats(panel, fractal, kFractalRows * kFractalCols<T>);
    } else {
        static_assert(std::is_same_v<T, float>, "LoadData serves half, bfloat16_t and float");
        std::memcpy(panel, fractal, kFractalBytes);
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
inline void FractalToPanelTransposed(float* panel, const T* fractal) {
    constexpr uint32_t cols = kFractalCols<T>;
    alignas(64) float rows[kFractalRows * cols];
    FractalToPanel(rows, fractal);
    for (uint32_t c = 0; c < cols; ++c) {
        for (uint32_t r = 0; r < kFractalRows; ++r)
            panel[c * kFractalRows + r] = rows[r * cols + c];
    }
}

}  // namespace ascend_twin

namespace AscendC {

template <typename T>
inline void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, uint32_t count) {
    std::memcpy(dst.Data(), src.GetPhyAddr(), count * sizeof(T));
}

template <typename T>
inline void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, uint32_t count) {
    std::memcpy(dst.GetPhyAddr(), src.Data(), count * sizeof(T));
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
    const uint32_t lastBlock = (params.dValue + cols - 1) / cols - 1;
    const uint32_t written = (params.ndNum - 1) * params.dstNzMatrixStride +
                             (params.nValue - 1) * rowStep + lastBlock * step + cols;
    ascend_twin::BeforeL1Write(dst.Data(), dst.Data() + written);
    for (uint32_t nd = 0; nd < params.ndNum; ++nd) {
        T* matrix = dst.Data() + nd * params.dstNzMatrixStride;
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
    constexpr uint32_t elems = ascend_twin::kFractalBytes / sizeof(T);
    const uint32_t span = params.repeatTimes * (1 + params.dstGap);
    const T* source = src.Data() + params.startIndex * elems;
    if (dst.GetPosition() == TPosition::B2) {
        const FractalForm form = ascend_twin::FormOf<T>(params.ifTranspose);
        const uint32_t at = ascend_twin::BeforeLoadB(dst.Panel(), elems, span);
        ascend_twin::RightOperand& right = ascend_twin::CurrentContext().memory->l0b;
        for (uint32_t repeat = 0; repeat < params.repeatTimes; ++repeat) {
            right.Place(at + repeat * (1 + params.dstGap),
                        source + repeat * params.srcStride * elems, form);
        }
        return;
    }
    ascend_twin::BeforeLoadA(dst.Panel(), span * elems);
    for (uint32_t repeat = 0; repeat < params.repeatTimes; ++repeat) {
        const T* fractal = source + repeat * params.srcStride * elems;
        float* panel = dst.Panel() + repeat * (1 + params.dstGap) * elems;
        if (params.ifTranspose) {
            ascend_twin::FractalToPanelTransposed(panel, fractal);
        } else {
            ascend_twin::FractalToPanel(panel, fractal);
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
    ascend_twin::RightOperand& right = ascend_twin::CurrentContext().memory->l0b;
    const uint32_t at = toB ? ascend_twin::BeforeLoadB(dst.Panel(), elems, span) : 0;
    if (!toB) ascend_twin::BeforeLoadA(dst.Panel(), span * elems);
    for (uint32_t repeat = 0; repeat < params.repeatTimes; ++repeat) {
        const T* square = src.Data() + (params.startIndex + repeat * params.srcStride) * 2 * elems;
        const uint32_t to = repeat * (1 + params.dstGap);
        if (toB) {
            right.Place(at + to, square, FractalForm::kFloatUpper);
            right.Place(at + to + gap, square, FractalForm::kFloatLower);
            continue;
        }
        for (uint32_t r = 0; r < 16; ++r) {
            float* panel = dst.Panel() + (r < 8 ? to : to + gap) * elems;
            for (uint32_t c = 0; c < 16; ++c) {
                panel[c * 8 + r % 8] = square[(c / 8) * elems + r * 8 + c % 8];
            }
        }
    }
}

// L0C -> GM, row-major: nSize columns of mSize rows.
template <typename T, typename U, const FixpipeConfig& config = CFG_ROW_MAJOR>
inline void Fixpipe(const GlobalTensor<T>& dst, const LocalTensor<U>& src,
                    const FixpipeParamsV220& params) {
    static_assert(config.format == CO2Layout::ROW_MAJOR, "the twin's Fixpipe serves CFG_ROW_MAJOR");
    static_assert(std::is_same_v<T, float> && std::is_same_v<U, float>,
                  "the twin's Fixpipe serves float to float");
    ascend_twin::StoreProduct(dst.GetPhyAddr(), params.dstStride, src.Data(), params.srcStride,
                              params.mSize, params.nSize);
}

}  // namespace AscendC

#endif  // ASCEND_TWIN_COPY_H_
