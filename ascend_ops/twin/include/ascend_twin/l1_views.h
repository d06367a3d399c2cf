// Fractals of L1 that were never copied there. The inputs of a launch do not change while it runs,
// so a copy of them into L1 only notes where each fractal's rows lie in GM; LoadData takes them
// from there. Whatever else looks at that part of L1, or writes a part of it, makes the copy first.
#ifndef ASCEND_TWIN_L1_VIEWS_H_
#define ASCEND_TWIN_L1_VIEWS_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "ascend_twin/core.h"
#include "ascend_twin/product.h"

namespace ascend_twin {

constexpr uint32_t kBlockBytes = 32;
constexpr uint32_t kFractalRows = 16;

// Rows farther apart than this share few sets of a cache, so they are better gathered once.
constexpr uint32_t kMaxViewPitch = 1024;  // bytes

// Whether the launch says that the buffer which begins at `gm` is only read; see LaunchConfig.
inline bool IsInput(const void* gm) {
    const void* const* inputs = CurrentContext().inputs;
    return inputs != nullptr && gm != nullptr &&
           std::find(inputs, inputs + kMaxInputs, gm) != inputs + kMaxInputs;
}

// Bytes from the start of L1.
inline uint64_t L1Offset(const CoreMemory* memory, const void* at) {
    return static_cast<uint64_t>(static_cast<const uint8_t*>(at) - memory->l1);
}

// The fractal that begins at a multiple of kFractalBytes is what lies in GM.
inline void ViewFractal(CoreMemory* memory, uint64_t offset, const FractalView& view) {
    const uint32_t fractal = static_cast<uint32_t>(offset / kFractalBytes);
    memory->l1Views[fractal] = view;
    memory->numL1Views = std::max(memory->numL1Views, fractal + 1);
}

// Makes the copies of all fractals that have bytes in a range of L1.
inline void SettleL1(CoreMemory* memory, const void* begin, uint64_t bytes) {
    const uint64_t from = L1Offset(memory, begin), to = from + bytes;
    const uint64_t end =
        std::min<uint64_t>((to + kFractalBytes - 1) / kFractalBytes, memory->numL1Views);
    for (uint64_t fractal = from / kFractalBytes; fractal < end; ++fractal) {
        FractalView& view = memory->l1Views[fractal];
        if (view.rows == nullptr) continue;
        uint8_t* row = memory->l1 + fractal * kFractalBytes;
        BeforeL1Write(row, row + kFractalBytes);  // L0B may have what lay there before
        for (uint32_t r = 0; r < kFractalRows; ++r, row += kBlockBytes) {
            std::memcpy(row, view.rows + static_cast<uint64_t>(r) * view.pitch, kBlockBytes);
        }
        view.rows = nullptr;
    }
}

// Where the rows of the fractal at `fractal` of L1 are.
inline FractalView Locate(CoreMemory* memory, const void* fractal) {
    const uint64_t offset = L1Offset(memory, fractal);
    if (offset % kFractalBytes == 0 && offset / kFractalBytes < memory->numL1Views) {
        const FractalView& view = memory->l1Views[offset / kFractalBytes];
        if (view.rows != nullptr) return view;
    } else {
        SettleL1(memory, fractal, kFractalBytes);
    }
    return {static_cast<const uint8_t*>(fractal), kBlockBytes};
}

inline void ForgetL1Views(CoreMemory* memory) {
    std::fill_n(memory->l1Views, memory->numL1Views, FractalView());
    memory->numL1Views = 0;
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_L1_VIEWS_H_
