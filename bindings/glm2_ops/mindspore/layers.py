"""rms_norm and swiglu as MindSpore cells. Their gradients are MindSpore's primitives in float32."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from glm2_ops import checks
from glm2_ops.mindspore.custom import custom


class _RmsNormGradients(nn.Cell):
    """From the gradient of y to those of x and weight."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.cast = ops.Cast()
        self.mean = ops.ReduceMean(keep_dims=True)
        self.sum = ops.ReduceSum()
        self.sqrt = ops.Sqrt()

    def construct(self, dy: Any, x: Any, weight: Any) -> Any:
        """Return dx (M, H) and dweight (H,), both float32.

        With ``n = x / rms`` and ``g = dy * weight``: ``dx = (g - n * mean(g * n)) / rms``.
        """
        dy, x, weight = (self.cast(dy, ms.float32), self.cast(x, ms.float32),
                         self.cast(weight, ms.float32))  # fmt: skip
        rms = self.sqrt(self.mean(x * x, 1) + self.eps)  # (M, 1)
        normed, scaled = x / rms, dy * weight
        dx = (scaled - normed * self.mean(scaled * normed, 1)) / rms
        return dx, self.sum(dy * normed, 0)


class RmsNorm(nn.Cell):
    """`glm2_ops.rms_norm` without a residual.

    Parameters
    ----------
    eps : float
        Added to the mean square.
    """

    def __init__(self, *, eps: float) -> None:
        super().__init__()
        inputs = {"x": "float", "weight": "x", "eps": "float32"}
        self.op = custom("Glm2RmsNorm", inputs, {"y": "x"})
        self.eps = Tensor(np.array([checks.check_eps(eps)], np.float32))
        self.gradients = _RmsNormGradients(float(eps))
        self.cast = ops.Cast()

    def construct(self, x: Any, weight: Any) -> Any:
        """Return y (M, H), as the numpy operator does."""
        return self.op(x, weight, self.eps)

    def bprop(self, x: Any, weight: Any, out: Any, dout: Any) -> Any:  # noqa: ARG002
        """Return the gradients of x and weight in their dtype, rounded once."""
        dx, dweight = self.gradients(dout, x, weight)
        return self.cast(dx, x.dtype), self.cast(dweight, weight.dtype)


class RmsNormResidual(nn.Cell):
    """`glm2_ops.rms_norm` with a residual.

    Parameters
    ----------
    eps : float
        Added to the mean square.
    """

    def __init__(self, *, eps: float) -> None:
        super().__init__()
        inputs = {"x": "float", "weight": "x", "residual": "x", "eps": "float32"}
        self.op = custom("Glm2RmsNormResidual", inputs, {"y": "x", "total": "x"})
        self.eps = Tensor(np.array([checks.check_eps(eps)], np.float32))
        self.gradients = _RmsNormGradients(float(eps))
        self.cast = ops.Cast()

    def construct(self, x: Any, weight: Any, residual: Any) -> Any:
        """Return y and x + residual, both (M, H), as the numpy operator does."""
        return self.op(x, weight, residual, self.eps)

    def bprop(self, x: Any, weight: Any, residual: Any, out: Any, dout: Any) -> Any:  # noqa: ARG002
        """Return the gradients of x, weight and residual in their dtype, rounded once."""
        dx, dweight = self.gradients(dout[0], out[1], weight)
        dx = self.cast(dx + self.cast(dout[1], ms.float32), x.dtype)
        return dx, self.cast(dweight, weight.dtype), dx


class Swiglu(nn.Cell):
    """`glm2_ops.swiglu`."""

    def __init__(self) -> None:
        super().__init__()
        self.op = custom("Glm2Swiglu", {"x": "float"}, {"out": "x"})
        self.cast = ops.Cast()
        self.split = ops.Split(axis=1, output_num=2)
        self.sigmoid = ops.Sigmoid()
        self.concat = ops.Concat(axis=1)

    def construct(self, x: Any) -> Any:
        """Return out (M, F) of x (M, 2 F), as the numpy operator does."""
        return self.op(x)

    def bprop(self, x: Any, out: Any, dout: Any) -> Any:  # noqa: ARG002
        """Return the gradient of x (M, 2 F) in its dtype, rounded once.

        ``silu'(z) = s * (1 + z * (1 - s))`` with ``s = sigmoid(z)``.
        """
        gate, value = self.split(self.cast(x, ms.float32))
        dout = self.cast(dout, ms.float32)
        sigmoid = self.sigmoid(gate)
        dgate = dout * value * sigmoid * (1 + gate * (1 - sigmoid))
        return (self.cast(self.concat((dgate, dout * gate * sigmoid)), x.dtype),)
