// What the files of MindSpore's C ABI share. For each operator F, ops.Custom(func_type="aot") calls
//   int F(nparam, params, ndims, shapes, dtypes, stream, extra)   to run it; inputs first
//   std::vector<int64_t> FInferShape(ndims, shapes, extra)        for its output's shape, -1 =
//   dynamic;
//                                                                 a vector of them for several
// FInferShape refuses shapes that do not fit, when a graph is compiled and at each new shape; F
// refuses values. Both throw: MindSpore makes a RuntimeError of it that ends with our message.
// Dtypes are checked in Python.
#ifndef GLM2_BINDINGS_AOT_COMMON_H_
#define GLM2_BINDINGS_AOT_COMMON_H_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "ascend_ops/status.h"
#include "ascend_ops/types.h"

#if defined(__clang__)  // a vector from a C function is what MindSpore's ABI asks for
#pragma clang diagnostic ignored "-Wreturn-type-c-linkage"
#endif

namespace glm2_aot {

constexpr int64_t kDynamic = -1;

// One input: its name, and a letter an axis. b stands for B + 1, a digit for itself.
struct Operand {
    const char* name;
    const char* axes;
};

// The size of each letter, kDynamic where it is not known yet.
class Sizes {
  public:
    Sizes() { sizes_.fill(kDynamic); }
    int64_t& operator[](char letter) { return sizes_[static_cast<unsigned char>(letter)]; }
    int64_t operator[](char letter) const { return sizes_[static_cast<unsigned char>(letter)]; }

  private:
    std::array<int64_t, 128> sizes_;
};

// Requires of inputs that equal letters have equal sizes.
Sizes CheckShapes(const char* op, const int* ndims, int64_t** shapes,
                  std::initializer_list<Operand> operands);

// Requires N to be a multiple of G, and a D that kernels serve, as far as they are known.
void CheckHeads(const char* op, const Sizes& sizes);

// Requires offsets that start at 0, never fall, and end at numTokens.
void CheckOffsets(const char* op, const char* name, const int32_t* offsets, uint32_t numSeqs,
                  uint32_t numTokens);

// Lengths of sequences from their offsets, which were checked.
std::vector<int32_t> Lengths(const int32_t* offsets, uint32_t numSeqs);

// Requires each sequence's prefix to lie among its keys.
void CheckPrefixes(const char* op, const int32_t* prefixLen, const int32_t* seqLenKv,
                   uint32_t numSeqs);

// Requires a page of the cache for every cached token.
void CheckPages(const char* op, const int32_t* blockTable, const int32_t* seqLenKv,
                uint32_t numSeqs, uint32_t maxPages, uint32_t pageSize, uint32_t numPages);

// Throws std::invalid_argument.
[[noreturn]] void Refuse(const char* op, const std::string& message);

// One call's parameters, inputs first.
struct Params {
    void** data;
    int64_t** shapes;
    const char** dtypes;

    template <typename T>
    const T* In(int index) const {
        return static_cast<const T*>(data[index]);
    }
    uint32_t Dim(int index, int axis) const { return static_cast<uint32_t>(shapes[index][axis]); }
    ascend_ops::DataType Type(int index) const;  // throws where the kernels do not serve it
};

// Requires `wanted` parameters; a bug of ours otherwise.
void CheckCount(const char* op, int count, int wanted);

// Runs the operator, and throws what it reports.
template <typename Args>
int Run(const char* op, ascend_ops::Status (*run)(const Args&), const Args& args) {
    const ascend_ops::Status status = run(args);
    if (!status.ok()) Refuse(op, status.message);
    return 0;
}

}  // namespace glm2_aot

#endif  // GLM2_BINDINGS_AOT_COMMON_H_
