"""The operators as MindSpore cells for graph mode.

Each is an ``ops.Custom(func_type="aot")`` on the compiled library. Token counts may be dynamic: a
graph whose inputs were set with ``Tensor(shape=(None, ...))`` compiles once. Values are not checked
here (a graph cannot); call `glm2_ops.checks` before the graph. A custom operator that fails inside a
graph leaves the graph unusable.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import CustomRegOp, DataType

from glm2_ops import checks
from glm2_ops._library import library_path


def _custom(function: str, inputs: list[str], *outputs: str) -> ops.Custom:
    """Load ``function``; its outputs have the dtype of its first input."""
    registration = CustomRegOp(function)
    for index, name in enumerate(inputs):
        registration.input(index, name)
    for index, name in enumerate(outputs):
        registration.output(index, name)
    registration.dtype_format(*[DataType.None_None] * (len(inputs) + len(outputs)))
    registration.target("CPU")
    return ops.Custom(
        f"{library_path()}:{function}",
        out_shape=None,  # the library infers it, dynamic dims included
        out_dtype=lambda first, *_: first if len(outputs) == 1 else (first,) * len(outputs),
        func_type="aot",
        reg_info=registration.get_op_info(),
    )


class FlashAttention(nn.Cell):
    """`glm2_ops.flash_attention` with its options fixed.

    Parameters
    ----------
    scale : float
        Multiplies the scores.
    causal : bool
        Whether a query sees no key after its own position, the prefix excepted.
    window : int, optional
        See `glm2_ops.flash_attention`.
    """

    def __init__(self, *, scale: float, causal: bool = True, window: int | None = None) -> None:
        super().__init__()
        names = ["q", "k_cache", "v_cache", "block_table", "cu_seqlens_q", "seq_len_kv",
                 "prefix_len", "scale", "options"]  # fmt: skip
        self.op = _custom("Glm2FlashAttention", names, "o")
        self.scale = Tensor(np.array([checks.check_scale(scale)], np.float32))
        self.options = Tensor(np.array([causal, checks.check_window(window)], np.int32))

    def construct(
        self,
        q: Any,
        k_cache: Any,
        v_cache: Any,
        block_table: Any,
        cu_seqlens_q: Any,
        seq_len_kv: Any,
        prefix_len: Any,
    ) -> Any:
        """Return o (T, N, D), as the numpy operator does."""
        return self.op(q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len,
                       self.scale, self.options)  # fmt: skip


class RopeAppend(nn.Cell):
    """`glm2_ops.rope_append`; heads and rotary_dim follow from the shapes of its inputs.

    It writes the caches in place and is declared to, so that a graph neither drops nor merges it.
    """

    def __init__(self) -> None:
        super().__init__()
        names = ["qkv", "cos", "sin", "k_cache", "v_cache", "block_table", "cu_seqlens_q",
                 "seq_len_kv"]  # fmt: skip
        self.op = _custom("Glm2RopeAppend", names, "q")
        self.op.add_prim_attr("side_effect_mem", True)

    def construct(
        self,
        qkv: Any,
        cos: Any,
        sin: Any,
        k_cache: Any,
        v_cache: Any,
        block_table: Any,
        cu_seqlens_q: Any,
        seq_len_kv: Any,
    ) -> Any:
        """Return the rotated q (T, N, D), as the numpy operator does."""
        return self.op(qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv)


class RmsNorm(nn.Cell):
    """`glm2_ops.rms_norm` without a residual.

    Parameters
    ----------
    eps : float
        Added to the mean square.
    """

    def __init__(self, *, eps: float) -> None:
        super().__init__()
        self.op = _custom("Glm2RmsNorm", ["x", "weight", "eps"], "y")
        self.eps = Tensor(np.array([checks.check_eps(eps)], np.float32))

    def construct(self, x: Any, weight: Any) -> Any:
        """Return y (M, H), as the numpy operator does."""
        return self.op(x, weight, self.eps)


class RmsNormResidual(nn.Cell):
    """`glm2_ops.rms_norm` with a residual.

    Parameters
    ----------
    eps : float
        Added to the mean square.
    """

    def __init__(self, *, eps: float) -> None:
        super().__init__()
        names = ["x", "weight", "residual", "eps"]
        self.op = _custom("Glm2RmsNormResidual", names, "y", "total")
        self.eps = Tensor(np.array([checks.check_eps(eps)], np.float32))

    def construct(self, x: Any, weight: Any, residual: Any) -> Any:
        """Return y and x + residual, both (M, H), as the numpy operator does."""
        return self.op(x, weight, residual, self.eps)


class Swiglu(nn.Cell):
    """`glm2_ops.swiglu`."""

    def __init__(self) -> None:
        super().__init__()
        self.op = _custom("Glm2Swiglu", ["x"], "out")

    def construct(self, x: Any) -> Any:
        """Return out (M, F) of x (M, 2 F), as the numpy operator does."""
        return self.op(x)


def dynamic(dtype: ms.Type, *dims: int | None) -> Tensor:
    """Return a placeholder for ``Cell.set_inputs``; None is a dynamic dim."""
    return Tensor(shape=dims, dtype=dtype)
