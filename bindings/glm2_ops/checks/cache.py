"""Checks of a paged cache, and of the lengths and pages that are read from it or written to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_ops.checks.arrays import (
    FEW,
    MAX_LENGTH,
    check_array,
    check_index,
    check_shape,
    few,
)

_OVERLAP_WORK = 10_000  # that numpy does before it takes interleaved arrays for overlapping ones


def check_cache(k_cache: npt.NDArray[Any], v_cache: npt.NDArray[Any], head_dim: int) -> None:
    """Require two contiguous caches of one shape and dtype, with pages that kernels can read."""
    layout = "(num_pages, G, page_size, D)"
    check_array("k_cache", k_cache, layout)
    check_array("v_cache", v_cache, layout)
    check_shape("v_cache", v_cache, k_cache.shape, "the shape of k_cache")
    if v_cache.dtype != k_cache.dtype:
        msg = f"k_cache is {k_cache.dtype} and v_cache {v_cache.dtype}; they must agree"
        raise TypeError(msg)
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        if not cache.flags.c_contiguous:
            msg = f"{name} is not C-contiguous; caches are used in place, so make it so first"
            raise ValueError(msg)
    _, num_kv_heads, page_size, cache_dim = k_cache.shape
    if cache_dim != head_dim:
        msg = f"k_cache has head_dim {cache_dim}, but the queries have {head_dim}; they must agree"
        raise ValueError(msg)
    if head_dim < 1:
        msg = "head_dim is 0; it must be a multiple of 16 up to 256"
        raise ValueError(msg)
    if num_kv_heads < 1:
        msg = "k_cache has 0 KV heads; at least one is needed"
        raise ValueError(msg)
    if page_size % 16 or not 16 <= page_size <= 256:
        msg = f"page_size is {page_size}; it must be a multiple of 16 from 16 to 256"
        raise ValueError(msg)


def check_written_in_place(
    k_cache: npt.NDArray[Any], v_cache: npt.NDArray[Any], read: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Require caches that can be written, each in memory of its own, which is not read meanwhile."""
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        if not cache.flags.writeable:
            msg = f"{name} is read-only; it is written in place, so pass a writeable array"
            raise ValueError(msg)
    if np.may_share_memory(k_cache, v_cache):  # exact, for both are contiguous
        msg = "k_cache and v_cache overlap; both are written, so give each memory of its own"
        raise ValueError(msg)
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        for other, array in read.items():
            if np.may_share_memory(cache, array, max_work=_OVERLAP_WORK):
                msg = f"{name} is written while {other} is read, and they overlap; pass {other}.copy()"
                raise ValueError(msg)


