"""quant_linear as a MindSpore cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from mindspore import Tensor, nn

from glm2_ops import checks
from glm2_ops.mindspore.custom import custom
from glm2_ops.packed_weight import WeightFormat

_BITS = {"fp16": 16, "int8": 8, "int4": 4}


class QuantLinear(nn.Cell):
    """`glm2_ops.quant_linear` with its format fixed.

    The packed weight is an input: as a call argument of a graph (``set_inputs``) a tensor made by
    ``Tensor.from_numpy`` of a mapped file is used where it lies, without a copy.

    Parameters
    ----------
    format : str
        "fp16", "int8", "int4", "int4-g128", "int4-g64" or "int4-g32".
    activation_bits : 16 or 8
        See `glm2_ops.quant_linear`.
    bias, residual : bool
        Whether `construct` takes them.
    """

    def __init__(
        self,
        *,
        format: WeightFormat,
        activation_bits: int,
        bias: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__()
        group_size = checks.group_size_of(format)
        storage = format.partition("-")[0]
        checks.check_activation_bits(activation_bits, storage)
        self.bias, self.residual = checks.check_bool("bias", bias), residual
        checks.check_bool("residual", residual)
        inputs = {"x": "float", "weight": "uint8", "scale": "float32"}
        if bias:
            inputs["bias"] = "float32"
        if residual:
            inputs["residual"] = "x"
        suffix = f"{'Bias' if bias else ''}{'Residual' if residual else ''}"
        scale_kind = "Groups" if group_size else "Rows"
        self.op = custom(
            f"Glm2QuantMatmul{scale_kind}{suffix}", {**inputs, "options": "int32"}, {"out": "x"}
        )
        options = [_BITS[storage], group_size, activation_bits]
        self.options = Tensor(np.array(options, np.int32))

    def construct(
        self, x: Any, weight: Any, scale: Any, bias: Any = None, residual: Any = None
    ) -> Any:
        """Return out (M, out_features), as the numpy operator does; bias is float32."""
        if self.bias and self.residual:
            return self.op(x, weight, scale, bias, residual, self.options)
        if self.bias:
            return self.op(x, weight, scale, bias, self.options)
        if self.residual:
            return self.op(x, weight, scale, residual, self.options)
        return self.op(x, weight, scale, self.options)
