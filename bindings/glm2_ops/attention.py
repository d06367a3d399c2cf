"""flash_attention and flash_attention_varlen for numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_ops import checks
from glm2_ops._library import native


def flash_attention(
    q: npt.NDArray[Any],
    k_cache: npt.NDArray[Any],
    v_cache: npt.NDArray[Any],
    block_table: npt.NDArray[np.int32],
    cu_seqlens_q: npt.NDArray[np.int32],
    seq_len_kv: npt.NDArray[np.int32],
    *,
    prefix_len: npt.NDArray[np.int32] | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    return_lse: bool = False,
) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Attention of ragged queries over a paged K/V cache, tile by tile, with an online softmax.

    ``o = softmax(scale * q k^T) v``. Query i of sequence b stands at position
    ``seq_len_kv[b] - len_q[b] + i``. Both products take operands of the cache's dtype (a float32 q
    over a 16-bit cache is rounded) and accumulate in float32; the softmax is float32.

    Parameters
    ----------
    q : float16, bfloat16 or float32, (T, N, D)
        Queries of all sequences. D is a multiple of 16 up to 256; N * D is at most 65,535.
    k_cache, v_cache : float16, bfloat16 or float32, (num_pages, G, page_size, D)
        q's dtype, or a 16-bit one under a float32 q. N is a multiple of G, at most 128 times G;
        page_size is a multiple of 16 up to 256.
    block_table : int32, (B, max_pages)
        Page ids of each sequence in order; entries past its length may hold anything.
    cu_seqlens_q : int32, (B + 1,)
        Sequence b owns rows ``cu_seqlens_q[b]:cu_seqlens_q[b + 1]`` of q.
    seq_len_kv : int32, (B,)
        Cached tokens, those of this call included.
    prefix_len : int32, (B,), optional
        Keys at positions below it are visible to every query of the sequence.
    scale : float, optional
        Multiplies the scores; ``1 / sqrt(D)`` by default.
    causal : bool
        Whether a query sees no key after its own position, the prefix excepted.
    window : int, optional
        A query at p sees keys above ``p - window`` (and below ``p + window`` if not causal).
    return_lse : bool
        Whether to return the log of each row's softmax denominator too.

    Returns
    -------
    o : dtype of q, (T, N, D)
        Zero where a row sees no key.
    lse : float32, (T, N)
        Natural log; ``-inf`` where a row sees no key.

    Raises
    ------
    ValueError
        If shapes, lengths, page ids or options contradict one another.
    TypeError
        If a dtype is not served.

    References
    ----------
    Dao 2023, "FlashAttention-2", algorithm 1; Shazeer 2019 for the shared K/V heads.
    """
    checks.check_flash_attention(
        q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len
    )
    o = np.empty(q.shape, q.dtype)
    lse = np.empty(q.shape[:2], np.float32) if checks.check_bool("return_lse", return_lse) else None
    native.flash_attention(
        np.ascontiguousarray(q), k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv,
        prefix_len, o, lse, checks.check_scale(q.shape[2] ** -0.5 if scale is None else scale),
        checks.check_bool("causal", causal), checks.check_window(window),
    )  # fmt: skip
    return o if lse is None else (o, lse)


def flash_attention_varlen(
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    v: npt.NDArray[Any],
    cu_seqlens_q: npt.NDArray[np.int32],
    cu_seqlens_kv: npt.NDArray[np.int32],
    *,
    prefix_len: npt.NDArray[np.int32] | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    return_lse: bool = False,
) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Attention of ragged queries over contiguous ragged keys and values: training and tests.

    The same kernel as `flash_attention`, without pages. Queries stand at the end of their sequence's
    keys.

    Parameters
    ----------
    q : float16, bfloat16 or float32, (T, N, D)
    k, v : float16, bfloat16 or float32, (Tk, G, D)
        q's dtype, or a 16-bit one under a float32 q. N is a multiple of G, at most 128 times G;
        N * D and G * D are at most 65,535.
    cu_seqlens_q, cu_seqlens_kv : int32, (B + 1,)
        Sequence b owns rows ``cu_seqlens[b]:cu_seqlens[b + 1]`` of q, and of k and v.
    prefix_len, scale, causal, window, return_lse
        As in `flash_attention`.

    Returns
    -------
    o : dtype of q, (T, N, D)
    lse : float32, (T, N)

    Raises
    ------
    ValueError
        If shapes, lengths or options contradict one another.
    TypeError
        If a dtype is not served.

    References
    ----------
    Dao 2023, "FlashAttention-2", algorithm 1.
    """
    checks.check_flash_attention_varlen(q, k, v, cu_seqlens_q, cu_seqlens_kv, prefix_len)
    o = np.empty(q.shape, q.dtype)
    lse = np.empty(q.shape[:2], np.float32) if checks.check_bool("return_lse", return_lse) else None
    native.flash_attention_varlen(
        np.ascontiguousarray(q), np.ascontiguousarray(k), np.ascontiguousarray(v), cu_seqlens_q,
        cu_seqlens_kv, np.diff(cu_seqlens_kv), prefix_len, o, lse,
        checks.check_scale(q.shape[2] ** -0.5 if scale is None else scale),
        checks.check_bool("causal", causal), checks.check_window(window),
    )  # fmt: skip
    return o if lse is None else (o, lse)
