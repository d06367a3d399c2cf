// Squares turned in registers, against two loops.
#include "ascend_twin/transpose.h"
#include "run.h"

namespace {

TEST(Transpose16, TurnsSixteenBySixteenFromAnyPitch) {
    for (const uint32_t pitch : {16u, 21u, 128u}) {
        std::vector<uint16_t> from(16 * pitch);
        for (uint32_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint16_t>(i * 251 + 7);
        uint16_t to[257];
        to[256] = 99;
        ascend_twin::Transpose16(to, from.data(), pitch);
        for (uint32_t r = 0; r < 16; ++r) {
            for (uint32_t c = 0; c < 16; ++c) EXPECT_EQ(to[c * 16 + r], from[r * pitch + c]);
        }
        EXPECT_EQ(to[256], 99);
    }
}

TEST(Transpose8, TurnsEightByEightAtAnyPitch) {
    for (const uint32_t fromPitch : {8u, 11u, 64u}) {
        for (const uint32_t toPitch : {8u, 16u, 19u}) {
            const std::vector<float> from = glm2_test::Normals(8 * fromPitch, fromPitch);
            std::vector<float> to(8 * toPitch, 77.0f);
            ascend_twin::Transpose8(to.data(), toPitch, from.data(), fromPitch);
            for (uint32_t i = 0; i < to.size(); ++i) {
                const uint32_t row = i / toPitch, column = i % toPitch;
                EXPECT_EQ(to[i], column < 8 ? from[column * fromPitch + row] : 77.0f);
            }
        }
    }
}

}  // namespace
