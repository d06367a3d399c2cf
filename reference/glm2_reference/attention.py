"""Dense attention: the formula, without tiles. MHA, GQA and MQA are one code path."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_reference.checks import (
    BoolArray,
    FloatArray,
    FloatDType,
    check_cache_dtype,
    check_heads,
    check_rank,
    check_shape,
    check_window,
    compute_dtype,
    resolve_scale,
)
from glm2_reference.layers import exp_rows


def visible_keys(
    query_positions: npt.NDArray[np.integer[Any]],
    key_positions: npt.NDArray[np.integer[Any]],
    *,
    causal: bool,
    prefix_len: int,
    window: int | None,
) -> BoolArray:
    """Decide which keys each query sees.

    The query at position p sees the key at position j if ``j < prefix_len``, or if all of these
    that apply hold: ``j <= p`` (causal), ``p - window < j < p + window`` (window).

    Parameters
    ----------
    query_positions : integer, (M,)
    key_positions : integer, (n,)
        Of keys that exist: every j is below seq_len_kv.
    causal : bool
    prefix_len : int
        Keys before it are visible to every query: part A of GLM's blank infilling.
    window : int or None

    Returns
    -------
    visible : bool, (M, n)
    """
    p, j = query_positions[:, None], key_positions[None, :]
    visible = np.ones((p.shape[0], j.shape[1]), dtype=np.bool_)  # (M, n)
    if causal:
        visible &= j <= p
    if window is not None:
        visible &= (p - window < j) & (j < p + window)
    return visible | (j < prefix_len)


def divide_by_row_sum(
    acc: FloatArray, row_max: FloatArray, row_sum: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Finish a softmax: ``acc / row_sum``, and ``row_max + log(row_sum)``.

    Parameters
    ----------
    acc : float32 or float64, (..., D)
        Sum of ``exp(scores - row_max) * v``.
    row_max, row_sum : same dtype, (..., 1)

    Returns
    -------
    o : same dtype, (..., D)
        0 for a row that sees nothing.
    lse : same dtype, (...)
        Natural log of the sum of ``exp(scores)``; -inf for a row that sees nothing.
    """
    divisor = np.where(row_sum > 0, row_sum, np.ones_like(row_sum))
    return acc / divisor, (row_max + np.log(divisor))[..., 0]


def attention(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    *,
    scale: float | None = None,
    causal: bool = True,
    prefix_len: int = 0,
    window: int | None = None,
    mask: BoolArray | None = None,
    round_dtype: FloatDType | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Attend: ``o = softmax(scale * q @ k.T) @ v`` over the keys that each query sees.

    Scores, softmax and accumulation are float32, or float64 for float64 inputs. Queries stand at
    the end of the keys: query i at position ``seq_len_kv - seq_len_q + i``.

    Parameters
    ----------
    q : float, BNSD, (B, num_heads, seq_len_q, D)
        Head n reads K/V head ``n // group_size``.
    k, v : float, BNSD, (B, num_kv_heads, seq_len_kv, D)
        Dtype of q, or a 16-bit one under a float32 q.
    scale : float or None
        Multiplies scores; None means ``1 / sqrt(D)``.
    causal, prefix_len, window
        What is visible, as `visible_keys` defines.
    mask : bool, broadcastable to (B, num_heads, seq_len_q, seq_len_kv), or None
        True where a key may be seen; narrows what the other options leave visible.
    round_dtype : dtype or None
        Rounding points of the operators: q is rounded to it, and so is
        ``exp(scores - row_max)`` before it multiplies v; ``row_sum`` is taken before that rounding.
        Pass the cache's dtype to get the ``plain`` side of the accuracy rule; None rounds nothing.

    Returns
    -------
    o : dtype of q, BNSD, (B, num_heads, seq_len_q, D)
        0 in a row that sees nothing.
    lse : float32 (float64 for float64), (B, num_heads, seq_len_q)
        Natural log of the sum of exponentials; -inf in a row that sees nothing.

    Raises
    ------
    ValueError
        If shapes or options contradict each other.
    TypeError
        If the dtypes are not served.

    References
    ----------
    Vaswani et al. 2017, eq. 1; Shazeer 2019 (MQA); Ainslie et al. 2023 (GQA); Du et al. 2022 (GLM).
    """
    check_dense(q, k, v)
    _check_visibility(prefix_len, window, k.shape[2])
    batch, num_heads, seq_len_q, head_dim = q.shape
    num_kv_heads, seq_len_kv = k.shape[1:3]
    dtype = compute_dtype(q.dtype)
    rounding = dtype if round_dtype is None else np.dtype(round_dtype)

    grouped = (batch, num_kv_heads, num_heads // num_kv_heads, seq_len_q)
    query = q.astype(rounding).astype(dtype).reshape(*grouped, head_dim)
    key = k.astype(dtype)[:, :, None]  # (B, num_kv_heads, 1, seq_len_kv, D)
    value = v.astype(dtype)[:, :, None]
    scores = query @ np.swapaxes(key, -1, -2) * resolve_scale(scale, head_dim)
    visible = visible_keys(
        np.arange(seq_len_q) + (seq_len_kv - seq_len_q), np.arange(seq_len_kv),
        causal=causal, prefix_len=prefix_len, window=window,
    )  # (seq_len_q, seq_len_kv)  # fmt: skip
    if mask is not None:
        visible = visible & np.broadcast_to(mask, (*q.shape[:3], seq_len_kv))
        visible = visible.reshape(*grouped, seq_len_kv)
    scores = np.where(visible, scores, np.asarray(-np.inf, dtype))
    probs, row_max, row_sum = exp_rows(scores)
    acc = (
        probs.astype(rounding).astype(dtype) @ value
    )  # (B, num_kv_heads, group_size, seq_len_q, D)
    o, lse = divide_by_row_sum(acc, row_max, row_sum)
    return o.reshape(q.shape).astype(q.dtype), lse.reshape(q.shape[:3])


def check_dense(q: FloatArray, k: FloatArray, v: FloatArray) -> None:
    """Require q (B, num_heads, seq_len_q, D) and k, v (B, num_kv_heads, seq_len_kv, D).

    Raises
    ------
    ValueError
        If shapes contradict each other.
    TypeError
        If the dtypes are not served.
    """
    check_rank("(B, num_heads, seq_len, D)", q=q, k=k, v=v)
    check_cache_dtype("q", q, k, v)
    check_heads(q.shape[1], k.shape[1])
    check_shape("k", k, (q.shape[0], *k.shape[1:3], q.shape[3]), "with q's batch and head_dim")
    check_shape("v", v, k.shape, "the shape of k")


def _check_visibility(prefix_len: int, window: int | None, seq_len_kv: int) -> None:
    check_window(window)
    if not 0 <= prefix_len <= seq_len_kv:
        msg = f"prefix_len is {prefix_len}; expected 0 to {seq_len_kv}, the number of keys"
        raise ValueError(msg)
