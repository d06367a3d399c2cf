// Static tensors: where they may lie. And stores to GM, which may add.
#include <string>
#include <vector>

#include "ascend_twin_check/copy.h"
#include "engine.h"
#include "memories.h"

namespace ascend_twin {
namespace check {

uint16_t Declare(TPosition position, uint64_t address, uint64_t bytes, Site site) {
    Engine& engine = Engine::Current();
    const Space space = SpaceOf(position);
    const auto complain = [&](const char* rule, const std::string& got, const std::string& wanted,
                              const char* advice) {
        engine.Complain(rule, site, "LocalTensor", got, wanted, advice);
    };
    if (space == Space::kNone) {
        complain("position", std::string("a LocalTensor in ") + NameOf(position),
                 "A1, B1, C1, A2, B2, CO1, VECIN, VECOUT or VECCALC", "choose one of them");
        return 0;
    }
    const bool aic = engine.running().IsAic();
    if ((space == Space::kUb) == aic && bytes > 0) {
        complain("role",
                 std::string("a tensor of ") + NameOf(space) + " on the " + (aic ? "AIC" : "AIV"),
                 aic ? "L1, L0A, L0B or L0C" : "UB", "each core has its own memories");
    }
    if (address + bytes > PlannedBytes(space)) {
        complain("capacity",
                 Bytes(bytes) + " from byte " + std::to_string(address) + " of " + NameOf(space),
                 "an end at " + Bytes(PlannedBytes(space)) + " at most", "lower the tile sizes");
    }
    if (address % AddressUnit(space) != 0) {
        complain("alignment", "address " + std::to_string(address) + " in " + NameOf(space),
                 "a multiple of " + Bytes(AddressUnit(space)), "round the address up");
    }
    std::vector<Declaration>& all = engine.running().declarations;
    for (size_t i = 0; i < all.size(); ++i) {
        if (all[i].space == space && all[i].begin == address && all[i].end == address + bytes) {
            return static_cast<uint16_t>(i + 1);
        }
    }
    all.push_back({space, address, address + bytes, site});
    return static_cast<uint16_t>(all.size());
}

void StoreToGm(const Access& access, const std::function<void()>& body) {
    if (!access.atomic) return body();
    std::vector<float> old;
    access.ForEachRun([&](uint64_t begin, uint64_t bytes) {
        const auto* from = reinterpret_cast<const float*>(begin);
        old.insert(old.end(), from, from + bytes / sizeof(float));
    });
    body();
    size_t at = 0;
    access.ForEachRun([&](uint64_t begin, uint64_t bytes) {
        auto* to = reinterpret_cast<float*>(begin);
        for (uint64_t i = 0; i < bytes / sizeof(float); ++i) to[i] = old[at++] + to[i];
    });
}

}  // namespace check
}  // namespace ascend_twin