def check_rotary(
    cos: npt.NDArray[np.float32], sin: npt.NDArray[np.float32], rotary_dim: int, head_dim: int
) -> None:
    """Require a rotary_dim that the kernel serves, and tables that fit it."""
    if rotary_dim % 8 or not 0 <= rotary_dim <= head_dim:
        msg = f"rotary_dim is {rotary_dim}; it must be a multiple of 8 up to head_dim = {head_dim}"
        raise ValueError(msg)
    for name, table in (("cos", cos), ("sin", sin)):
        check_array(name, table, "(max_position, rotary_dim / 2)")
        if table.dtype != np.float32:
            msg = f"{name} has dtype {table.dtype}; expected float32"
            raise TypeError(msg)
        check_shape(name, table, (cos.shape[0], rotary_dim // 2), "rotary_dim / 2 columns")


def check_pages(
    block_table: npt.NDArray[np.int32],
    seq_len_kv: npt.NDArray[np.int32],
    *,
    batch: int,
    num_pages: int,
    page_size: int,
) -> None:
    """Require a page of the cache for every cached token."""
    check_index("block_table", block_table, "(B, max_pages)")
    check_index("seq_len_kv", seq_len_kv, "(B,)")
    check_shape("seq_len_kv", seq_len_kv, (batch,), "one per sequence of cu_seqlens_q")
    max_pages = block_table.shape[1]
    longest = min(max_pages * page_size, MAX_LENGTH)
    wanted = (batch, max_pages)
    check_shape("block_table", block_table, wanted, "one row per sequence of cu_seqlens_q")
    for b, length in enumerate(seq_len_kv.tolist()):
        if not 0 <= length <= longest:
            msg = (
                f"seq_len_kv[{b}] is {length}; expected 0 to {longest}, "
                f"what {max_pages} pages of {page_size} in block_table hold"
            )
            raise ValueError(msg)
        used = block_table[b, : -(-length // page_size)]
        if not _are_ids(used, num_pages):
            bad = np.flatnonzero((used < 0) | (used >= num_pages))
            msg = (
                f"block_table[{b}, {bad[0]}] is {used[bad[0]]}, but sequence {b} has {length} "
                f"tokens and needs that page; expected a page id of 0 to {num_pages - 1}"
            )
            raise ValueError(msg)


def _are_ids(ids: npt.NDArray[np.int32], count: int) -> bool:
    """Whether all of them are 0 to count - 1."""
    if ids.size > FEW:
        return bool(ids.min() >= 0 and ids.max() < count)
    listed = ids.tolist()
    return not listed or (min(listed) >= 0 and max(listed) < count)


def check_prefix_len(prefix_len: npt.NDArray[np.int32], seq_len_kv: npt.NDArray[np.int32]) -> None:
    """Require prefixes inside their sequences."""
    check_index("prefix_len", prefix_len, "(B,)")
    check_shape("prefix_len", prefix_len, seq_len_kv.shape, "one per sequence")
    bad = np.flatnonzero((prefix_len < 0) | (prefix_len > seq_len_kv))
    if bad.size:
        b = int(bad[0])
        msg = (
            f"prefix_len[{b}] is {prefix_len[b]}; "
            f"expected 0 to {seq_len_kv[b]}, the keys of sequence {b}"
        )
        raise ValueError(msg)


def check_rope_lengths(
    cu_seqlens_q: npt.NDArray[np.int32], seq_len_kv: npt.NDArray[np.int32], max_position: int
) -> None:
    """Require that lengths count the call's own tokens and stay inside the cos and sin tables."""
    len_q = np.diff(cu_seqlens_q)
    bad = np.flatnonzero(seq_len_kv < len_q)
    if bad.size:
        b = int(bad[0])
        msg = (
            f"seq_len_kv[{b}] is {seq_len_kv[b]}, but sequence {b} has {len_q[b]} tokens in this "
            "call; the length counts them too"
        )
        raise ValueError(msg)
    longest = int(np.max(seq_len_kv, where=len_q > 0, initial=0))
    if longest > max_position:
        msg = (
            f"seq_len_kv reaches {longest}, but cos and sin have {max_position} "
            "positions; make longer tables"
        )
        raise ValueError(msg)


def check_disjoint(
    tables: npt.NDArray[np.int32],
    seq_len_kv: npt.NDArray[np.int32],
    cu_seqlens_q: npt.NDArray[np.int32],
    page_size: int,
) -> None:
    """Require that a page that is written stands in one place of the block table alone."""
    owners: dict[int, list[int]] = {}
    written: set[int] = set()
    for b, (length, tokens) in enumerate(
        zip(seq_len_kv.tolist(), np.diff(cu_seqlens_q).tolist(), strict=True)
    ):
        pages = tables[b, : -(-length // page_size)].tolist()
        for page in pages:
            owners.setdefault(page, []).append(b)
        if tokens:
            written.update(pages[(length - tokens) // page_size :])
    for page in written:
        if len(owners[page]) > 1:
            msg = (
                f"block_table gives page {page} to sequences {few(owners[page])}, and this call writes "
                "to it; a page that is written must have one place"
            )
            raise ValueError(msg)
