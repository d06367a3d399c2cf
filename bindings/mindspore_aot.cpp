// The C ABI of MindSpore's ops.Custom(func_type="aot") on a CPU. For each operator F:
//   int F(nparam, params, ndims, shapes, dtypes, stream, extra)   runs it; nonzero is a bug of ours
//   std::vector<int64_t> FInferShape(ndims, shapes, extra)        its output's shape, -1 = dynamic;
//                                                                 a vector of them for several
// Values were checked in Python before the graph was called.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "ascend_ops/flash_attention.h"
#include "ascend_ops/rms_norm.h"
#include "ascend_ops/rope_append.h"
#include "ascend_ops/status.h"
#include "ascend_ops/swiglu.h"
#include "ascend_ops/types.h"

namespace {

using ascend_ops::DataType;

constexpr int64_t kDynamic = -1;

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
    DataType Type(int index) const {
        if (std::strcmp(dtypes[index], "float32") == 0) return DataType::kFloat32;
        return std::strcmp(dtypes[index], "float16") == 0 ? DataType::kFloat16
                                                          : DataType::kBfloat16;
    }
    bool IsFloat(int index) const {
        return std::strcmp(dtypes[index], "float16") == 0 ||
               std::strcmp(dtypes[index], "bfloat16") == 0 ||
               std::strcmp(dtypes[index], "float32") == 0;
    }
};

int Report(const char* name, const std::string& message) {
    std::fprintf(stderr, "glm2_ops.%s: %s\n", name, message.c_str());
    return 1;
}

// Runs the operator; no exception may cross into MindSpore's C call.
template <typename Args>
int Run(const char* name, ascend_ops::Status (*run)(const Args&), const Args& args) {
    try {
        const ascend_ops::Status status = run(args);
        return status.ok() ? 0 : Report(name, status.message);
    } catch (const std::exception& error) {
        return Report(name, error.what());
    }
}

// x and weight first, eps (1,) float32 last of the inputs; then y, with a residual also total.
int RunRmsNorm(const Params& p, bool hasResidual) {
    if (!p.IsFloat(0)) return Report("rms_norm", "x must be float16, bfloat16 or float32");
    const int epsIndex = hasResidual ? 3 : 2;
    ascend_ops::RmsNormArgs args;
    args.x = p.In<void>(0);
    args.weight = p.In<void>(1);
    args.residual = hasResidual ? p.In<void>(2) : nullptr;
    args.eps = p.In<float>(epsIndex)[0];
    args.y = p.data[epsIndex + 1];
    args.total = hasResidual ? p.data[epsIndex + 2] : nullptr;
    args.type = p.Type(0);
    args.numRows = p.Dim(0, 0);
    args.hiddenSize = p.Dim(0, 1);
    return Run("rms_norm", &ascend_ops::RmsNorm, args);
}

}  // namespace

#if defined(__clang__)  // a vector from a C function is what MindSpore's ABI asks for
#pragma clang diagnostic ignored "-Wreturn-type-c-linkage"
#endif

// q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len, scale (1,) float32,
// options (2,) int32 {causal, window} -> o
extern "C" ASCEND_OPS_API int Glm2FlashAttention(int nparam, void** params, int* /*ndims*/,
                                                 int64_t** shapes, const char** dtypes,
                                                 void* /*stream*/, void* /*extra*/) {
    constexpr int kParams = 10;
    if (nparam != kParams) return Report("flash_attention", "wrong number of parameters");
    const Params p = {params, shapes, dtypes};
    if (!p.IsFloat(0) || !p.IsFloat(1)) {
        return Report("flash_attention", "q and the cache must be float16, bfloat16 or float32");
    }
    ascend_ops::FlashAttentionArgs args;
    args.q = p.In<void>(0);
    args.kCache = p.In<void>(1);
    args.vCache = p.In<void>(2);
    args.blockTable = p.In<int32_t>(3);
    args.cuSeqlensQ = p.In<int32_t>(4);
    args.seqLenKv = p.In<int32_t>(5);
    args.prefixLen = p.In<int32_t>(6);
    args.scale = p.In<float>(7)[0];
    args.causal = p.In<int32_t>(8)[0] != 0;
    args.window = static_cast<uint32_t>(p.In<int32_t>(8)[1]);
    args.o = params[kParams - 1];
    args.qType = p.Type(0);
    args.cacheType = p.Type(1);
    args.numTokens = p.Dim(0, 0);
    args.numSeqs = p.Dim(5, 0);
    args.numHeads = p.Dim(0, 1);
    args.numKvHeads = p.Dim(1, 1);
    args.headDim = p.Dim(0, 2);
    args.pageSize = p.Dim(1, 2);
    args.maxPages = p.Dim(3, 1);
    return Run("flash_attention", &ascend_ops::FlashAttention, args);
}

extern "C" ASCEND_OPS_API std::vector<int64_t> Glm2FlashAttentionInferShape(int* ndims,
                                                                            int64_t** shapes,
                                                                            void* /*extra*/) {
    return std::vector<int64_t>(shapes[0], shapes[0] + ndims[0]);
}

// qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv -> q; writes the caches
extern "C" ASCEND_OPS_API int Glm2RopeAppend(int nparam, void** params, int* /*ndims*/,
                                             int64_t** shapes, const char** dtypes,
                                             void* /*stream*/, void* /*extra*/) {
    constexpr int kParams = 9;
    if (nparam != kParams) return Report("rope_append", "wrong number of parameters");
    const Params p = {params, shapes, dtypes};
    if (!p.IsFloat(0) || !p.IsFloat(3)) {
        return Report("rope_append", "qkv and the cache must be float16, bfloat16 or float32");
    }
    ascend_ops::RopeAppendArgs args;
    args.qkv = p.In<void>(0);
    args.cos = p.In<float>(1);
    args.sin = p.In<float>(2);
    args.kCache = params[3];
    args.vCache = params[4];
    args.blockTable = p.In<int32_t>(5);
    args.cuSeqlensQ = p.In<int32_t>(6);
    args.seqLenKv = p.In<int32_t>(7);
    args.q = params[kParams - 1];
    args.qkvType = p.Type(0);
    args.cacheType = p.Type(3);
    args.numTokens = p.Dim(0, 0);
    args.numSeqs = p.Dim(7, 0);
    args.numKvHeads = p.Dim(3, 1);
    args.headDim = p.Dim(3, 3);
    args.numHeads = p.Dim(0, 1) / args.headDim - 2 * args.numKvHeads;
    args.rotaryDim = 2 * p.Dim(1, 1);
    args.pageSize = p.Dim(3, 2);
    args.maxPages = p.Dim(5, 1);
    return Run("rope_append", &ascend_ops::RopeAppend, args);
}

extern "C" ASCEND_OPS_API std::vector<int64_t> Glm2RopeAppendInferShape(int* /*ndims*/,
                                                                        int64_t** shapes,
                                                                        void* /*extra*/) {
    const int64_t width = shapes[0][1];
    const int64_t kvHeads = shapes[3][1];
    const int64_t headDim = shapes[3][3];
    const bool known = width != kDynamic && kvHeads != kDynamic && headDim > 0;
    return {shapes[0][0], known ? width / headDim - 2 * kvHeads : kDynamic, headDim};
}

// x, weight, eps (1,) float32 -> y
extern "C" ASCEND_OPS_API int Glm2RmsNorm(int nparam, void** params, int* /*ndims*/,
                                          int64_t** shapes, const char** dtypes, void* /*stream*/,
                                          void* /*extra*/) {
    if (nparam != 4) return Report("rms_norm", "wrong number of parameters");
    return RunRmsNorm({params, shapes, dtypes}, false);
}

extern "C" ASCEND_OPS_API std::vector<int64_t> Glm2RmsNormInferShape(int* ndims, int64_t** shapes,
                                                                     void* /*extra*/) {
    return std::vector<int64_t>(shapes[0], shapes[0] + ndims[0]);
}

// x, weight, residual, eps (1,) float32 -> y, x + residual
extern "C" ASCEND_OPS_API int Glm2RmsNormResidual(int nparam, void** params, int* /*ndims*/,
                                                  int64_t** shapes, const char** dtypes,
                                                  void* /*stream*/, void* /*extra*/) {
    if (nparam != 6) return Report("rms_norm", "wrong number of parameters");
    return RunRmsNorm({params, shapes, dtypes}, true);
}

extern "C" ASCEND_OPS_API std::vector<std::vector<int64_t>> Glm2RmsNormResidualInferShape(
    int* ndims, int64_t** shapes, void* /*extra*/) {
    const std::vector<int64_t> shape(shapes[0], shapes[0] + ndims[0]);
    return {shape, shape};
}

// x (M, 2 F) -> out (M, F)
extern "C" ASCEND_OPS_API int Glm2Swiglu(int nparam, void** params, int* /*ndims*/,
                                         int64_t** shapes, const char** dtypes, void* /*stream*/,
                                         void* /*extra*/) {
    if (nparam != 2) return Report("swiglu", "wrong number of parameters");
    const Params p = {params, shapes, dtypes};
    if (!p.IsFloat(0)) return Report("swiglu", "x must be float16, bfloat16 or float32");
    ascend_ops::SwigluArgs args;
    args.x = p.In<void>(0);
    args.out = params[1];
    args.type = p.Type(0);
    args.numRows = p.Dim(0, 0);
    args.width = p.Dim(0, 1) / 2;
    return Run("swiglu", &ascend_ops::Swiglu, args);
}

extern "C" ASCEND_OPS_API std::vector<int64_t> Glm2SwigluInferShape(int* /*ndims*/,
                                                                    int64_t** shapes,
                                                                    void* /*extra*/) {
    return {shapes[0][0], shapes[0][1] == kDynamic ? kDynamic : shapes[0][1] / 2};
}
