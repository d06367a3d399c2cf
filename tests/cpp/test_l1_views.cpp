// Copies of inputs into L1 that are never made (l1_views.h): a launch that names its inputs
// computes the same bits as one that does not.
#include <cstring>

#include "run.h"

namespace {

using namespace glm2_test;
using AscendC::TPosition;

constexpr uint32_t kGmElems = 64 * 160;
constexpr uint32_t kL1Fractals = 64;
constexpr uint32_t kSide = 32;  // of a product: 16 x 32 times 32 x 32

// Random copies into L1 and products of what lies there, the same for the same seed.
template <typename T>
class Program {
  public:
    Program(uint32_t seed, std::vector<T>* one, std::vector<T>* two, std::vector<float>* results)
        : engine_(seed), one_(Gm(*one)), two_(Gm(*two)), results_(results) {}

    void Run() {
        l1_ = AscendC::LocalTensor<T>(TPosition::A1, 0, kL1Fractals * kElems);
        AscendC::Nd2NzParams all;
        all.ndNum = 1;
        all.nValue = kL1Fractals * 16;
        all.dValue = kC0;
        all.srcDValue = 8;
        all.dstNzC0Stride = kL1Fractals * 16;
        all.dstNzNStride = 1;
        AscendC::DataCopy(l1_, two_, all);  // known contents, by a pitch that no view has
        for (uint32_t call = 0; call < 30; ++call) {
            if (Below(3) == 0) {
                Multiply();
            } else {
                Copy();
            }
        }
    }

  private:
    static constexpr uint32_t kElems = 512 / sizeof(T);
    static constexpr uint32_t kC0 = 32 / sizeof(T);

    uint32_t Below(uint32_t limit) { return static_cast<uint32_t>(engine_() % limit); }
    template <typename U>
    U OneOf(std::initializer_list<U> values) {
        return values.begin()[Below(static_cast<uint32_t>(values.size()))];
    }

    void Copy() {
        AscendC::Nd2NzParams params;
        params.ndNum = OneOf<uint16_t>({1, 1, 2});
        params.nValue = OneOf<uint16_t>({16, 32, 48, 48, 5, 21});
        params.dValue = static_cast<uint16_t>(OneOf({1u, 2u, 4u}) * kC0 - (Below(6) == 0 ? 3 : 0));
        params.srcNdMatrixStride = OneOf<uint16_t>({0, 320, 640});
        params.srcDValue = 64;
        params.dstNzC0Stride = OneOf<uint16_t>({48, 48, 64, 52});
        params.dstNzNStride = OneOf<uint16_t>({1, 1, 1, 2});
        params.dstNzMatrixStride = static_cast<uint16_t>(OneOf({48u, 16u, 10u}) * kC0);
        const uint32_t to = Below(16) * kElems + (Below(5) == 0 ? kC0 : 0);
        const uint32_t from = Below(20) * 64 + Below(2) * kC0;
        AscendC::DataCopy(l1_[to], Below(4) == 0 ? two_[from] : one_[from], params);
    }

    void Multiply() {
        constexpr uint32_t deep = kSide / kC0;  // fractals of the depth
        const AscendC::LocalTensor<T> l0a(TPosition::A2, 0, deep * kElems);
        const AscendC::LocalTensor<T> l0b(TPosition::B2, 0, deep * 2 * kElems);
        const AscendC::LocalTensor<float> l0c(TPosition::CO1, 0, 16 * kSide);
        AscendC::LoadData2DParams load;
        load.repeatTimes = deep;
        load.srcStride = OneOf<uint16_t>({1, 3});
        AscendC::LoadData(l0a, l1_[Below(40) * kElems], load);
        load.repeatTimes = deep * 2;
        load.srcStride = OneOf<uint16_t>({1, 3});
        if (sizeof(T) == 4 && Below(2) == 0) {
            AscendC::LoadData2dTransposeParams turn;
            turn.repeatTimes = deep;
            turn.srcStride = 1;
            turn.dstGap = 0;
            turn.dstFracGap = deep - 1;
            LoadTransposed(l0b, l1_[Below(40) * kElems], turn);
        } else {
            load.ifTranspose = sizeof(T) == 2 && Below(2) == 0;
            AscendC::LoadData(l0b, l1_[Below(30) * kElems], load);
        }
        if (Below(3) == 0) Copy();  // L0B keeps what it was loaded with
        if (Below(3) == 0) Look();
        AscendC::MmadParams params;
        params.m = OneOf<uint16_t>({2, 16});
        params.n = kSide;
        params.k = kSide;
        params.cmatrixInitVal = true;
        AscendC::Mmad(l0c, l0a, l0b, params);
        if (Below(3) == 0) Copy();
        AscendC::FixpipeParamsV220 store;
        store.nSize = kSide;
        store.mSize = params.m;
        store.srcStride = 16;
        store.dstStride = kSide;
        std::vector<float> result(16 * kSide, 0.0f);
        AscendC::Fixpipe<float, float, AscendC::CFG_ROW_MAJOR>(Gm(result), l0c, store);
        results_->insert(results_->end(), result.begin(), result.end());
    }

