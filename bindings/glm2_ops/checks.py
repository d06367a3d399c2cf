"""Argument checks, once, before a launch: the kernels trust what passes here.

ValueError for values and shapes, TypeError for dtypes; each message says what came and what was
wanted. `glm2` calls them too, before it runs a graph: a MindSpore custom operator that fails inside
a graph leaves that graph unusable.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_ops._library import native

_FLOATS = ("float16", "bfloat16", "float32")  # by name: numpy has no bfloat16 of its own
_MAX_INT32 = 2**31 - 1
MAX_LENGTH = 2**30  # positions and windows add up inside int32
_INT32, _FLOAT32 = np.dtype(np.int32), np.dtype(np.float32)
_MAX_FLOAT32 = float(np.finfo(np.float32).max)
# Up to so many numbers plain Python is quicker than numpy: a decode step's checks must not show.
_FEW = 64


@functools.cache
def _axes(layout: str) -> int:
    """Count the axes that a layout, such as "(T, N, D)", spells."""
    return len([axis for axis in layout.strip("()").split(",") if axis.strip()])


@functools.cache
def _is_served(dtype: np.dtype[Any]) -> bool:
    return dtype.name in _FLOATS


def check_array(name: str, array: npt.NDArray[Any], layout: str) -> None:
    """Require a numpy array with as many axes as ``layout``, such as "(T, N, D)", spells."""
    if not isinstance(array, np.ndarray):
        msg = f"{name} is a {type(array).__name__}; expected a numpy array {layout}"
        raise TypeError(msg)
    wanted = _axes(layout)
    if array.ndim != wanted:
        msg = f"{name} has shape {array.shape}; expected {wanted} axes, {layout}"
        raise ValueError(msg)
    if max(array.shape, default=0) > _MAX_INT32:
        msg = f"{name} has shape {array.shape}; an axis holds at most {_MAX_INT32}"
        raise ValueError(msg)


def check_shape(name: str, array: npt.NDArray[Any], wanted: tuple[int, ...], why: str) -> None:
    """Require one shape; ``why`` says what it follows from."""
    if array.shape != wanted:
        msg = f"{name} has shape {array.shape}; expected {wanted}, {why}"
        raise ValueError(msg)


def check_float(name: str, x: npt.NDArray[Any]) -> None:
    """Require a dtype that the operators serve."""
    if not _is_served(x.dtype):
        msg = f"{name} has dtype {x.dtype}; the operators serve {', '.join(_FLOATS)}"
        raise TypeError(msg)


def check_head_dim(head_dim: int) -> None:
    """Require a head_dim that kernels serve."""
    if head_dim % 16 or not 16 <= head_dim <= 256:
        msg = f"head_dim is {head_dim}; it must be a multiple of 16 up to 256"
        raise ValueError(msg)


def check_float_pair(
    name: str, x: npt.NDArray[Any], k: npt.NDArray[Any], k_name: str = "k_cache"
) -> None:
    """Require floats that are served, and keys of x's dtype or 16-bit ones under a float32 x."""
    check_float(name, x)
    check_float(k_name, k)
    if x.dtype not in (k.dtype, _FLOAT32):
        msg = (
            f"{name} is {x.dtype} and {k_name} {k.dtype}; the dtype of {k_name} must be that of "
            f"{name}, or a 16-bit one under a float32 {name}"
        )
        raise TypeError(msg)


def check_index(name: str, array: npt.NDArray[Any], layout: str) -> None:
    """Require int32, C-contiguous."""
    check_array(name, array, layout)
    if array.dtype != _INT32:
        msg = f"{name} has dtype {array.dtype}; index arrays are int32"
        raise TypeError(msg)
    if not array.flags.c_contiguous:
        msg = f"{name} is not C-contiguous; pass np.ascontiguousarray({name})"
        raise ValueError(msg)


def check_cu_seqlens(name: str, cu_seqlens: npt.NDArray[np.int32], num_tokens: int) -> None:
    """Require offsets that start at 0, never fall, and end at ``num_tokens``."""
    check_index(name, cu_seqlens, "(B + 1,)")
    if cu_seqlens.size == 0 or cu_seqlens.item(0) != 0:
        msg = f"{name} is {cu_seqlens.tolist()}; it must start at 0"
        raise ValueError(msg)
    if _ever_falls(cu_seqlens):
        msg = f"{name} is {cu_seqlens.tolist()}; it must never fall"
        raise ValueError(msg)
    if cu_seqlens.item(-1) != num_tokens:
        msg = f"{name} ends at {cu_seqlens[-1]}, but there are {num_tokens} tokens; they must agree"
        raise ValueError(msg)


