// Rules about the cube: what it reads, how it sums, what Fixpipe is told.
#include <algorithm>

#include "check_run.h"
#include "counters.h"

namespace check_test {
namespace {

struct Product {
    uint32_t m = 16;
    uint32_t depth = 2;  // steps of 16 that are summed
    bool init = true;
    bool barrier = true;
    bool loadB = true;
    bool mte1ToM = true;
    bool mToFix = true;
    uint64_t srcStride = 16;
    QuantMode_t quant = QuantMode_t::NoQuant;
    uint64_t deqScalar = 0;
};

// c (m, 16) = a (m, 16 * depth) b.
Outcome CheckProduct(const Product& p) {
    std::vector<half> a(16 * 16, half(1.0f)), b(16 * 16, half(2.0f));
    std::vector<float> c(16 * 16);
    const Outcome outcome = CheckCube(
        [&] {
            const LocalTensor<half> aL1(TPosition::A1, 0, 256), bL1(TPosition::B1, 512, 256);
            const LocalTensor<half> aL0(TPosition::A2, 0, 256), bL0(TPosition::B2, 0, 256);
            const LocalTensor<float> cL0(TPosition::CO1, 0, 256);
            Nd2NzParams copy;
            copy.ndNum = copy.dstNzNStride = 1;
            copy.nValue = copy.dValue = copy.srcDValue = copy.dstNzC0Stride = 16;
            DataCopy(aL1, Gm(a), copy);
            DataCopy(bL1, Gm(b), copy);
            Order<HardEvent::MTE2_MTE1>();
            LoadData2DParams load;
            load.repeatTimes = 1;
            LoadData(aL0, aL1, load);
            if (p.loadB) LoadData(bL0, bL1, load);
            if (p.mte1ToM) Order<HardEvent::MTE1_M>();
            for (uint32_t k = 0; k < p.depth; ++k) {
                MmadParams mmad;
                mmad.m = p.m;
                mmad.n = mmad.k = 16;
                mmad.cmatrixInitVal = k == 0 && p.init;
                Mmad(cL0, aL0, bL0, mmad);
                if (p.barrier) PipeBarrier<PIPE_M>();
            }
            if (p.mToFix) Order<HardEvent::M_FIX>();
            FixpipeParamsV220 fix;
            fix.nSize = fix.dstStride = 16;
            fix.mSize = p.m;
            fix.srcStride = p.srcStride;
            fix.quantPre = p.quant;
            fix.deqScalar = p.deqScalar;
            Fixpipe(Gm(c), cL0, fix);
        },
        {Named("a", a, GmUse::kIn), Named("b", b, GmUse::kIn), Named("c", c, GmUse::kInOut)});
    if (outcome.Errors().empty()) {
        for (const float value : c) EXPECT_EQ(value, 32.0f * static_cast<float>(p.depth));
    }
    return outcome;
}

TEST(CheckCube, TheRightProductIsClean) { EXPECT_CLEAN(CheckProduct({})); }

TEST(CheckCube, SumsBeginSomewhere) {
    Product p;
    p.init = false;
    EXPECT_BREAKS(CheckProduct(p), "mmad_no_init", "cmatrixInitVal = true");
}

TEST(CheckCube, SmallSumsWantABarrier) {
    Product p;
    p.barrier = false;
    EXPECT_BREAKS(CheckProduct(p), "missing_pipe_m", "PipeBarrier<PIPE_M>");
    p.depth = 1;
    EXPECT_CLEAN(CheckProduct(p));
}

TEST(CheckCube, OneRowIsAVector) {
    Product p;
    p.m = 1;
    EXPECT_BREAKS(CheckProduct(p), "mmad_m1", "max(2, rows)");
}

TEST(CheckCube, OperandsAreLoaded) {
    Product p;
    p.loadB = false;
    EXPECT_BREAKS(CheckProduct(p), "uninitialised_read", "l0b bytes");
}

TEST(CheckCube, PipesAreOrdered) {
    Product p;
    p.mte1ToM = false;
    EXPECT_BREAKS(CheckProduct(p), "race", "MTE1_M");
    EXPECT_BREAKS(CheckProduct(p), "order_dependent", "c bytes");
    p = {};
    p.mToFix = false;
    EXPECT_BREAKS(CheckProduct(p), "race", "M_FIX");
}

TEST(CheckCube, FixpipeIsToldTheTilesRows) {
    Product p;
    p.srcStride = 8;
    EXPECT_BREAKS(CheckProduct(p), "parameter", "srcStride 8");
}

TEST(CheckCube, DequantisationHasAScale) {
    Product p;
    p.quant = QuantMode_t::DEQF16;
    EXPECT_BREAKS(CheckProduct(p), "deq_scalar", "deqScalar = 0");
    p.deqScalar = 1;
    EXPECT_EQ(CheckProduct(p).Find("deq_scalar"), nullptr);
    EXPECT_BREAKS(CheckProduct(p), "not_served", "NoQuant");
}

TEST(CheckCounters, CountEveryMoveByTensorAndMemory) {
    EXPECT_CLEAN(CheckProduct({}));
    const auto counters = ascend_twin::check::TakeCounters();
    ASSERT_EQ(counters.count("test"), 1u);
    const auto& test = counters.at("test");
    EXPECT_EQ(test.calls, 1u);
    const auto moved = [&](const char* from, const char* to, const char* name) {
        const auto at = test.moves.find({from, to, name});
        return at == test.moves.end() ? std::pair<uint64_t, uint64_t>()
                                      : std::make_pair(at->second.bytes, at->second.bursts);
    };
    const std::pair<uint64_t, uint64_t> fractal = {512, 1};
    EXPECT_EQ(moved("gm", "l1", "a"), fractal);
    EXPECT_EQ(moved("gm", "l1", "b"), fractal);
    EXPECT_EQ(moved("l1", "l0a", "a"), fractal);
    EXPECT_EQ(moved("l1", "l0b", "b"), fractal);
    EXPECT_EQ(moved("l0c", "gm", "c"), (std::pair<uint64_t, uint64_t>(1024, 1)));
    EXPECT_EQ(test.moves.size(), 5u);
    EXPECT_EQ(test.instructions.at("M"), 2u);
    EXPECT_EQ(test.instructions.at("MTE1"), 2u);
}

// ---- The pipe-time model ----

TEST(CheckModel, PipesOverlapAsFlagsAllow) {
    constexpr uint32_t elems = 4096, tiles = 8;
    std::vector<float> in(elems * tiles);
    const Tensors tensors = {Named("in", in, GmUse::kIn)};
    // Two buffers, or one: loads run under the vector calls, or wait for them.
    const auto cycles = [&](int32_t buffers) {
        EXPECT_CLEAN(CheckVector(
            [&, buffers] {
                for (int32_t i = 0; i < buffers; ++i) SetFlag<HardEvent::V_MTE2>(i);
                for (uint32_t i = 0; i < tiles; ++i) {
                    const auto at = static_cast<int32_t>(i) % buffers;
                    const LocalTensor<float> tile =
                        Ub(static_cast<uint32_t>(at) * elems * 4, elems);
                    WaitFlag<HardEvent::V_MTE2>(at);
                    DataCopy(tile, Gm(in)[i * elems], elems);
                    Order<HardEvent::MTE2_V>(at);
                    for (int round = 0; round < 7; ++round) {
                        Adds(tile, tile, 1.0f, elems);
                        PipeBarrier<PIPE_V>();
                    }
                    SetFlag<HardEvent::V_MTE2>(at);
                }
                for (int32_t i = 0; i < buffers; ++i) WaitFlag<HardEvent::V_MTE2>(i);
            },
            tensors));
        const auto counters = ascend_twin::check::TakeCounters();
        const auto& test = counters.at("test");
        EXPECT_EQ(test.busy.at("AIV V"), tiles * 7 * elems * 4 / 256.0);
        return std::make_pair(test.cycles, test.busy.at("AIV MTE2"));
    };
    const auto [one, mte2] = cycles(1);
    const double vector = tiles * 7 * elems * 4 / 256.0;
    EXPECT_NEAR(one, vector + mte2, 1.0);  // one after the other
    const auto [two, same] = cycles(2);
    EXPECT_EQ(mte2, same);
    EXPECT_NEAR(two, std::max(vector, mte2) + std::min(vector, mte2) / tiles, 1.0);
}

TEST(CheckModel, TheCubeMultipliesAFractalACycle) {
    EXPECT_CLEAN(CheckProduct({}));
    EXPECT_EQ(ascend_twin::check::TakeCounters().at("test").busy.at("AIC M"), 2.0);
}

}  // namespace
}  // namespace check_test