    // Makes the copies of all that is seen from some place on.
    void Look() {
        results_->push_back(static_cast<float>(l1_[Below(40) * kElems].GetValue(Below(kElems))));
    }

    static void LoadTransposed(const AscendC::LocalTensor<float>& dst,
                               const AscendC::LocalTensor<float>& src,
                               const AscendC::LoadData2dTransposeParams& params) {
        AscendC::LoadDataWithTranspose(dst, src, params);
    }
    static void LoadTransposed(const AscendC::LocalTensor<half>&, const AscendC::LocalTensor<half>&,
                               const AscendC::LoadData2dTransposeParams&) {}

    std::mt19937 engine_;
    AscendC::LocalTensor<T> l1_;
    AscendC::GlobalTensor<T> one_, two_;
    std::vector<float>* results_;
};

template <typename T>
std::vector<float> ResultsOf(uint32_t seed, bool nameInputs) {
    std::vector<T> one = As<T>(Normals(kGmElems, 1)), two = As<T>(Normals(kGmElems, 2));
    std::vector<float> results;
    const ascend_twin::LaunchConfig config = {
        "test", ascend_twin::KernelType::kMixAic1Aiv2, 1, 0, {nameInputs ? one.data() : nullptr}};
    const auto kernel = [&] {
        if ASCEND_IS_AIC {
            Program<T>(seed, &one, &two, &results).Run();
        }
    };
    EXPECT_EQ(ascend_twin::Launch(config, kernel), "");
    return results;
}

template <typename T>
void ExpectSameBits() {
    for (uint32_t seed = 0; seed < 1000 && !testing::Test::HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        const std::vector<float> views = ResultsOf<T>(seed, true),
                                 copies = ResultsOf<T>(seed, false);
        ASSERT_EQ(views.size(), copies.size());
        EXPECT_EQ(std::memcmp(views.data(), copies.data(), views.size() * sizeof(float)), 0);
    }
}

TEST(L1Views, NobodySeesThemInHalf) { ExpectSameBits<half>(); }

TEST(L1Views, NobodySeesThemInFloat) { ExpectSameBits<float>(); }

TEST(L1Views, AreTakenFromGm) {
    std::vector<half> input = As<half>(Normals(256, 3));
    const ascend_twin::LaunchConfig config = {
        "test", ascend_twin::KernelType::kMixAic1Aiv2, 1, 0, {input.data()}};
    const auto kernel = [&] {
        if ASCEND_IS_AIV {
            return;
        }
        const AscendC::LocalTensor<half> l1(TPosition::A1, 0, 256);
        AscendC::Nd2NzParams params;
        params.ndNum = 1;
        params.nValue = 16;
        params.dValue = 16;
        params.srcDValue = 16;
        params.dstNzC0Stride = 16;
        params.dstNzNStride = 1;
        AscendC::DataCopy(l1, Gm(input), params);
        input[17] = half(123.0f);  // behind the twin's back: nothing has been copied
        EXPECT_EQ(static_cast<float>(l1.GetValue(17)), 123.0f);
    };
    ASSERT_EQ(ascend_twin::Launch(config, kernel), "");
}

}  // namespace