def _ever_falls(offsets: npt.NDArray[np.int32]) -> bool:
    if offsets.size > _FEW:
        return bool(np.any(offsets[1:] < offsets[:-1]))
    listed: list[int] = offsets.tolist()
    return listed != sorted(listed)


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


def check_written_in_place(k_cache: npt.NDArray[Any], v_cache: npt.NDArray[Any]) -> None:
    """Require caches that can be written, each in memory of its own."""
    for name, cache in (("k_cache", k_cache), ("v_cache", v_cache)):
        if not cache.flags.writeable:
            msg = f"{name} is read-only; it is written in place, so pass a writeable array"
            raise ValueError(msg)
    if np.may_share_memory(k_cache, v_cache):  # exact, for both are contiguous
        msg = "k_cache and v_cache overlap; both are written, so give each memory of its own"
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
    if ids.size > _FEW:
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


def check_int(name: str, value: int) -> int:
    """Require an integer; numpy's count too, floats do not."""
    try:
        return operator.index(value)
    except TypeError:
        msg = f"{name} is {value!r}; expected an integer"
        raise TypeError(msg) from None


def check_bool(name: str, value: bool) -> bool:
    """Require True or False."""
    if not isinstance(value, (bool, np.bool_)):
        msg = f"{name} is {value!r}; expected True or False"
        raise TypeError(msg)
    return bool(value)


def check_scale(scale: float) -> float:
    """Require a number that is finite in float32."""
    return _check_number("scale", scale)


def _check_number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        msg = f"{name} is {value!r}; expected a number"
        raise TypeError(msg)
    if not abs(value) <= _MAX_FLOAT32:
        msg = f"{name} is {value}; expected a finite float32"
        raise ValueError(msg)
    return float(value)


def check_eps(eps: float) -> float:
    """Require a number that is finite in float32 and not negative."""
    if _check_number("eps", eps) < 0:
        msg = f"eps is {eps}; it is added under a square root, so it must not be negative"
        raise ValueError(msg)
    return float(eps)


def check_rms_norm(
    x: npt.NDArray[Any], weight: npt.NDArray[Any], residual: npt.NDArray[Any] | None
) -> None:
    """Require rows that the kernel serves, one weight a column, and a residual like x."""
    check_array("x", x, "(M, H)")
    check_array("weight", weight, "(H,)")
    check_float("x", x)
    if not 1 <= x.shape[1] <= native.MAX_HIDDEN_SIZE:
        msg = f"x has {x.shape[1]} columns; rms_norm serves 1 to {native.MAX_HIDDEN_SIZE}"
        raise ValueError(msg)
    check_shape("weight", weight, x.shape[1:], "one per column of x")
    others = {"weight": weight}
    if residual is not None:
        check_array("residual", residual, "(M, H)")
        check_shape("residual", residual, x.shape, "the shape of x")
        others["residual"] = residual
    for name, other in others.items():
        if other.dtype != x.dtype:
            msg = f"{name} is {other.dtype} and x {x.dtype}; expected the same dtype"
            raise TypeError(msg)


def check_swiglu(x: npt.NDArray[Any]) -> None:
    """Require a float matrix with an even number of columns."""
    check_array("x", x, "(M, 2F)")
    check_float("x", x)
    if x.shape[1] % 2:
        msg = f"x has {x.shape[1]} columns; expected an even number, gate and value side by side"
        raise ValueError(msg)


def check_window(window: int | None) -> int:
    """Require a positive window; None means none and becomes 0, as the kernels spell it."""
    if window is None:
        return 0
    if isinstance(window, bool) or not 1 <= check_int("window", window) <= _MAX_INT32:
        msg = f"window is {window}; expected a positive number of keys, or None"
        raise ValueError(msg)
    return int(window)


def check_heads(num_heads: int, num_kv_heads: int) -> None:
    """Require that every KV head serves the same number of query heads."""
    if num_heads < 1 or num_kv_heads < 1 or num_heads % num_kv_heads:
        msg = (
            f"q has {num_heads} heads and k has {num_kv_heads}; "
            "num_heads must be a multiple of num_kv_heads"
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
                f"block_table gives page {page} to sequences {owners[page]}, and this call writes "
                "to it; a page that is written must have one place"
            )
            raise ValueError(msg)
