// What the programs share: arrays as GM would hold them, and a report.
#ifndef EXAMPLES_TWIN_EXAMPLE_H_
#define EXAMPLES_TWIN_EXAMPLE_H_

#include <cmath>
#include <cstdio>
#include <new>
#include <vector>

#include "ascend_twin/run.h"

// Memory that starts where a NPU's would: at a multiple of 512 bytes.
template <typename T>
struct GmAllocator {
    using value_type = T;
    GmAllocator() = default;
    template <typename U>
    GmAllocator(const GmAllocator<U>&) {}
    T* allocate(size_t n) {
        return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(512)));
    }
    void deallocate(T* p, size_t) { ::operator delete(p, std::align_val_t(512)); }
    template <typename U>
    bool operator==(const GmAllocator<U>&) const {
        return true;
    }
    template <typename U>
    bool operator!=(const GmAllocator<U>&) const {
        return false;
    }
};

template <typename T>
using Array = std::vector<T, GmAllocator<T>>;

template <typename T>
ascend_twin::Tensor Named(const char* name, const Array<T>& array, ascend_twin::Use use) {
    return {name, array.data(), array.size() * sizeof(T), use};
}

// Small integers: sums and products of them are exact.
template <typename T>
Array<T> Numbers(size_t count, uint32_t seed) {
    Array<T> values(count);
    for (T& value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<T>(static_cast<float>(seed >> 29) - 3.0f);
    }
    return values;
}

// Says how it went; returns the program's exit status.
inline int Report(const ascend_twin::Outcome& outcome, const Array<float>& got,
                  const Array<float>& want) {
    size_t wrong = 0;
    for (size_t i = 0; i < want.size(); ++i) wrong += got[i] != want[i];
    size_t slow = 0;
    std::printf("%zu of %zu numbers are right\n", want.size() - wrong, want.size());
    // Check mode has a remark about a hang, and fast mode has none about anything.
    if (outcome.remarks.empty() && !outcome.hang.empty()) std::puts(outcome.hang.c_str());
    for (const ascend_twin::Remark& remark : outcome.remarks) {
        if (remark.isError) std::printf("%s\n", remark.text.c_str());
        slow += !remark.isError;
    }
    if (outcome.ok()) std::printf("no errors\n");
    if (slow > 0) std::printf("%zu warnings\n", slow);
    return outcome.ok() && wrong == 0 ? 0 : 1;
}

#endif  // EXAMPLES_TWIN_EXAMPLE_H_
