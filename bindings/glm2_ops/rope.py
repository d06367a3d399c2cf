"""rope_append for numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_ops import checks
from glm2_ops._library import native


def rope_append(
    qkv: npt.NDArray[Any],
    cos: npt.NDArray[np.float32],
    sin: npt.NDArray[np.float32],
    k_cache: npt.NDArray[Any],
    v_cache: npt.NDArray[Any],
    block_table: npt.NDArray[np.int32],
    cu_seqlens_q: npt.NDArray[np.int32],
    seq_len_kv: npt.NDArray[np.int32],
    *,
    num_heads: int,
    num_kv_heads: int,
    rotary_dim: int,
) -> npt.NDArray[Any]:
    """Rotate q and k of a fused projection, and write k and v to the paged cache in place.

    Pairs ``(2i, 2i + 1)`` of the first ``rotary_dim`` dims of each head turn by the angle of their
    token's position, in float32; the other dims pass through.

    Parameters
    ----------
    qkv : float16, bfloat16 or float32, (T, (N + 2 G) * D)
        Rows hold N query heads, G key heads and G value heads. D is a multiple of 16 up to 256.
    cos, sin : float32, (max_position, rotary_dim / 2)
    k_cache, v_cache : float16, bfloat16 or float32, (num_pages, G, page_size, D)
        qkv's dtype, or a 16-bit one under a float32 qkv. Written in place.
    block_table : int32, (B, max_pages)
    cu_seqlens_q : int32, (B + 1,)
    seq_len_kv : int32, (B,)
        Cached tokens, those of this call included: they take the last positions.
    num_heads, num_kv_heads : int
        N and G.
    rotary_dim : int
        A multiple of 8 up to D; 0 writes keys as they are (P-tuning prefixes).

    Returns
    -------
    q : dtype of qkv, (T, N, D)

    Raises
    ------
    ValueError
        If shapes, lengths or page ids contradict one another, or a page that is written stands in
        two places of the block table.
    TypeError
        If a dtype is not served.

    References
    ----------
    Su et al. 2021, "RoFormer", eq. 34; ChatGLM2-6B ``apply_rotary_pos_emb``.
    """
    num_heads = checks.check_int("num_heads", num_heads)
    num_kv_heads = checks.check_int("num_kv_heads", num_kv_heads)
    rotary_dim = checks.check_int("rotary_dim", rotary_dim)
    checks.check_array("qkv", qkv, "(T, (N + 2G) D)")
    checks.check_array("k_cache", k_cache, "(num_pages, G, page_size, D)")
    num_pages, _, page_size, head_dim = k_cache.shape
    checks.check_cache(k_cache, v_cache, head_dim)
    checks.check_written_in_place(k_cache, v_cache)
    checks.check_float_pair("qkv", qkv, k_cache)
    why = "num_kv_heads"
    checks.check_shape("k_cache", k_cache, (num_pages, num_kv_heads, page_size, head_dim), why)
    checks.check_heads(num_heads, num_kv_heads)
    width = (num_heads + 2 * num_kv_heads) * head_dim
    checks.check_shape("qkv", qkv, (qkv.shape[0], width), "(num_heads + 2 num_kv_heads) * head_dim")
    checks.check_rotary(cos, sin, rotary_dim, head_dim)
    checks.check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, qkv.shape[0])
    batch = cu_seqlens_q.size - 1
    checks.check_pages(
        block_table, seq_len_kv, batch=batch, num_pages=num_pages, page_size=page_size
    )
    max_position = cos.shape[0] if rotary_dim else np.iinfo(np.int32).max
    checks.check_rope_lengths(cu_seqlens_q, seq_len_kv, max_position)
    checks.check_disjoint(block_table, seq_len_kv, cu_seqlens_q, page_size)
    q = np.empty((qkv.shape[0], num_heads, head_dim), qkv.dtype)
    native.rope_append(
        np.ascontiguousarray(qkv), np.ascontiguousarray(cos), np.ascontiguousarray(sin), k_cache, v_cache, block_table,
        cu_seqlens_q, seq_len_kv, q, rotary_dim,
    )  # fmt: skip
    return q
