// The parameter structures of ascend_twin/params.h, with fields that remember what they were given.
#ifndef ASCEND_TWIN_CHECK_PARAMS_H_
#define ASCEND_TWIN_CHECK_PARAMS_H_

#include <cstdint>

#include "ascend_twin_check/field.h"
#include "ascend_twin_check/literal.h"

namespace AscendC {

template <typename Narrow>
using TwinField = ::ascend_twin::check::Field<Narrow>;

struct DataCopyExtParams {
    DataCopyExtParams() = default;
    DataCopyExtParams(TwinField<uint16_t> count, TwinField<uint32_t> len, TwinField<uint32_t> src,
                      TwinField<uint32_t> dst, TwinField<uint32_t> reserved)
        : blockCount(count), blockLen(len), srcStride(src), dstStride(dst), rsv(reserved) {}

    TwinField<uint16_t> blockCount = 1;
    TwinField<uint32_t> blockLen = 0;
    TwinField<uint32_t> srcStride = 0;
    TwinField<uint32_t> dstStride = 0;
    TwinField<uint32_t> rsv = 0;

    operator ascend_twin_literal::DataCopyExtParams() const {
        return {blockCount, blockLen, srcStride, dstStride, rsv};
    }
};

template <typename T>
struct DataCopyPadExtParams {
    DataCopyPadExtParams() = default;
    DataCopyPadExtParams(bool pad, TwinField<uint8_t> left, TwinField<uint8_t> right, T value)
        : isPad(pad), leftPadding(left), rightPadding(right), paddingValue(value) {}

    bool isPad = false;
    TwinField<uint8_t> leftPadding = 0;
    TwinField<uint8_t> rightPadding = 0;
    T paddingValue = T();

    operator ascend_twin_literal::DataCopyPadExtParams<T>() const {
        return {isPad, leftPadding, rightPadding, paddingValue};
    }
};

struct Nd2NzParams {
    TwinField<uint16_t> ndNum = 0;
    TwinField<uint16_t> nValue = 0;
    TwinField<uint16_t> dValue = 0;
    TwinField<uint16_t> srcNdMatrixStride = 0;
    TwinField<uint16_t> srcDValue = 0;
    TwinField<uint16_t> dstNzC0Stride = 0;
    TwinField<uint16_t> dstNzNStride = 0;
    TwinField<uint16_t> dstNzMatrixStride = 0;

    operator ascend_twin_literal::Nd2NzParams() const {
        return {ndNum,     nValue,        dValue,       srcNdMatrixStride,
                srcDValue, dstNzC0Stride, dstNzNStride, dstNzMatrixStride};
    }
};

struct LoadData2DParams {
    TwinField<uint16_t> startIndex = 0;
    TwinField<uint8_t> repeatTimes = 0;
    TwinField<uint16_t> srcStride = 0;
    TwinField<uint8_t> sid = 0;
    TwinField<uint16_t> dstGap = 0;
    bool ifTranspose = false;
    TwinField<uint8_t> addrMode = 0;

    operator ascend_twin_literal::LoadData2DParams() const {
        return {startIndex, repeatTimes, srcStride, sid, dstGap, ifTranspose, addrMode};
    }
};

struct LoadData2dTransposeParams {
    TwinField<uint16_t> startIndex = 0;
    TwinField<uint8_t> repeatTimes = 0;
    TwinField<uint16_t> srcStride = 0;
    TwinField<uint16_t> dstGap = 0;
    TwinField<uint16_t> dstFracGap = 0;
    TwinField<uint8_t> addrMode = 0;

    operator ascend_twin_literal::LoadData2dTransposeParams() const {
        return {startIndex, repeatTimes, srcStride, dstGap, dstFracGap, addrMode};
    }
};

struct MmadParams {
    TwinField<uint16_t> m = 0;
    TwinField<uint16_t> n = 0;
    TwinField<uint16_t> k = 0;
    TwinField<uint8_t> unitFlag = 0;
    bool cmatrixSource = false;
    bool cmatrixInitVal = true;
    bool kDirectionAlign = false;

    operator ascend_twin_literal::MmadParams() const {
        return {m, n, k, unitFlag, cmatrixSource, cmatrixInitVal, kDirectionAlign};
    }
};

// The quantisations that need deqScalar are here to be asked about it; the twin executes none.
enum class QuantMode_t : uint8_t { NoQuant, F322F16, F322BF16, DEQF16, QF322B8_PRE, REQ8 };

struct FixpipeParamsV220 {
    TwinField<uint16_t> nSize = 0;
    TwinField<uint16_t> mSize = 0;
    TwinField<uint16_t> srcStride = 0;
    TwinField<uint32_t> dstStride = 0;
    QuantMode_t quantPre = QuantMode_t::NoQuant;
    uint64_t deqScalar = 0;
    TwinField<uint16_t> ndNum = 1;
    TwinField<uint16_t> srcNdStride = 0;
    TwinField<uint16_t> dstNdStride = 0;
    bool reluEn = false;
    TwinField<uint8_t> unitFlag = 0;

    operator ascend_twin_literal::FixpipeParamsV220() const {
        ascend_twin_literal::FixpipeParamsV220 params;
        params.nSize = nSize;
        params.mSize = mSize;
        params.srcStride = srcStride;
        params.dstStride = dstStride;
        return params;
    }
};

struct BinaryRepeatParams {
    BinaryRepeatParams() = default;
    BinaryRepeatParams(TwinField<uint8_t> dstBlk, TwinField<uint8_t> src0Blk,
                       TwinField<uint8_t> src1Blk, TwinField<uint8_t> dstRep,
                       TwinField<uint8_t> src0Rep, TwinField<uint8_t> src1Rep)
        : dstBlkStride(dstBlk),
          src0BlkStride(src0Blk),
          src1BlkStride(src1Blk),
          dstRepStride(dstRep),
          src0RepStride(src0Rep),
          src1RepStride(src1Rep) {}

    TwinField<uint8_t> dstBlkStride = 1;
    TwinField<uint8_t> src0BlkStride = 1;
    TwinField<uint8_t> src1BlkStride = 1;
    TwinField<uint8_t> dstRepStride = 8;
    TwinField<uint8_t> src0RepStride = 8;
    TwinField<uint8_t> src1RepStride = 8;

    operator ascend_twin_literal::BinaryRepeatParams() const {
        return {dstBlkStride, src0BlkStride, src1BlkStride,
                dstRepStride, src0RepStride, src1RepStride};
    }
};

struct BrcbRepeatParams {
    BrcbRepeatParams() = default;
    BrcbRepeatParams(TwinField<uint16_t> dstBlk, TwinField<uint16_t> dstRep)
        : dstBlkStride(dstBlk), dstRepStride(dstRep) {}

    TwinField<uint16_t> dstBlkStride = 1;
    TwinField<uint16_t> dstRepStride = 8;

    operator ascend_twin_literal::BrcbRepeatParams() const { return {dstBlkStride, dstRepStride}; }
};

}  // namespace AscendC

#endif  // ASCEND_TWIN_CHECK_PARAMS_H_
