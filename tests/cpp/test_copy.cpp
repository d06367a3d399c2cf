// Moves between GM, UB, L1 and L0C, against loops over the layouts of the hardware.
#include <cstring>

#include "run.h"

namespace {

using namespace glm2_test;
using AscendC::TPosition;

constexpr float kUntouched = 77.0f;

TEST(DataCopy, CountFormGoesBothWays) {
    std::vector<float> from = Normals(40, 1), to(48, kUntouched);
    RunVector([&] {
        const auto ub = Ub<float>(64, 64);
        AscendC::DataCopy(ub, Gm(from), 40u);
        AscendC::DataCopy(Gm(to)[8], ub[8], 32u);
    });
    for (uint32_t i = 0; i < 48; ++i) {
        EXPECT_EQ(to[i], i >= 8 && i < 40 ? from[i] : kUntouched);
    }
}

// On UB a block takes whole 32 bytes and strides count them; on GM strides are bytes.
TEST(DataCopyPad, GathersBlocksFromGm) {
    constexpr uint32_t blocks = 3, len = 5, gapGm = 2, gapUb = 1;
    std::vector<float> from = Normals(64, 2);
    std::vector<float> ubValues;
    RunVector([&] {
        const auto ub = Ub<float>(0, 64);
        Fill(ub, std::vector<float>(64, kUntouched));
        const AscendC::DataCopyExtParams params(blocks, len * 4, gapGm * 4, gapUb, 0);
        AscendC::DataCopyPad(ub, Gm(from), params, {});
        ubValues = ValuesOf(ub, 64);
    });
    for (uint32_t block = 0; block < blocks; ++block) {
        for (uint32_t i = 0; i < len; ++i) {
            EXPECT_EQ(ubValues[block * (8 + gapUb * 8) + i], from[block * (len + gapGm) + i]);
        }
    }
    EXPECT_EQ(ubValues[8], kUntouched);  // the gap between two blocks
}

TEST(DataCopyPad, FillsLeftAndRight) {
    std::vector<float> from = Normals(8, 3);
    std::vector<float> ubValues;
    RunVector([&] {
        const auto ub = Ub<float>(0, 8);
        const AscendC::DataCopyExtParams params(1, 3 * 4, 0, 0, 0);
        AscendC::DataCopyPad(ub, Gm(from), params, {true, 2, 3, -4.0f});
        ubValues = ValuesOf(ub, 8);
    });
    EXPECT_EQ(ubValues, (std::vector<float>{-4, -4, from[0], from[1], from[2], -4, -4, -4}));
}

TEST(DataCopyPad, ScattersBlocksToGm) {
    constexpr uint32_t blocks = 4, len = 3, gapGm = 5, gapUb = 2;
    std::vector<half> to(64, half(kUntouched));
    const std::vector<half> ubValues = As<half>(Normals(512, 4));
    RunVector([&] {
        const auto ub = Ub<half>(32, 512);
        Fill(ub, ubValues);
        const AscendC::DataCopyExtParams params(blocks, len * 2, gapUb, gapGm * 2, 0);
        AscendC::DataCopyPad(Gm(to), ub, params);
    });
    std::vector<half> want(64, half(kUntouched));
    for (uint32_t block = 0; block < blocks; ++block) {
        for (uint32_t i = 0; i < len; ++i) {
            want[block * (len + gapGm) + i] = ubValues[block * (16 + gapUb * 16) + i];
        }
    }
    EXPECT_EQ(std::memcmp(to.data(), want.data(), 64 * sizeof(half)), 0);
}

struct Nd2NzCase {
    uint32_t matrices, rows, cols, rowPitch, matrixPitch, c0Stride, nStride, nzMatrixStride;
};

template <typename T>
void CheckNd2Nz(const Nd2NzCase& c) {
    constexpr uint32_t c0 = 32 / sizeof(T);
    constexpr uint32_t elems = 4096;
    std::vector<T> from = As<T>(Integers(elems, 5));
    std::vector<T> want = As<T>(std::vector<float>(elems, kUntouched)), got;
    for (uint32_t m = 0; m < c.matrices; ++m) {
        for (uint32_t r = 0; r < c.rows; ++r) {
            for (uint32_t col = 0; col < (c.cols + c0 - 1) / c0 * c0; ++col) {
                const uint32_t at = m * c.nzMatrixStride + col / c0 * c.c0Stride * c0 +
                                    r * c.nStride * c0 + col % c0;
                want[at] = col < c.cols ? from[m * c.matrixPitch + r * c.rowPitch + col]
                                        : static_cast<T>(0.0f);
            }
        }
    }
    RunCube([&] {
        const AscendC::LocalTensor<T> l1(TPosition::A1, 1024, elems);
        Fill(l1, As<T>(std::vector<float>(elems, kUntouched)));
        AscendC::Nd2NzParams params;
        params.ndNum = static_cast<uint16_t>(c.matrices);
        params.nValue = static_cast<uint16_t>(c.rows);
        params.dValue = static_cast<uint16_t>(c.cols);
        params.srcNdMatrixStride = static_cast<uint16_t>(c.matrixPitch);
        params.srcDValue = static_cast<uint16_t>(c.rowPitch);
        params.dstNzC0Stride = static_cast<uint16_t>(c.c0Stride);
        params.dstNzNStride = static_cast<uint16_t>(c.nStride);
        params.dstNzMatrixStride = static_cast<uint16_t>(c.nzMatrixStride);
        AscendC::DataCopy(l1, Gm(from), params);
        got = ValuesOf(l1, elems);
    });
    EXPECT_EQ(std::memcmp(got.data(), want.data(), elems * sizeof(T)), 0);
}

TEST(Nd2Nz, LaysFractalsOutAsL1HoldsThem) {
    CheckNd2Nz<half>({1, 16, 16, 16, 0, 16, 1, 0});
    CheckNd2Nz<half>({1, 20, 48, 50, 0, 32, 1, 0});    // row tail, pitched rows
    CheckNd2Nz<half>({1, 7, 21, 33, 0, 16, 1, 0});     // column tail is zero-filled
    CheckNd2Nz<half>({3, 4, 32, 96, 400, 16, 1, 64});  // matrices below one another
    CheckNd2Nz<half>({1, 5, 32, 32, 0, 16, 2, 0});
    CheckNd2Nz<float>({1, 16, 16, 16, 0, 16, 1, 0});
    CheckNd2Nz<float>({1, 18, 27, 27, 0, 32, 1, 0});
    CheckNd2Nz<float>({4, 16, 24, 24, 384, 16, 1, 384});  // 16-row matrices one after another
}

// L0C is NZ of 16 x 16 floats: element (r, c) at (c / 16) * rows16 * 16 + r * 16 + c % 16.
TEST(Fixpipe, WritesRowMajor) {
    for (const uint32_t rows : {1u, 2u, 16u, 19u, 48u}) {
        constexpr uint32_t cols = 32, pitch = 40;
        const uint32_t padded = (rows + 15) / 16 * 16;
        const std::vector<float> values = Normals(padded * cols, rows);
        std::vector<float> to(48 * pitch, kUntouched);
        RunCube([&] {
            const AscendC::LocalTensor<float> l0c(TPosition::CO1, 0, padded * cols);
            Fill(l0c, values);
            AscendC::FixpipeParamsV220 params;
            params.nSize = cols;
            params.mSize = static_cast<uint16_t>(rows);
            params.srcStride = static_cast<uint16_t>(padded);
            params.dstStride = pitch;
            AscendC::Fixpipe<float, float, AscendC::CFG_ROW_MAJOR>(Gm(to), l0c, params);
        });
        for (uint32_t i = 0; i < to.size(); ++i) {
            const uint32_t r = i / pitch, c = i % pitch;
            const bool written = r < rows && c < cols;
            EXPECT_EQ(to[i], written ? values[c / 16 * padded * 16 + r * 16 + c % 16] : kUntouched);
        }
    }
}

TEST(Tensor, ViewsShareTheMemoryOfTheirRole) {
    RunVector([&] {
        const auto bytes = Ub<float>(256, 32);
        Fill(bytes, Normals(32, 6));
        EXPECT_EQ(Ub<float>(256 + 40, 1).GetValue(0), bytes.GetValue(10));
        EXPECT_EQ(bytes[10][3].GetValue(0), bytes.GetValue(13));
        EXPECT_EQ(bytes[10].GetSize(), 22u);
        EXPECT_EQ(bytes.ReinterpretCast<half>().GetSize(), 64u);
        EXPECT_EQ(bytes.ReinterpretCast<uint32_t>().GetValue(5),
                  ascend_twin::BitsOf(bytes.GetValue(5)));
    });
}

}  // namespace
