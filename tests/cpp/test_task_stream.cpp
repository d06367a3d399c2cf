// How the Q tiles of a call are dealt to the cores.
#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "flash_attention/op_host/flash_attention_tiling.h"
#include "flash_attention/op_kernel/flash_attention_tasks.h"
#include "tiling_cases.h"

namespace {

using namespace ascend_ops;
using namespace glm2_test;

struct Deal {
    std::vector<uint64_t> scores;                       // rows x keys, by core
    std::map<std::array<uint32_t, 3>, uint32_t> items;  // (sequence, group, token): how often
};

Deal DealTo(uint32_t cores, std::vector<int32_t> offsets, std::vector<int32_t> lengths) {
    FlashAttentionArgs args = Attention();
    args.cuSeqlensQ = offsets.data();
    args.seqLenKv = lengths.data();
    args.numSeqs = static_cast<uint32_t>(lengths.size());
    args.numTokens = static_cast<uint32_t>(offsets.back());
    args.causal = true;
    CoreLimits limits;
    limits.numCores = cores;
    FlashAttentionTilingData tiling;
    EXPECT_TRUE(ComputeFlashAttentionTiling(args, limits, &tiling).ok());
    EXPECT_EQ(tiling.numCores, cores);
    Deal deal;
    for (uint32_t core = 0; core < cores; ++core) {
        TaskStream stream;
        stream.Init(&tiling, offsets.data(), lengths.data(), nullptr, core);
        deal.scores.push_back(0);
        for (AttentionTask task; stream.Next(&task);) {
            deal.scores.back() += uint64_t{task.rows} * task.kvRows;
            if (task.first) ++deal.items[{task.seq, task.group, task.token}];
        }
    }
    return deal;
}

TEST(TaskStream, DealsEachItemOnce) {
    for (const uint32_t cores : {1u, 2u, 3u, 5u, 24u}) {
        const Deal deal = DealTo(cores, {0, 100, 100, 517}, {100, 0, 1000});
        uint32_t tiles = 0;
        for (const uint32_t tokens : {100u, 417u}) tiles += 2 * ((tokens + 7) / 8);
        EXPECT_EQ(deal.items.size(), tiles);
        for (const auto& [item, times] : deal.items) EXPECT_EQ(times, 1u);
    }
}

// Dealt in one direction, the first core would get the longest tile of every round: over two cores
// 16 tokens more in each of 32.
TEST(TaskStream, SharesOfACausalSequenceAreEvenOverTwoRounds) {
    const Deal two = DealTo(2, {0, 512}, {512});
    EXPECT_EQ(two.scores[0], two.scores[1]);
    for (const uint32_t cores : {3u, 4u, 24u}) {
        const Deal deal = DealTo(cores, {0, 2048}, {2048});
        const auto [least, most] = std::minmax_element(deal.scores.begin(), deal.scores.end());
        EXPECT_LE(*most - *least, 2u * 128 * 2048) << cores;  // two of the longest tiles
    }
}

}  // namespace
