// One logical core as a kernel sees it: its memories, its role, its index. Fast mode.
#ifndef ASCEND_TWIN_CORE_H_
#define ASCEND_TWIN_CORE_H_

#include <cstdint>
#include <cstring>

#include "ascend_twin/dtypes.h"
#include "ascend_twin/params.h"
#include "ascend_twin/product.h"

#define __aicore__
#define __global__
#define __gm__
#define GM_ADDR uint8_t*

// Before a loop over the operands of one call: they are identical or disjoint, so that no iteration
// depends on another, and it vectorises where a check for overlap would send it the slow way.
#if defined(__clang__)
#define ASCEND_TWIN_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define ASCEND_TWIN_IVDEP _Pragma("GCC ivdep")
#endif

namespace ascend_twin {

// Twice what dav-2201 has: there, larger tiles ask more of the memories than here.
constexpr uint32_t kUbBytes = 384 * 1024;
constexpr uint32_t kL1Bytes = 1024 * 1024;
constexpr uint32_t kL0aBytes = 128 * 1024;
constexpr uint32_t kL0bBytes = 64 * 1024;
constexpr uint32_t kL0cBytes = 256 * 1024;
constexpr uint32_t kAivPerCore = 2;
constexpr uint32_t kNumFlags = 16;
constexpr uint32_t kMovedOut = 8;
constexpr uint32_t kFractalBytes = 512;
constexpr uint32_t kMaxInputs = 4;

enum class Role : uint8_t { kAic, kAiv0, kAiv1 };

enum class KernelType : uint8_t { kMixAic1Aiv2, kAivOnly };

// Where the 16 rows of a fractal lie, 32 bytes each: one after the other in L1, or a row pitch
// apart in GM.
struct FractalView {
    const uint8_t* rows = nullptr;
    uint32_t pitch = 0;  // bytes
};

// How a fractal of L0B has to be turned, unless it is a panel already.
enum class FractalForm : uint8_t {
    kPanel,          // float, k rows of 16 n: in RightOperand::panels
    kHalfRowsN,      // half, 16 rows of n with 16 k inside
    kHalfRowsK,      // half, 16 rows of k with 16 n inside
    kBfloat16RowsN,  // bfloat16_t, the same
    kBfloat16RowsK,
    kFloatRowsN,  // float, 16 rows of n with 8 k inside
    kFloatRowsK,  // float, 8 rows of k with 16 n inside; in L1 as halves of two fractals
    kBytes        // int8 or int4b_t, 16 rows of n with 32 bytes of k inside: multiplied as they are
};

// What LoadData has put into L0B. It is turned into panels where it is multiplied, a few columns at
// a time, so that they need not leave the nearest cache.
struct RightOperand {
    static constexpr uint32_t kFractals = kL0bBytes / 512;
    static constexpr uint32_t kBlockK = 256;  // depth that is multiplied at a time

    const void* source[kFractals];
    uint32_t pitch[kFractals];  // bytes from one row to the next
    FractalForm form[kFractals];
    alignas(64) float panels[kL0bBytes / sizeof(half)];
    // What is being multiplied: up to kBlockK rows of 32 columns, and of 16 of a turned left
    // operand.
    alignas(64) float columns[2 * kBlockK * 16];
    alignas(64) float turned[kBlockK * 16];

    // A fractal is what lies at `from`, as long as that is not overwritten.
    void Place(uint32_t at, const FractalView& from, FractalForm as) {
        source[at] = from.rows;
        pitch[at] = from.pitch;
        form[at] = as;
    }
};

// What LoadData has put into L0A of int8 or int4b_t: where each fractal's 512 bytes lie. `saved`
// keeps those that L1 has lost since.
struct IntegerOperand {
    static constexpr uint32_t kFractals = kL0aBytes / kFractalBytes;

