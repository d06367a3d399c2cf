"""The layers of ChatGLM2 as MindSpore cells. Weights are call arguments, never parameters."""

from __future__ import annotations

from typing import Any

from mindspore import nn, ops

from glm2.packed_format import PackedFormat, WeightFormat
from glm2_ops.mindspore import QuantLinear, Swiglu


class Linear(nn.Cell):
    """``x weight^T + bias``, with weight (out, in) float32 as checkpoints store it.

    Parameters
    ----------
    bias : bool
        Whether there is one.
    """

    def __init__(self, *, bias: bool = False) -> None:
        super().__init__()
        self.matmul = ops.MatMul(transpose_b=True)
        self.has_bias = bias

    def construct(self, x: Any, weight: Any, scale: Any, bias: Any = None) -> Any:  # noqa: ARG002
        """Multiply x (T, in) float32; a float weight has no scale, what stands there is not used."""
        product = self.matmul(x, weight)
        return product + bias if self.has_bias else product


class PackedLinear(nn.Cell):
    """``x (weight * scale)^T + bias``, with a weight in the operator's packed layout.

    Parameters
    ----------
    weight_format : str
        "fp16", "int8", "int4", or "int4-g128" and so on.
    activation_bits : 16 or 8
        fp16 takes activations as they are, whatever this says.
    bias : bool
        Whether there is one.
    """

    def __init__(
        self, weight_format: WeightFormat, activation_bits: int, *, bias: bool = False
    ) -> None:
        super().__init__()
        bits = 16 if weight_format == "fp16" else activation_bits
        self.quant_linear = QuantLinear(format=weight_format, activation_bits=bits, bias=bias)

    def construct(self, x: Any, weight: Any, scale: Any, bias: Any = None) -> Any:
        """Multiply x (T, in) float32 by weight (packed_size,) uint8; scale (out,) or (out, groups)."""
        return self.quant_linear(x, weight, scale, bias)


def make_linear(packed: PackedFormat | None, *, head: bool = False, bias: bool = False) -> nn.Cell:
    """Return the cell that multiplies by the matrices of a model, or by its output layer."""
    if packed is None:
        return Linear(bias=bias)
    weight_format = packed.head if head else packed.weights
    return PackedLinear(weight_format, packed.activation_bits, bias=bias)


class MLP(nn.Cell):
    """``dense_4h_to_h(silu(gate) * up)``, gate and up being the halves of ``dense_h_to_4h(x)``."""

    def __init__(self, packed: PackedFormat | None) -> None:
        super().__init__()
        self.linear = make_linear(packed)
        self.swiglu = Swiglu()

    def construct(self, x: Any, h_to_4h: Any, h_4h_to_h: Any) -> Any:
        """Transform x (T, hidden_size) float32; matrices are (weight, scale)."""
        gated = self.swiglu(self.linear(x, *h_to_4h))  # (T, ffn_hidden_size)
        return self.linear(gated, *h_4h_to_h)
