// The widest float vector of the target, through the compiler's vector extension: one source for
// AVX2, AVX-512, NEON and plain C++.
#ifndef ASCEND_TWIN_FAST_SIMD_H_
#define ASCEND_TWIN_FAST_SIMD_H_

#include <cstdint>
#include <cstring>

namespace ascend_twin {

#if defined(__AVX512F__)
constexpr uint32_t kLanes = 16;
constexpr const char* kSimdName = "avx512";
#elif defined(__AVX2__)
constexpr uint32_t kLanes = 8;
constexpr const char* kSimdName = "avx2";
#elif defined(__ARM_NEON)
constexpr uint32_t kLanes = 4;
constexpr const char* kSimdName = "neon";
#else
constexpr uint32_t kLanes = 4;
constexpr const char* kSimdName = "generic";
#endif

using Vector = float __attribute__((vector_size(kLanes * sizeof(float))));

inline Vector Load(const float* from) {
    Vector value;
    std::memcpy(&value, from, sizeof(value));
    return value;
}

inline void Store(float* to, Vector value) { std::memcpy(to, &value, sizeof(value)); }

// Subtracting 0 is nothing; adding it would turn -0 into 0, and cost an addition.
inline Vector Broadcast(float value) { return value - Vector{}; }

}  // namespace ascend_twin

#endif  // ASCEND_TWIN_FAST_SIMD_H_