    const uint8_t* source[kFractals];
    alignas(64) uint8_t saved[kL0aBytes];
    // Rows of a product's left operand, and columns of its right one, as its loops want them.
    alignas(64) uint8_t rows[kL0aBytes];
    alignas(64) uint8_t columns[16 * 1024];
};

// A copy from GM to UB that nobody has looked at yet. The call that reads exactly it takes it from
// GM, which saves the copy; whatever else touches that part of UB makes it happen first.
struct PendingCopy {
    uint8_t* to = nullptr;  // null: none
    const uint8_t* from = nullptr;
    uint64_t bytes = 0;

    bool Overlaps(const void* begin, uint64_t size) const {
        const auto* first = static_cast<const uint8_t*>(begin);
        return to != nullptr && first < to + bytes && to < first + size;
    }
    void Make() {
        if (to != nullptr) std::memcpy(to, from, bytes);
        to = nullptr;
    }
    // Before a write to GM: what lies there now must not be lost.
    void BeforeGmWrite(const void* begin, uint64_t size) {
        const auto* first = static_cast<const uint8_t*>(begin);
        if (to != nullptr && first < from + bytes && from < first + size) Make();
    }
};

// The memories of one AIC and its two AIVs. L0A is seen by Mmad alone, so it holds floats whatever
// the element type: element i of the hardware's buffer is float i.
struct CoreMemory {
    alignas(64) uint8_t ub[kAivPerCore][kUbBytes];
    PendingCopy toUb[1 + kAivPerCore];  // by role; an AIC has no UB and its own stays empty
    alignas(64) uint8_t l1[kL1Bytes];
    FractalView l1Views[kL1Bytes / kFractalBytes];  // of fractals never copied; see l1_views.h
    uint32_t numL1Views = 0;                        // past the last one in use
    alignas(64) float l0a[kL0aBytes / sizeof(half)];
    RightOperand l0b;
    IntegerOperand integers;
    alignas(64) uint8_t l0c[kL0cBytes];
    PendingProduct pending;
    // Tiles that went to GM without ever lying in L0C: nothing may read them there.
    const float* movedOut[kMovedOut];
    uint32_t nextMovedOut = 0;
};

// What the running role is and where; switched by the scheduler together with the fiber.
struct Context {
    CoreMemory* memory = nullptr;
    Role role = Role::kAiv0;
    uint32_t block = 0;
    uint32_t numBlocks = 1;
    KernelType kernelType = KernelType::kAivOnly;
    uint64_t tilingKey = 0;
    const void* const* inputs = nullptr;  // kMaxInputs of them; see LaunchConfig
};

Context& CurrentContext();

// Blocks the running role until `flag` is set for it; see sync.h.
void CrossCoreSet(uint32_t flag);
void CrossCoreWait(uint32_t flag);

}  // namespace ascend_twin

namespace AscendC {

inline int64_t GetBlockNum() { return ascend_twin::CurrentContext().numBlocks; }

// 0..n-1 on AIC, 0..2n-1 on AIV of a MIX 1:2 kernel; 0..n-1 in a vector-only kernel.
inline int64_t GetBlockIdx() {
    const ascend_twin::Context& context = ascend_twin::CurrentContext();
    if (context.kernelType == ascend_twin::KernelType::kAivOnly ||
        context.role == ascend_twin::Role::kAic) {
        return context.block;
    }
    return 2 * static_cast<int64_t>(context.block) + (context.role == ascend_twin::Role::kAiv1);
}

inline int64_t GetSubBlockIdx() {
    return ascend_twin::CurrentContext().role == ascend_twin::Role::kAiv1 ? 1 : 0;
}

inline void InitSocState() {}

}  // namespace AscendC

#define ASCEND_IS_AIC (::ascend_twin::CurrentContext().role == ::ascend_twin::Role::kAic)
#define ASCEND_IS_AIV (::ascend_twin::CurrentContext().role != ::ascend_twin::Role::kAic)
#define TILING_KEY_IS(key) (::ascend_twin::CurrentContext().tilingKey == (key))
#define KERNEL_TASK_TYPE_DEFAULT(type)
#define REGISTER_TILING_DEFAULT(type)
#define GET_TILING_DATA_WITH_STRUCT(type, name, address) \
    type name;                                           \
    std::memcpy(&name, address, sizeof(type))

#endif  // ASCEND_TWIN_CORE_H_
