"""The layers of a block besides attention: embedding, linear, RMSNorm, SwiGLU, softmax.

Each computes in float32 and rounds its result once to the dtype it was given; float64 stays float64.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt

from glm2_reference.checks import FloatArray, check_float, check_rank, check_shape, compute_dtype


def embedding(ids: npt.NDArray[np.integer[Any]], weight: FloatArray) -> FloatArray:
    """Look up one row of ``weight`` for each token id.

    Parameters
    ----------
    ids : integer, (T,)
    weight : float, (vocab_size, hidden_size)

    Returns
    -------
    out : dtype of weight, (T, hidden_size)

    Raises
    ------
    TypeError
        If ``ids`` are not integers.
    ValueError
        If an id is not a row of ``weight``.
    """
    if not np.issubdtype(ids.dtype, np.integer):
        msg = f"ids have dtype {ids.dtype}; expected integers"
        raise TypeError(msg)
    check_rank("(T,)", ids=ids)
    outside = ids[(ids < 0) | (ids >= weight.shape[0])]
    if outside.size:
        msg = f"ids contain {outside[0]}; expected 0 to {weight.shape[0] - 1}"
        raise ValueError(msg)
    out: FloatArray = weight[ids]  # (T, hidden_size)
    return out


def linear(x: FloatArray, weight: FloatArray, bias: FloatArray | None = None) -> FloatArray:
    """Multiply each row of ``x`` by the transpose of ``weight`` and add ``bias``.

    ``out = x @ weight.T + bias``, accumulated in float32 and rounded once.

    Parameters
    ----------
    x : float, (..., in_features)
    weight : float, (out_features, in_features)
    bias : float, (out_features,), or None

    Returns
    -------
    out : dtype of x, (..., out_features)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    References
    ----------
    ``torch.nn.Linear``, whose layout of weights the published checkpoints have.
    """
    check_rank("(out_features, in_features)", weight=weight)
    if x.shape[-1:] != weight.shape[1:]:
        msg = f"x has shape {x.shape} and weight {weight.shape}; both must end in in_features"
        raise ValueError(msg)
    dtype = compute_dtype(x.dtype)
    out: FloatArray = x.astype(dtype) @ weight.astype(dtype).T  # (..., out_features)
    if bias is not None:
        check_shape("bias", bias, weight.shape[:1], "one per row of weight")
        out = out + bias.astype(dtype)
    return out.astype(x.dtype)


@overload
def rms_norm(x: FloatArray, weight: FloatArray, *, eps: float) -> FloatArray: ...
@overload
def rms_norm(x: FloatArray, weight: FloatArray, *, eps: float, residual: None) -> FloatArray: ...
@overload
def rms_norm(
    x: FloatArray, weight: FloatArray, *, eps: float, residual: FloatArray
) -> tuple[FloatArray, FloatArray]: ...
def rms_norm(
    x: FloatArray, weight: FloatArray, *, eps: float, residual: FloatArray | None = None
) -> FloatArray | tuple[FloatArray, FloatArray]:
    """Scale each row of ``x`` to unit root mean square, after adding ``residual`` if there is one.

    ``out = weight * x / sqrt(mean(x**2, axis=-1) + eps)``, computed in float32.

    Parameters
    ----------
    x : float, (..., hidden_size)
    weight : same dtype as x, (hidden_size,)
    eps : float
        Added to the mean square. GLM2 uses 1e-5.
    residual : same dtype and shape as x, or None
        Added to ``x`` first. The sum is rounded to the dtype of ``x`` before it is normalised, as
        it is when the addition stands alone.

    Returns
    -------
    out : same dtype and shape as x
    total : same dtype and shape as x
        ``x + residual``; only returned where ``residual`` is given.

    Raises
    ------
    ValueError
        If ``weight`` does not match the last axis of ``x``, or ``residual`` its shape.
    TypeError
        If the dtypes differ.

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.RMSNorm``; Zhang and Sennrich 2019, eq. 4.
    """
    check_float(x=x)
    if weight.shape != x.shape[-1:]:
        msg = f"weight has shape {weight.shape}, but x ends in {x.shape[-1:]} (expected the same)"
        raise ValueError(msg)
    for name, other in {"weight": weight, "residual": residual}.items():
        if other is not None and other.dtype != x.dtype:
            msg = f"{name} is {other.dtype} and x {x.dtype}; expected the same dtype"
            raise TypeError(msg)
    if residual is None:
        return _normalise(x, weight, eps)
    check_shape("residual", residual, x.shape, "the shape of x")
    dtype = compute_dtype(x.dtype)
    total = (x.astype(dtype) + residual.astype(dtype)).astype(x.dtype)
    return _normalise(total, weight, eps), total


def _normalise(x: FloatArray, weight: FloatArray, eps: float) -> FloatArray:
    wide = x.astype(compute_dtype(x.dtype))
    mean_square = np.mean(wide * wide, axis=-1, keepdims=True)  # (..., 1)
    out: FloatArray = weight.astype(wide.dtype) * (wide / np.sqrt(mean_square + eps))
    return out.astype(x.dtype)


def swiglu(x: FloatArray) -> FloatArray:
    """Gate the second half of each row by SiLU of the first half.

    ``out = silu(x[:, :F]) * x[:, F:]`` with ``silu(z) = z / (1 + exp(-z))``, in float32.

    Parameters
    ----------
    x : float, (M, 2F)

    Returns
    -------
    out : dtype of x, (M, F)

    Raises
    ------
    ValueError
        If ``x`` is not a matrix with an even number of columns.

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.MLP``; Shazeer 2020, "GLU Variants Improve Transformer".
    """
    check_float(x=x)
    check_rank("(M, 2F)", x=x)
    if x.shape[1] % 2:
        msg = f"x has {x.shape[1]} columns; expected an even number, gate and value side by side"
        raise ValueError(msg)
    gate, value = np.split(x.astype(compute_dtype(x.dtype)), 2, axis=1)  # (M, F) each
    decay = np.exp(-np.abs(gate))  # never overflows
    sigmoid = np.where(gate >= 0, np.ones_like(decay), decay) / (1 + decay)
    out: FloatArray = gate * sigmoid * value
    return out.astype(x.dtype)


def exp_rows(scores: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Take exponentials of rows that start from their maximum; a row of -inf gives zeros.

    Parameters
    ----------
    scores : float32 or float64, (..., seq_len_kv)

    Returns
    -------
    probs : same dtype and shape as scores
        ``exp(scores - row_max)``, not yet divided by ``row_sum``.
    row_max, row_sum : same dtype, (..., 1)
        -inf and 0 for a row without a finite score.
    """
    row_max = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)  # (..., 1)
    probs = np.exp(scores - finite_or_zero(row_max))
    return probs, row_max, np.sum(probs, axis=-1, keepdims=True)


def finite_or_zero(row_max: FloatArray) -> FloatArray:
    """Replace -inf by 0, so that ``-inf - row_max`` is -inf and not NaN."""
    return np.where(np.isneginf(row_max), np.zeros_like(row_max), row_max)


def softmax(scores: FloatArray) -> FloatArray:
    """Turn each row of scores into probabilities; a row of -inf becomes zeros.

    Parameters
    ----------
    scores : float, (..., seq_len_kv)

    Returns
    -------
    probs : dtype and shape of scores
    """
    check_float(scores=scores)
    probs, _, row_sum = exp_rows(scores.astype(compute_dtype(scores.dtype)))
    divisor = np.where(row_sum > 0, row_sum, np.ones_like(row_sum))
    out: FloatArray = probs / divisor
    return out.astype(scores.dtype)
