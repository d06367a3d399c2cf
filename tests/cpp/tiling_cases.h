// What the tests of host tiling share: a problem of attention, and how a refusal is checked.
#ifndef GLM2_TESTS_CPP_TILING_CASES_H_
#define GLM2_TESTS_CPP_TILING_CASES_H_

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "flash_attention/op_host/flash_attention_tiling.h"

namespace glm2_test {

constexpr std::array<int32_t, 3> kOffsets = {0, 100, 107};
constexpr std::array<int32_t, 2> kLengths = {300, 400};

inline ascend_ops::FlashAttentionArgs Attention(uint32_t heads = 32, uint32_t kvHeads = 2,
                                                uint32_t headDim = 128) {
    ascend_ops::FlashAttentionArgs args;
    args.cuSeqlensQ = kOffsets.data();
    args.seqLenKv = kLengths.data();
    args.numTokens = 107;
    args.numSeqs = 2;
    args.numHeads = heads;
    args.numKvHeads = kvHeads;
    args.headDim = headDim;
    args.pageSize = 128;
    args.maxPages = 4;
    return args;
}
inline void ExpectStatus(const ascend_ops::Status& status, ascend_ops::StatusCode code,
                         const std::string& part) {
    EXPECT_EQ(status.code, code);
    EXPECT_NE(status.message.find(part), std::string::npos) << status.message;
}
}  // namespace glm2_test

#endif  // GLM2_TESTS_CPP_TILING_CASES_H_
