// How a program runs a kernel on the twin: the host's side of kernel<<<...>>>, in both modes. The
// same source, linked with ascend_twin::fast, computes; with ascend_twin::check it is looked at
// too.
//
//   const ascend_twin::Outcome outcome = ascend_twin::Run(
//       {"add", ascend_twin::KernelType::kAivOnly, 8},  // name, kind of cores, blocks
//       {{"x", x, bytes, ascend_twin::Use::kIn}, {"z", z, bytes, ascend_twin::Use::kOut}},
//       [&] { add_kernel(Gm(x), Gm(z), count); });      // runs once a role of each block
//   if (!outcome.ok()) ...                              // outcome.Text() says what is wrong
#ifndef ASCEND_TWIN_RUN_H_
#define ASCEND_TWIN_RUN_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernel_operator.h"

namespace ascend_twin {

// What a kernel does with a tensor in GM. kOut is written whole. kWorkspace starts with rubbish, as
// kOut does; nothing may be in it afterwards that matters.
enum class Use : uint8_t { kIn, kOut, kInOut, kWorkspace };

// A kernel may touch no memory but these. Fast mode reads kIn where it lies, so nobody may write
// to it meanwhile; it looks at the rest of this no further.
struct Tensor {
    const char* name;
    const void* data;
    uint64_t bytes;
    Use use;
};

struct Kernel {
    const char* name;
    KernelType type;         // kMixAic1Aiv2: an AIC and two AIVs a block; kAivOnly: one AIV a block
    uint32_t blocks;         // logical cores
    uint64_t tilingKey = 0;  // for TILING_KEY_IS
    // Of check mode: its adversarial schedules, drawn from `seed`, and the AI cores of the machine.
    uint32_t seed = 0;
    uint32_t schedules = 2;
    uint32_t physicalCores = 24;
};

// One thing that check mode has to say.
struct Remark {
    std::string rule;  // such as "race"; docs/twin.md lists them
    bool isError;      // hardware would hang, fault or compute something else; else it is slow
    std::string file;  // of the kernel, and empty where no call is to blame
    uint32_t line;
    std::string text;  // all of it, for a person
};

struct Outcome {
    std::string hang;  // where each role stands if none can go on, else empty
    std::vector<Remark> remarks;

    bool ok() const {
        bool good = hang.empty();
        for (const Remark& remark : remarks) good = good && !remark.isError;
        return good;
    }
    std::string Text() const {
        // Check mode has a remark about a hang, and fast mode has none about anything.
        std::string text = remarks.empty() && !hang.empty() ? hang + "\n" : "";
        for (const Remark& remark : remarks) text += remark.text + "\n";
        return text;
    }
};

Outcome Run(const Kernel& kernel, const std::vector<Tensor>& tensors, void (*body)(const void*),
            const void* arguments);

// body() holds the arguments: a lambda that calls the kernel.
template <typename Body>
Outcome Run(const Kernel& kernel, const std::vector<Tensor>& tensors, const Body& body) {
    return Run(kernel, tensors, [](const void* it) { (*static_cast<const Body*>(it))(); }, &body);
}

// A pointer as kernels take it.
template <typename T>
inline GM_ADDR Gm(T* data) {
    return reinterpret_cast<GM_ADDR>(const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(data)));
}

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_RUN_H_
