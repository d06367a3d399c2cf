"""rms_norm and swiglu for numpy."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt

from glm2_ops import checks
from glm2_ops._library import native

Array = npt.NDArray[Any]


@overload
def rms_norm(x: Array, weight: Array, *, eps: float) -> Array: ...
@overload
def rms_norm(x: Array, weight: Array, *, eps: float, residual: None) -> Array: ...
@overload
def rms_norm(x: Array, weight: Array, *, eps: float, residual: Array) -> tuple[Array, Array]: ...
def rms_norm(
    x: Array, weight: Array, *, eps: float, residual: Array | None = None
) -> Array | tuple[Array, Array]:
    """Scale each row of ``x`` to unit root mean square, after adding ``residual`` if there is one.

    ``y = weight * x / sqrt(mean(x**2, axis=-1) + eps)``, computed in float32 and rounded once.

    Parameters
    ----------
    x : float16, bfloat16 or float32, (M, H)
        H is 1 to 11,264.
    weight : same dtype as x, (H,)
    eps : float
        Added to the mean square, not negative. GLM2 uses 1e-5.
    residual : same dtype and shape as x, or None
        Added to ``x`` first. The sum is rounded to the dtype of ``x`` before it is normalised.

    Returns
    -------
    y : same dtype and shape as x
    total : same dtype and shape as x
        ``x + residual``; only returned where ``residual`` is given.

    Raises
    ------
    ValueError
        If shapes contradict one another, H is not served, or ``eps`` is negative or not finite.
    TypeError
        If a dtype is not served, or dtypes differ.

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.RMSNorm``; Zhang and Sennrich 2019, eq. 4.
    """
    checks.check_rms_norm(x, weight, residual)
    eps = checks.check_eps(eps)
    y = np.empty(x.shape, x.dtype)
    x, weight = np.ascontiguousarray(x), np.ascontiguousarray(weight)
    if residual is None:
        native.rms_norm(x, weight, None, y, None, eps)
        return y
    total = np.empty(x.shape, x.dtype)
    native.rms_norm(x, weight, np.ascontiguousarray(residual), y, total, eps)
    return y, total


def swiglu(x: Array) -> Array:
    """Gate the second half of each row by SiLU of the first half.

    ``out = silu(x[:, :F]) * x[:, F:]`` with ``silu(z) = z / (1 + exp(-z))``, in float32, rounded
    once.

    Parameters
    ----------
    x : float16, bfloat16 or float32, (M, 2F)

    Returns
    -------
    out : dtype of x, (M, F)

    Raises
    ------
    ValueError
        If ``x`` is not a matrix with an even number of columns.
    TypeError
        If its dtype is not served.

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.MLP``; Shazeer 2020, "GLU Variants Improve Transformer".
    """
    checks.check_swiglu(x)
    out = np.empty((x.shape[0], x.shape[1] // 2), x.dtype)
    if out.size:
        native.swiglu(np.ascontiguousarray(x), out)
    return out
