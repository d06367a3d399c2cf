"""The layers of ChatGLM2 as MindSpore cells. Weights are call arguments, never parameters."""

from __future__ import annotations

from typing import Any

from mindspore import nn, ops


class RMSNorm(nn.Cell):
    """``x * rsqrt(mean(x**2) + eps) * weight`` over the last axis."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.square = ops.Square()
        self.mean = ops.ReduceMean(keep_dims=True)
        self.rsqrt = ops.Rsqrt()

    def construct(self, x: Any, weight: Any) -> Any:
        """Normalise x (T, hidden_size) float32."""
        return x * self.rsqrt(self.mean(self.square(x), -1) + self.eps) * weight


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
        self.split = ops.Split(axis=1, output_num=2)
        self.sigmoid = ops.Sigmoid()

    def construct(self, x: Any, h_to_4h: Any, h_4h_to_h: Any) -> Any:
        """Transform x (T, hidden_size) float32."""
        gate, up = self.split(self.linear(x, h_to_4h))  # (T, ffn_hidden_size) each
        return self.linear(gate * self.sigmoid(gate) * up, h_4h_to_h)
