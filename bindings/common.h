// What the registrations share.
#ifndef GLM2_BINDINGS_COMMON_H_
#define GLM2_BINDINGS_COMMON_H_

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>

#include "ascend_ops/packed_weight.h"
#include "ascend_ops/status.h"
#include "ascend_ops/types.h"

namespace glm2 {

void RegisterFlashAttention(pybind11::module_& module);
void RegisterFlashAttentionGrad(pybind11::module_& module);
void RegisterPackedWeight(pybind11::module_& module);
void RegisterQuantMatmul(pybind11::module_& module);
void RegisterRmsNorm(pybind11::module_& module);
void RegisterRopeAppend(pybind11::module_& module);
void RegisterSwiglu(pybind11::module_& module);
void RegisterTiling(pybind11::module_& module);
void RegisterCheck(pybind11::module_& module);

// float16, bfloat16 or float32: Python has refused everything else. numpy itself has no bfloat16;
// that of ml_dtypes is no float to it.
inline ascend_ops::DataType TypeOf(const pybind11::array& array) {
    if (array.itemsize() == 4) return ascend_ops::DataType::kFloat32;
    return array.dtype().kind() == 'f' ? ascend_ops::DataType::kFloat16
                                       : ascend_ops::DataType::kBfloat16;
}

// fp16, int8 or int4, as Python names how a weight is stored.
inline ascend_ops::WeightFormat FormatNamed(const std::string& storage) {
    if (storage == "fp16") return ascend_ops::WeightFormat::kFloat16;
    return storage == "int8" ? ascend_ops::WeightFormat::kInt8 : ascend_ops::WeightFormat::kInt4;
}

inline uint32_t Dim(const pybind11::array& array, pybind11::ssize_t axis) {
    return static_cast<uint32_t>(array.shape(axis));
}

inline const int32_t* Int32(const pybind11::array& array) {
    return static_cast<const int32_t*>(array.data());
}

// ValueError for what the caller can mend, RuntimeError for a bug of ours.
inline void Raise(const ascend_ops::Status& status) {
    if (status.ok()) return;
    if (status.code == ascend_ops::StatusCode::kInternal) throw std::runtime_error(status.message);
    throw pybind11::value_error(status.message);
}

}  // namespace glm2

#endif  // GLM2_BINDINGS_COMMON_H_
