"""The layers of ChatGLM2 as MindSpore cells. Weights are call arguments, never parameters."""

from __future__ import annotations

from typing import Any

from mindspore import nn, ops

from glm2_ops.mindspore import Swiglu


class Linear(nn.Cell):
    """``x weight^T``, with weight (out, in) as checkpoints store it."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Any, weight: Any) -> Any:
        """Multiply x (T, in) float32."""
        return self.matmul(x, weight)


class MLP(nn.Cell):
    """``dense_4h_to_h(silu(gate) * up)``, gate and up being the halves of ``dense_h_to_4h(x)``."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = Linear()
        self.swiglu = Swiglu()

    def construct(self, x: Any, h_to_4h: Any, h_4h_to_h: Any) -> Any:
        """Transform x (T, hidden_size) float32."""
        gated = self.swiglu(self.linear(x, h_to_4h))  # (T, ffn_hidden_size)
        return self.linear(gated, h_4h_to_h)
