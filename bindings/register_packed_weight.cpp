// Binds ascend_ops::PackWeight and UnpackWeight.
#include <string>

#include "ascend_ops/packed_weight.h"
#include "common.h"

namespace py = pybind11;

namespace glm2 {
namespace {

ascend_ops::PackedWeightArgs ArgsOf(const std::string& storage, const std::string& nibbleOrder,
                                    uint32_t rows, uint32_t columns) {
    using ascend_ops::NibbleOrder;
    ascend_ops::PackedWeightArgs args;
    args.format = FormatNamed(storage);
    args.order = nibbleOrder.empty() ? NibbleOrder::kNone
                                     : (nibbleOrder == "high_first" ? NibbleOrder::kHighFirst
                                                                    : NibbleOrder::kLowFirst);
    args.rows = rows;
    args.columns = columns;
    return args;
}

void Pack(const std::string& storage, const std::string& nibbleOrder, uint32_t rows,
          uint32_t columns, const py::array& weight, py::array& packed) {
    const ascend_ops::PackedWeightArgs args = ArgsOf(storage, nibbleOrder, rows, columns);
    const void* from = weight.data();
    void* to = packed.mutable_data();
    ascend_ops::Status status;
    {
        const py::gil_scoped_release release;
        status = ascend_ops::PackWeight(args, from, to);
    }
    Raise(status);
}

void Unpack(const std::string& storage, const std::string& nibbleOrder, uint32_t rows,
            uint32_t columns, const py::array& packed, py::array& weight) {
    const ascend_ops::PackedWeightArgs args = ArgsOf(storage, nibbleOrder, rows, columns);
    const void* from = packed.data();
    void* to = weight.mutable_data();
    ascend_ops::Status status;
    {
        const py::gil_scoped_release release;
        status = ascend_ops::UnpackWeight(args, from, to);
    }
    Raise(status);
}

}  // namespace

void RegisterPackedWeight(py::module_& module) {
    module.def("packed_size", [](const std::string& storage, uint32_t rows, uint32_t columns) {
        return ascend_ops::PackedBytes(FormatNamed(storage), rows, columns);
    });
    module.def("pack_weight", &Pack, py::arg("storage"), py::arg("nibble_order"), py::arg("rows"),
               py::arg("columns"), py::arg("weight"), py::arg("packed"));
    module.def("unpack_weight", &Unpack, py::arg("storage"), py::arg("nibble_order"),
               py::arg("rows"), py::arg("columns"), py::arg("packed"), py::arg("weight"));
}

}  // namespace glm2
