"""The gradient of FlashAttention on ragged queries, with the rounding points of the kernel.

Scores, ``dP`` and ``dS`` are float32; ``P`` and ``dS``, the scale in it, are rounded to the dtype
before they are multiplied; all products accumulate in float32; dq, dk and dv are rounded once.
float64 inputs are computed in float64 throughout.
"""

from __future__ import annotations

import itertools

import numpy as np

from glm2_reference.attention import visible_keys
from glm2_reference.checks import (
    BoolArray,
    FloatArray,
    IntArray,
    check_cu_seqlens,
    check_float,
    check_heads,
    check_prefix_len,
    check_rank,
    check_shape,
    check_window,
    compute_dtype,
    resolve_scale,
)


def flash_attention_grad(
    do: FloatArray,
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    o: FloatArray,
    lse: FloatArray,
    cu_seqlens_q: IntArray,
    cu_seqlens_kv: IntArray,
    *,
    prefix_len: IntArray | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Differentiate `flash_attention_varlen`, with the probabilities computed again from ``lse``.

    Parameters
    ----------
    do, q, o : float, TND, (T, num_heads, D)
        Of one dtype with k and v. o is what the forward pass returned, do the gradient of it.
    k, v : float, TND, (Tk, num_kv_heads, D)
    lse : float32 (float64 for float64), (T, num_heads)
        What the forward pass returned. A row with -inf has probabilities 0.
    cu_seqlens_q, cu_seqlens_kv : int32, (B + 1,)
        Where each sequence starts in q, and in k and v.
    prefix_len, scale, causal, window
        As the forward pass had them.

    Returns
    -------
    dq : dtype of q, (T, num_heads, D)
    dk, dv : dtype of q, (Tk, num_kv_heads, D)
        Sums over the heads of each group, for they share one k and v.

    Raises
    ------
    ValueError
        If shapes, lengths or options contradict each other.
    TypeError
        If the dtypes differ or are not served.

    References
    ----------
    Dao et al. 2022, FlashAttention, algorithm 4 and appendix B.4; Dao 2023, algorithm 2.
    """
    check_operands(do, q, k, v, o, lse, cu_seqlens_q, cu_seqlens_kv)
    check_window(window)
    prefixes = check_prefix_len(prefix_len, np.diff(cu_seqlens_kv)).tolist()
    scale = resolve_scale(scale, q.shape[2])
    group_size = q.shape[1] // k.shape[1]
    dq, dk, dv = np.empty_like(q), np.empty_like(k), np.empty_like(v)
    spans = (itertools.pairwise(offsets.tolist()) for offsets in (cu_seqlens_q, cu_seqlens_kv))
    for (first, last), (first_key, last_key), prefix in zip(*spans, prefixes, strict=True):
        visible = visible_rows(
            last - first, last_key - first_key, group_size,
            causal=causal, prefix_len=prefix, window=window,
        )  # fmt: skip
        for g in range(k.shape[1]):
            rows = slice(first, last), slice(g * group_size, (g + 1) * group_size)
            keys = slice(first_key, last_key), g
            do_rows, q_rows, o_rows = (x[rows].reshape(-1, q.shape[2]) for x in (do, q, o))
            dq_rows, dk[keys], dv[keys] = group_gradients(
                do_rows, q_rows, o_rows, k[keys], v[keys], lse[rows].reshape(-1, 1), visible,
                scale=scale,
            )  # fmt: skip
            dq[rows] = dq_rows.reshape(dq[rows].shape)
    return dq, dk, dv


def visible_rows(
    len_q: int, len_kv: int, group_size: int, *, causal: bool, prefix_len: int, window: int | None
) -> BoolArray:
    """Return which keys each row (token x head of one group) of a sequence sees, (rows, len_kv)."""
    visible = visible_keys(
        np.arange(len_kv - len_q, len_kv), np.arange(len_kv),
        causal=causal, prefix_len=prefix_len, window=window,
    )  # (len_q, len_kv)  # fmt: skip
    return np.repeat(visible, group_size, axis=0)


def group_gradients(
    do: FloatArray,
    q: FloatArray,
    o: FloatArray,
    k: FloatArray,
    v: FloatArray,
    lse: FloatArray,
    visible: BoolArray,
    *,
    scale: float,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Differentiate the attention of one sequence and K/V head; rows are token x head of its group.

    Parameters
    ----------
    do, q, o : float, (rows, D)
    k, v : same dtype, (len_kv, D)
    lse : float32 or float64, (rows, 1)
    visible : bool, (rows, len_kv)
    scale : float

    Returns
    -------
    dq : same dtype, (rows, D)
    dk, dv : same dtype, (len_kv, D)
        Sums over the rows, and so over the heads of the group.
    """
    dtype, wide = q.dtype, compute_dtype(q.dtype)
    do32, q32, k32, v32, o32 = (x.astype(wide) for x in (do, q, k, v, o))
    seen = visible & np.isfinite(lse)
    scores = q32 @ k32.T * scale  # (rows, len_kv)
    shifted = np.where(seen, scores - np.where(np.isfinite(lse), lse, 0), -np.inf)
    probs = np.exp(shifted.astype(wide))
    delta = np.sum(do32 * o32, axis=1, keepdims=True)  # (rows, 1)
    dscores = probs * (do32 @ v32.T - delta) * scale  # (rows, len_kv)
    probs, dscores = (x.astype(dtype).astype(wide) for x in (probs, dscores))
    dq, dk, dv = dscores @ k32, dscores.T @ q32, probs.T @ do32
    return dq.astype(dtype), dk.astype(dtype), dv.astype(dtype)


def check_operands(
    do: FloatArray,
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    o: FloatArray,
    lse: FloatArray,
    cu_seqlens_q: IntArray,
    cu_seqlens_kv: IntArray,
) -> None:
    """Require one dtype, and shapes and offsets that follow from the shapes of q and k.

    Raises
    ------
    ValueError
        If shapes contradict each other.
    TypeError
        If the dtypes differ or are not served.
    """
    check_rank("(T, N, D)", do=do, q=q, o=o)
    check_rank("(Tk, G, D)", k=k, v=v)
    check_float(q=q)
    for name, x in {"do": do, "k": k, "v": v, "o": o}.items():
        if x.dtype != q.dtype:
            msg = f"{name} is {x.dtype} and q {q.dtype}; they must agree"
            raise TypeError(msg)
    if lse.dtype != compute_dtype(q.dtype):
        msg = f"lse is {lse.dtype}; expected {compute_dtype(q.dtype)} under {q.dtype} queries"
        raise TypeError(msg)
    check_heads(q.shape[1], k.shape[1])
    check_shape("k", k, (*k.shape[:2], q.shape[2]), "with the head_dim of q")
    check_shape("v", v, k.shape, "the shape of k")
    check_shape("do", do, q.shape, "the shape of q")
    check_shape("o", o, q.shape, "the shape of q")
    check_shape("lse", lse, q.shape[:2], "a row of q each")
    check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, q.shape[0])
    check_cu_seqlens("cu_seqlens_kv", cu_seqlens_kv, k.shape[0])
    check_shape("cu_seqlens_kv", cu_seqlens_kv, cu_seqlens_q.shape, "the shape of cu_seqlens_q")
