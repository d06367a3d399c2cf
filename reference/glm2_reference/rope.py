"""GLM2's rotary position embedding: interleaved pairs of the first half of each head."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_reference.checks import (
    FloatArray,
    FloatDType,
    check_float,
    check_rank,
    check_shape,
    compute_dtype,
)


def rope_table(
    *,
    max_position: int,
    rotary_dim: int,
    base: float,
    position_scale: float = 1.0,
    dtype: FloatDType = np.float32,
) -> tuple[FloatArray, FloatArray]:
    """Tabulate the cosine and sine of every rotation angle.

    ``angle[p, i] = p / position_scale * base ** (-2i / rotary_dim)``, computed in ``dtype``.

    Parameters
    ----------
    max_position : int
        Rows of the table; positions 0 to ``max_position - 1`` can be rotated.
    rotary_dim : int
        Leading dims of a head that are rotated; even. Half of ``head_dim`` in GLM2.
    base : float
        10000, times ``rope_ratio`` in ChatGLM3-6B-32K.
    position_scale : float
        Divides positions: ``rope_ratio`` in ChatGLM2-6B-32K, 1 in every other model.
    dtype : float32 or float64

    Returns
    -------
    cos, sin : dtype, (max_position, rotary_dim / 2)

    Raises
    ------
    ValueError
        If ``rotary_dim`` is odd, or a number is not positive.

    References
    ----------
    ChatGLM3-6B ``modeling_chatglm.RotaryEmbedding``, which computes in float32. ChatGLM2-6B's own
    does in float16, inexact past position 2048. Su et al. 2021, eq. 15.
    """
    if rotary_dim % 2 or rotary_dim < 0:
        msg = f"rotary_dim is {rotary_dim}; dims rotate in pairs, so it must be even"
        raise ValueError(msg)
    if not (max_position > 0 and base > 0 and position_scale > 0):
        msg = (
            f"max_position is {max_position}, base {base} and position_scale {position_scale}; "
            "each must be positive"
        )
        raise ValueError(msg)
    exponent = np.arange(0, rotary_dim, 2, dtype=dtype) / np.asarray(max(rotary_dim, 1), dtype)
    theta = 1 / np.asarray(base, dtype) ** exponent  # (rotary_dim / 2,)
    positions = np.arange(max_position, dtype=dtype) / np.asarray(position_scale, dtype)
    angles = np.outer(positions, theta)  # (max_position, rotary_dim / 2)
    return np.cos(angles), np.sin(angles)


def apply_rope(
    x: FloatArray, cos: FloatArray, sin: FloatArray, positions: npt.NDArray[np.integer[Any]]
) -> FloatArray:
    """Rotate the pairs (2i, 2i + 1) of the first ``2 * cos.shape[1]`` dims by their token's angles.

    ``out[2i] = x[2i] cos - x[2i+1] sin`` and ``out[2i+1] = x[2i+1] cos + x[2i] sin``, computed in
    float32; the dims after the rotated ones pass through.

    Parameters
    ----------
    x : float, (T, H, D)
    cos, sin : float32 or float64, (max_position, rotary_dim / 2)
    positions : integer, (T,)

    Returns
    -------
    out : dtype and shape of x

    Raises
    ------
    ValueError
        If a position is outside the table, or the rotated dims do not fit in D.

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.apply_rotary_pos_emb``.
    """
    check_float(x=x, cos=cos, sin=sin)
    check_rank("(T, H, D)", x=x)
    check_rank("(max_position, rotary_dim / 2)", cos=cos)
    check_shape("sin", sin, cos.shape, "the shape of cos")
    check_shape("positions", positions, x.shape[:1], "one per token of x")
    max_position, pairs = cos.shape
    if 2 * pairs > x.shape[2]:
        msg = f"cos has {pairs} columns, so {2 * pairs} dims rotate, but x has {x.shape[2]} a head"
        raise ValueError(msg)
    outside = positions[(positions < 0) | (positions >= max_position)]
    if outside.size:
        msg = f"positions contain {outside[0]}; expected 0 to {max_position - 1}, the table's rows"
        raise ValueError(msg)
    dtype = compute_dtype(x.dtype)
    row_cos = cos[positions].astype(dtype)[:, None, :]  # (T, 1, rotary_dim / 2)
    row_sin = sin[positions].astype(dtype)[:, None, :]
    even = x[:, :, 0 : 2 * pairs : 2].astype(dtype)  # (T, H, rotary_dim / 2)
    odd = x[:, :, 1 : 2 * pairs : 2].astype(dtype)
    out = x.copy()
    out[:, :, 0 : 2 * pairs : 2] = (even * row_cos - odd * row_sin).astype(x.dtype)
    out[:, :, 1 : 2 * pairs : 2] = (odd * row_cos + even * row_sin).astype(x.dtype)
    return out
