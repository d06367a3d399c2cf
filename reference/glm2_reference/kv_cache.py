"""The paged K/V cache: where a token's key and value live, and every write to it.

A page holds ``page_size`` tokens of one sequence, head-major: ``(num_pages, G, page_size, D)``.
The token at position p of sequence b is slot ``p % page_size`` of page
``block_table[b, p // page_size]``.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from glm2_reference.checks import (
    FloatArray,
    FloatDType,
    IntArray,
    check_cache_dtype,
    check_cu_seqlens,
    check_heads,
    check_paged_cache,
    check_rank,
    check_shape,
)
from glm2_reference.config import GLM2Config
from glm2_reference.rope import apply_rope


def read_pages(cache: FloatArray, pages: IntArray, seq_len_kv: int) -> FloatArray:
    """Gather the tokens of one sequence.

    Parameters
    ----------
    cache : float, (num_pages, G, page_size, D)
    pages : int32, (max_pages,)
        The sequence's row of the block table.
    seq_len_kv : int

    Returns
    -------
    x : dtype of cache, (G, seq_len_kv, D)
    """
    num_kv_heads, page_size, head_dim = cache.shape[1:]
    used = pages[: -(-seq_len_kv // page_size)]
    x: FloatArray = cache[used].swapaxes(0, 1)  # (G, pages, page_size, D)
    return x.reshape(num_kv_heads, -1, head_dim)[:, :seq_len_kv]


def write_pages(cache: FloatArray, pages: IntArray, start: int, x: FloatArray) -> None:
    """Write the tokens of one sequence at positions ``start`` and after, in place.

    Parameters
    ----------
    cache : float, (num_pages, G, page_size, D)
    pages : int32, (max_pages,)
        The sequence's row of the block table.
    start : int
    x : float, (T, G, D)
        Rounded to the dtype of ``cache``.
    """
    positions = np.arange(start, start + x.shape[0])
    page_size = cache.shape[2]
    cache[pages[positions // page_size], :, positions % page_size] = x.astype(cache.dtype)


def rope_append(
    qkv: FloatArray,
    cos: FloatArray,
    sin: FloatArray,
    k_cache: FloatArray,
    v_cache: FloatArray,
    block_table: IntArray,
    cu_seqlens_q: IntArray,
    seq_len_kv: IntArray,
    *,
    num_heads: int,
    num_kv_heads: int,
    rotary_dim: int,
) -> FloatArray:
    """Rotate q and k of a fused projection, and write k and v into the cache, in place.

    Row i of sequence b stands at position ``seq_len_kv[b] - len_q[b] + i``: there it is rotated,
    and there its key and value are written. The cache holds rotated keys.

    Parameters
    ----------
    qkv : float, (T, (num_heads + 2 * num_kv_heads) * D)
        All of q, then all of k, then all of v.
    cos, sin : float32 or float64, (max_position, rotary_dim / 2)
        From `rope_table`. Not read where ``rotary_dim`` is 0.
    k_cache, v_cache : float, (num_pages, num_kv_heads, page_size, D)
        Dtype of qkv, or a 16-bit one under a float32 qkv. page_size is 16 to 256.
    block_table : int32, (B, max_pages)
        Page ids in order; -1 where a page is not used yet.
    cu_seqlens_q : int32, (B + 1,)
        The rows of sequence b are ``cu_seqlens_q[b]`` to ``cu_seqlens_q[b + 1]``.
    seq_len_kv : int32, (B,)
        Cached tokens, those of this call included.
    num_heads, num_kv_heads : int
    rotary_dim : int
        Leading dims that rotate; 0 writes keys as they are (the prefixes of P-tuning v2).

    Returns
    -------
    q : dtype of qkv, (T, num_heads, D)
        Rotated.

    Raises
    ------
    ValueError
        If shapes, lengths or page ids contradict each other. Nothing is written then.
    TypeError
        If a dtype is not served.

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.SelfAttention.forward``; Kwon et al. 2023 (paged attention).
    """
    starts = _check_rope_append(
        qkv, cos, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv,
        num_heads=num_heads, num_kv_heads=num_kv_heads, rotary_dim=rotary_dim,
    )  # fmt: skip
    heads = qkv.reshape(-1, num_heads + 2 * num_kv_heads, k_cache.shape[3])  # (T, N + 2G, D)
    qk, v = heads[:, : num_heads + num_kv_heads], heads[:, num_heads + num_kv_heads :]
    if rotary_dim:
        len_q = np.diff(cu_seqlens_q)
        positions = np.arange(qkv.shape[0]) + np.repeat(starts - cu_seqlens_q[:-1], len_q)
        qk = apply_rope(qk, cos, sin, positions)
    q, k = qk[:, :num_heads].copy(), qk[:, num_heads:]  # (T, N, D), (T, G, D)
    for b, start in enumerate(starts.tolist()):
        rows = slice(cu_seqlens_q[b], cu_seqlens_q[b + 1])
        write_pages(k_cache, block_table[b], start, k[rows])
        write_pages(v_cache, block_table[b], start, v[rows])
    return q


def _check_rope_append(
    qkv: FloatArray,
    cos: FloatArray,
    k_cache: FloatArray,
    v_cache: FloatArray,
    block_table: IntArray,
    cu_seqlens_q: IntArray,
    seq_len_kv: IntArray,
    *,
    num_heads: int,
    num_kv_heads: int,
    rotary_dim: int,
) -> IntArray:
    """Return the position of the first row of each sequence."""
    check_rank("(T, (N + 2G) * D)", qkv=qkv)
    check_cache_dtype("qkv", qkv, k_cache, v_cache)
    check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, qkv.shape[0])
    batch = cu_seqlens_q.size - 1
    check_paged_cache(k_cache, v_cache, block_table, seq_len_kv, batch=batch)
    check_heads(num_heads, num_kv_heads)
    page_shape = (k_cache.shape[0], num_kv_heads, *k_cache.shape[2:])
    check_shape("k_cache", k_cache, page_shape, "with num_kv_heads on its second axis")
    width = (num_heads + 2 * num_kv_heads) * k_cache.shape[3]
    check_shape("qkv", qkv, (qkv.shape[0], width), "(num_heads + 2 num_kv_heads) * D columns")
    if rotary_dim and cos.shape[1:] != (rotary_dim / 2,):
        msg = f"rotary_dim is {rotary_dim}, but cos has shape {cos.shape}; half of it are columns"
        raise ValueError(msg)
    starts: IntArray = seq_len_kv - np.diff(cu_seqlens_q)
    if np.any(starts < 0):
        b = int(np.argmax(starts < 0))
        msg = (
            f"seq_len_kv[{b}] is {seq_len_kv[b]}, but this call appends "
            f"{seq_len_kv[b] - starts[b]} tokens to sequence {b}; seq_len_kv must include them"
        )
        raise ValueError(msg)
    return starts


@dataclasses.dataclass(frozen=True)
class KVCache:
    """The cached keys and values of one sequence, for every layer of a model.

    Parameters
    ----------
    k, v : list of float arrays, one a layer, each (num_pages, num_kv_heads, page_size, D)
    block_table : int32, (1, num_pages)
        The same for every layer.
    lengths : int32, (1,)
        Tokens in the cache; `advance` and `append` move it on, in place.
    """

    k: list[FloatArray]
    v: list[FloatArray]
    block_table: IntArray
    lengths: IntArray

    @classmethod
    def new(
        cls,
        config: GLM2Config,
        *,
        max_tokens: int,
        page_size: int = 128,
        dtype: FloatDType = np.float32,
    ) -> KVCache:
        """Allocate an empty cache for ``max_tokens`` tokens, rounded up to whole pages.

        Raises
        ------
        ValueError
            If ``max_tokens`` is not positive, or ``page_size`` not 16 to 256.
        """
        if max_tokens < 1 or not 16 <= page_size <= 256:
            msg = (
                f"max_tokens is {max_tokens} and page_size {page_size}; "
                "expected at least 1 token and pages of 16 to 256"
            )
            raise ValueError(msg)
        num_pages = -(-max_tokens // page_size)
        shape = (num_pages, config.num_kv_heads, page_size, config.head_dim)
        return cls(
            k=[np.zeros(shape, dtype) for _ in range(config.num_layers)],
            v=[np.zeros(shape, dtype) for _ in range(config.num_layers)],
            block_table=np.arange(num_pages, dtype=np.int32)[None],  # (1, num_pages)
            lengths=np.zeros(1, np.int32),
        )

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return int(self.lengths[0])

    @property
    def max_tokens(self) -> int:
        """Tokens that the pages hold."""
        return int(self.block_table.size * self.k[0].shape[2])

    def lengths_after(self, num_tokens: int) -> IntArray:
        """Return ``seq_len_kv`` of a call that brings ``num_tokens`` more, int32, (1,).

        Raises
        ------
        ValueError
            If the pages do not hold them.
        """
        if self.length + num_tokens > self.max_tokens:
            msg = (
                f"the cache holds {self.length} of {self.max_tokens} tokens and {num_tokens} more "
                "do not fit; make it with a larger max_tokens"
            )
            raise ValueError(msg)
        return np.array([self.length + num_tokens], np.int32)

    def advance(self, num_tokens: int) -> None:
        """Count ``num_tokens`` that `rope_append` has written into every layer."""
        self.lengths[:] = self.lengths_after(num_tokens)

    def append(self, k: FloatArray, v: FloatArray) -> None:
        """Write keys and values as they are into every layer, and count them.

        Parameters
        ----------
        k, v : float, (num_layers, T, num_kv_heads, D)
            Rounded to the dtype of the cache.

        Raises
        ------
        ValueError
            If the shapes are not the cache's, or the pages are full.
        """
        check_rank("(num_layers, T, num_kv_heads, D)", k=k)
        _, num_kv_heads, _, head_dim = self.k[0].shape
        wanted = (len(self.k), k.shape[1], num_kv_heads, head_dim)
        check_shape("k", k, wanted, "(num_layers, T, num_kv_heads, D)")
        check_shape("v", v, wanted, "the shape of k")
        self.lengths_after(k.shape[1])
        for layer in range(len(self.k)):
            write_pages(self.k[layer], self.block_table[0], self.length, k[layer])
            write_pages(self.v[layer], self.block_table[0], self.length, v[layer])
        self.advance(k.shape[1])
