// Copies into UB that wait until somebody looks (PendingCopy), against a plain model of the
// memories.
#include <algorithm>
#include <memory>

#include "run.h"

namespace {

using namespace glm2_test;

constexpr uint32_t kElems = 512;  // 2 KiB, of which a copy of 256 or more waits

// The memories as they would be if each call were made at once.
struct Model {
    std::vector<float> gm, ub;
};

// Random calls; what reads them back now and then, and at the end, sees what the model has.
class Program {
  public:
    explicit Program(uint32_t seed) : engine_(seed), gmValues_(Normals(kElems, seed)) {
        model_ = {gmValues_, std::vector<float>(kElems, 0.0f)};
    }

    void Run() {
        ub_ = Ub<float>(0, kElems);
        gm_ = Gm(gmValues_);
        Fill(ub_, model_.ub);
        for (uint32_t call = 0; call < 40; ++call) RunOne();
        EXPECT_EQ(ValuesOf(ub_, kElems), model_.ub);
        EXPECT_EQ(gmValues_, model_.gm);
    }

  private:
    uint32_t Below(uint32_t limit) { return static_cast<uint32_t>(engine_() % limit); }
    // Mostly whole halves of the memories, so that calls meet each other's ranges exactly.
    uint32_t Offset() { return Below(3) == 0 ? 8 * Below(32) : 256 * Below(2); }
    uint32_t Count() { return Below(3) == 0 ? 8 + 8 * Below(31) : 256; }

    void RunOne() {
        const uint32_t to = Offset(), from = Offset(), count = Count();
        const bool apart = to == from || to + count <= from || from + count <= to;
        switch (Below(7)) {
            case 0:
            case 1:
                AscendC::DataCopy(ub_[to], gm_[from], count);
                std::copy_n(&model_.gm[from], count, &model_.ub[to]);
                break;
            case 2:
                AscendC::DataCopy(gm_[to], ub_[from], count);
                std::copy_n(&model_.ub[from], count, &model_.gm[to]);
                break;
            case 3:
                gm_.SetValue(to, 3.0f);
                model_.gm[to] = 3.0f;
                break;
            case 4:
                if (!apart) break;
                AscendC::Muls(ub_[to], ub_[from], 0.5f, static_cast<int32_t>(count));
                for (uint32_t i = 0; i < count; ++i) model_.ub[to + i] = model_.ub[from + i] * 0.5f;
                break;
            case 5: {
                if (!apart) break;
                AscendC::Sub(ub_[to], ub_[from], ub_[to], static_cast<int32_t>(count));
                for (uint32_t i = 0; i < count; ++i) {
                    model_.ub[to + i] = model_.ub[from + i] - model_.ub[to + i];
                }
                break;
            }
            default:
                EXPECT_EQ(ub_[from].GetValue(1), model_.ub[from + 1]);
        }
    }

    std::mt19937 engine_;
    std::vector<float> gmValues_;
    Model model_;
    AscendC::LocalTensor<float> ub_;
    AscendC::GlobalTensor<float> gm_;
};

TEST(PendingCopy, NobodySeesThatItWaits) {
    for (uint32_t seed = 0; seed < 3000 && !testing::Test::HasFailure(); ++seed) {
        SCOPED_TRACE(seed);
        Program program(seed);
        RunVector([&] { program.Run(); });
    }
}

TEST(PendingCopy, WaitsForTheCallThatReadsIt) {
    std::vector<float> values = Normals(kElems, 1);
    const std::vector<float> before = values;
    RunVector([&] {
        const auto ub = Ub<float>(0, kElems);
        AscendC::DataCopy(ub, Gm(values), kElems);
        // Behind the twin's back: the copy has not been made.
        values.assign(kElems, 2.0f);
        AscendC::Adds(ub, ub, 1.0f, static_cast<int32_t>(kElems));
        EXPECT_EQ(ValuesOf(ub, kElems), std::vector<float>(kElems, 3.0f));
    });
    EXPECT_NE(before, values);
}

// The AIC may overwrite what an AIV has copied as soon as the AIV has said so.
TEST(PendingCopy, IsMadeBeforeAFlagIsSetForOthers) {
    std::vector<float> values = Normals(kElems, 2), seen;
    const std::vector<float> before = values;
    const auto kernel = [&] {
        if ASCEND_IS_AIC {
            AscendC::CrossCoreWaitFlag<2, PIPE_FIX>(0);
            values.assign(kElems, 0.0f);
            AscendC::CrossCoreSetFlag<2, PIPE_FIX>(1);
            return;
        }
        const auto ub = Ub<float>(0, kElems);
        AscendC::DataCopy(ub, Gm(values), kElems);
        AscendC::CrossCoreSetFlag<2, PIPE_MTE2>(0);
        AscendC::CrossCoreWaitFlag<2, PIPE_MTE2>(1);
        if (AscendC::GetSubBlockIdx() == 0) seen = ValuesOf(ub, kElems);
    };
    const ascend_twin::LaunchConfig config = {"test", ascend_twin::KernelType::kMixAic1Aiv2, 1, 0};
    ASSERT_EQ(ascend_twin::Launch(config, kernel), "");
    EXPECT_EQ(seen, before);
}

TEST(PendingCopy, DoesNotOutliveItsKernel) {
    const auto freed = std::make_unique<std::vector<float>>(kElems, 1.0f);
    RunVector([&] { AscendC::DataCopy(Ub<float>(0, kElems), Gm(*freed), kElems); });
    freed->assign(kElems, 5.0f);
    RunVector([&] {
        const auto ub = Ub<float>(0, kElems);
        AscendC::Duplicate(ub[8], 0.0f, 8);
        EXPECT_NE(ub.GetValue(0), 5.0f);
    });
}

}  // namespace
