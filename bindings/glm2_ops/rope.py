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
    checks.check_rope_append(
        qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv,
        num_heads=num_heads, num_kv_heads=num_kv_heads, rotary_dim=rotary_dim,
    )  # fmt: skip
    q = np.empty((qkv.shape[0], num_heads, k_cache.shape[3]), qkv.dtype)
    native.rope_append(
        np.ascontiguousarray(qkv), np.ascontiguousarray(cos), np.ascontiguousarray(sin), k_cache, v_cache, block_table,
        cu_seqlens_q, seq_len_kv, q, rotary_dim,
    )  # fmt: skip
    return q
