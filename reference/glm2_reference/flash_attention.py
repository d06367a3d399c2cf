"""FlashAttention on ragged queries: the result of `attention`, computed tile by tile.

Rounding points, which the kernels share: q is rounded to the dtype of the cache where they differ;
scores, softmax, row sums and accumulators are float32; ``exp(scores - row_max)`` is rounded to the
dtype of the cache before it multiplies v; the output is rounded to the dtype of q. float64 inputs are
computed in float64. The tiles themselves are in `online_softmax`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Literal, overload

import numpy as np

from glm2_reference.checks import (
    FloatArray,
    IntArray,
    check_cache_dtype,
    check_cu_seqlens,
    check_heads,
    check_paged_cache,
    check_prefix_len,
    check_rank,
    check_shape,
    check_tiling,
    check_window,
    compute_dtype,
    resolve_scale,
)
from glm2_reference.kv_cache import read_pages
from glm2_reference.online_softmax import TileOptions, attend_sequence


@overload
def flash_attention(
    q: FloatArray,
    k_cache: FloatArray,
    v_cache: FloatArray,
    block_table: IntArray,
    cu_seqlens_q: IntArray,
    seq_len_kv: IntArray,
    *,
    prefix_len: IntArray | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    return_lse: Literal[False] = False,
    block_m: int = 128,
    block_n: int = 512,
) -> FloatArray: ...
@overload
def flash_attention(
    q: FloatArray,
    k_cache: FloatArray,
    v_cache: FloatArray,
    block_table: IntArray,
    cu_seqlens_q: IntArray,
    seq_len_kv: IntArray,
    *,
    prefix_len: IntArray | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    return_lse: Literal[True],
    block_m: int = 128,
    block_n: int = 512,
) -> tuple[FloatArray, FloatArray]: ...
def flash_attention(
    q: FloatArray,
    k_cache: FloatArray,
    v_cache: FloatArray,
    block_table: IntArray,
    cu_seqlens_q: IntArray,
    seq_len_kv: IntArray,
    *,
    prefix_len: IntArray | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    return_lse: bool = False,
    block_m: int = 128,
    block_n: int = 512,
) -> FloatArray | tuple[FloatArray, FloatArray]:
    """Attend over a paged cache, with online softmax.

    Parameters
    ----------
    q : float, TND, (T, num_heads, D)
        The query tokens of all sequences, one after another.
    k_cache, v_cache : float, (num_pages, num_kv_heads, page_size, D)
        Dtype of q, or a 16-bit one under a float32 q. page_size is 16 to 256.
    block_table : int32, (B, max_pages)
        Page ids in order; -1 where a page is not used.
    cu_seqlens_q : int32, (B + 1,)
        The rows of sequence b are ``cu_seqlens_q[b]`` to ``cu_seqlens_q[b + 1]``; none is allowed.
    seq_len_kv : int32, (B,)
        Cached tokens, those of this call included. Query i of b stands at position
        ``seq_len_kv[b] - len_q[b] + i``; where that is negative, it sees nothing but the prefix.
    prefix_len : int32, (B,), or None
        Keys before it are visible to every query of b; None means 0.
    scale : float or None
        Multiplies scores; None means ``1 / sqrt(D)``.
    causal : bool
        Whether a query sees only keys up to its own position.
    window : int or None
        A query at p sees j with ``p - window < j < p + window``, besides the prefix.
    return_lse : bool
    block_m, block_n : int
        Tile rows of q (token x head) and of k and v. They move the result by rounding only.

    Returns
    -------
    o : dtype of q, TND, (T, num_heads, D)
        0 in a row that sees nothing.
    lse : float32 (float64 for float64), (T, num_heads)
        Natural log of the row's sum of exponentials; -inf in a row that sees nothing. Only
        returned where ``return_lse`` is true.

    Raises
    ------
    ValueError
        If shapes, lengths, page ids or options contradict each other.
    TypeError
        If a dtype is not served.

    References
    ----------
    Dao et al. 2022, algorithm 1; Milakov and Gimelshein 2018 (online softmax); Kwon et al. 2023.
    """
    prefixes = check_paged(
        q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len, window
    )
    check_tiling(block_m, block_n)
    options = TileOptions(
        scale=resolve_scale(scale, q.shape[2]), causal=causal, prefix_len=0, window=window,
        block_m=block_m, block_n=block_n,
    )  # fmt: skip
    sequences = (
        (read_pages(k_cache, pages, length), read_pages(v_cache, pages, length))
        for pages, length in zip(block_table, seq_len_kv.tolist(), strict=True)
    )
    o, lse = _attend_all(q, sequences, cu_seqlens_q, prefixes, options)
    return (o, lse) if return_lse else o


@overload
def flash_attention_varlen(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    cu_seqlens_q: IntArray,
    cu_seqlens_kv: IntArray,
    *,
    prefix_len: IntArray | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    return_lse: Literal[False] = False,
    block_m: int = 128,
    block_n: int = 512,
) -> FloatArray: ...
@overload
def flash_attention_varlen(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    cu_seqlens_q: IntArray,
    cu_seqlens_kv: IntArray,
    *,
    prefix_len: IntArray | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    return_lse: Literal[True],
    block_m: int = 128,
    block_n: int = 512,
) -> tuple[FloatArray, FloatArray]: ...
def flash_attention_varlen(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    cu_seqlens_q: IntArray,
    cu_seqlens_kv: IntArray,
    *,
    prefix_len: IntArray | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    return_lse: bool = False,
    block_m: int = 128,
    block_n: int = 512,
) -> FloatArray | tuple[FloatArray, FloatArray]:
    """Attend over contiguous ragged keys and values, with online softmax.

    Parameters
    ----------
    q : float, TND, (T, num_heads, D)
    k, v : float, TND, (Tk, num_kv_heads, D)
        Dtype of q, or a 16-bit one under a float32 q.
    cu_seqlens_q, cu_seqlens_kv : int32, (B + 1,)
        Where each sequence starts in q, and in k and v.
    prefix_len, scale, causal, window, return_lse, block_m, block_n
        As in `flash_attention`, with the keys of sequence b in place of its cached tokens.

    Returns
    -------
    o, lse
        As in `flash_attention`.

    Raises
    ------
    ValueError
        If shapes, lengths or options contradict each other.
    TypeError
        If a dtype is not served.
    """
    check_rank("(T, N, D)", q=q)
    check_rank("(Tk, G, D)", k=k)
    check_cache_dtype("q", q, k, v)
    check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, q.shape[0])
    check_cu_seqlens("cu_seqlens_kv", cu_seqlens_kv, k.shape[0])
    check_shape("cu_seqlens_kv", cu_seqlens_kv, cu_seqlens_q.shape, "the shape of cu_seqlens_q")
    check_heads(q.shape[1], k.shape[1])
    check_shape("k", k, (*k.shape[:2], q.shape[2]), "with the head_dim of q")
    check_shape("v", v, k.shape, "the shape of k")
    prefixes = check_prefix_len(prefix_len, np.diff(cu_seqlens_kv))
    check_window(window)
    check_tiling(block_m, block_n)
    options = TileOptions(
        scale=resolve_scale(scale, q.shape[2]), causal=causal, prefix_len=0, window=window,
        block_m=block_m, block_n=block_n,
    )  # fmt: skip
    sequences = (
        (k[start:stop].swapaxes(0, 1), v[start:stop].swapaxes(0, 1))  # (G, seq_len_kv, D)
        for start, stop in itertools.pairwise(cu_seqlens_kv)
    )
    o, lse = _attend_all(q, sequences, cu_seqlens_q, prefixes, options)
    return (o, lse) if return_lse else o


def _attend_all(
    q: FloatArray,
    sequences: Iterable[tuple[FloatArray, FloatArray]],
    cu_seqlens_q: IntArray,
    prefixes: IntArray,
    options: TileOptions,
) -> tuple[FloatArray, FloatArray]:
    """Attend the queries of every sequence to its keys and values, (num_kv_heads, seq_len_kv, D)."""
    o, lse = np.empty_like(q), np.empty(q.shape[:2], compute_dtype(q.dtype))
    for b, (k, v) in enumerate(sequences):
        rows = slice(cu_seqlens_q[b], cu_seqlens_q[b + 1])
        own = dataclasses.replace(options, prefix_len=int(prefixes[b]))
        o[rows], lse[rows] = attend_sequence(q[rows], k, v, own)
    return o, lse


def check_paged(
    q: FloatArray,
    k_cache: FloatArray,
    v_cache: FloatArray,
    block_table: IntArray,
    cu_seqlens_q: IntArray,
    seq_len_kv: IntArray,
    prefix_len: IntArray | None,
    window: int | None,
) -> IntArray:
    """Require what `flash_attention` says of its arguments; return the prefixes, zeros for None."""
    check_rank("(T, N, D)", q=q)
    check_cache_dtype("q", q, k_cache, v_cache)
    check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, q.shape[0])
    check_paged_cache(k_cache, v_cache, block_table, seq_len_kv, batch=cu_seqlens_q.size - 1)
    check_heads(q.shape[1], k_cache.shape[1])
    check_shape("k_cache", k_cache, (*k_cache.shape[:3], q.shape[2]), "with the head_dim of q")
    check_window(window)
    return check_prefix_len(prefix_len, seq_len_kv)
