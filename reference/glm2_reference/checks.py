"""Argument checks that the operators share, and the array types in their signatures.

Each check raises at the public edge, naming what came and what was wanted: ValueError for values
and shapes, TypeError for dtypes.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[Any]  # not np.floating: bfloat16 comes from ml_dtypes
IntArray: TypeAlias = npt.NDArray[np.int32]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
FloatDType: TypeAlias = "np.dtype[Any] | type[np.floating[Any]]"

_FLOATS = ("float16", "bfloat16", "float32", "float64")  # by name, so that ml_dtypes is not needed
_MIN_PAGE_SIZE, _MAX_PAGE_SIZE = 16, 256


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return float64 for float64, and float32 for every narrower float."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def check_float(**arrays: FloatArray) -> None:
    """Require float16, bfloat16, float32 or float64."""
    for name, array in arrays.items():
        if array.dtype.name not in _FLOATS:
            msg = f"{name} has dtype {array.dtype}; expected one of {', '.join(_FLOATS)}"
            raise TypeError(msg)


def check_rank(layout: str, **arrays: npt.NDArray[Any]) -> None:
    """Require as many axes as ``layout``, such as "(T, N, D)", spells."""
    wanted = len([axis for axis in layout.strip("()").split(",") if axis])
    for name, array in arrays.items():
        if array.ndim != wanted:
            msg = f"{name} has shape {array.shape}; expected {wanted} axes, {layout}"
            raise ValueError(msg)


def check_shape(name: str, array: npt.NDArray[Any], wanted: tuple[int, ...], why: str) -> None:
    """Require one shape; ``why`` says what it follows from."""
    if array.shape != wanted:
        msg = f"{name} has shape {array.shape}; expected {wanted}, {why}"
        raise ValueError(msg)


def check_cache_dtype(name: str, x: FloatArray, k: FloatArray, v: FloatArray) -> None:
    """Require k and v of one dtype that serves ``x``: its own, or a 16-bit one if it is float32."""
    check_float(**{name: x}, k=k, v=v)
    narrower = x.dtype == np.float32 and k.dtype.itemsize == 2
    if k.dtype != v.dtype or not (k.dtype == x.dtype or narrower):
        msg = (
            f"{name} is {x.dtype}, k {k.dtype} and v {v.dtype}; k and v must share {name}'s dtype, "
            f"or be both float16 or both bfloat16 under a float32 {name}"
        )
        raise TypeError(msg)


def check_heads(num_heads: int, num_kv_heads: int) -> None:
    """Require that every K/V head serves the same number of query heads."""
    if num_kv_heads < 1 or num_heads < 1 or num_heads % num_kv_heads:
        msg = (
            f"q has {num_heads} heads and k has {num_kv_heads}; "
            "num_heads must be a multiple of num_kv_heads"
        )
        raise ValueError(msg)


def check_int32(layout: str, **arrays: npt.NDArray[Any]) -> None:
    """Require int32 of the given layout."""
    check_rank(layout, **arrays)
    for name, array in arrays.items():
        if array.dtype != np.int32:
            msg = f"{name} has dtype {array.dtype}; index arrays are int32"
            raise TypeError(msg)


def check_cu_seqlens(name: str, cu_seqlens: IntArray, num_tokens: int) -> None:
    """Require offsets that start at 0, never fall, and end at ``num_tokens``."""
    check_int32("(B + 1,)", **{name: cu_seqlens})
    if cu_seqlens.size == 0 or cu_seqlens[0] != 0:
        msg = f"{name} is {cu_seqlens.tolist()}; it must start at 0"
        raise ValueError(msg)
    if np.any(np.diff(cu_seqlens) < 0):
        msg = f"{name} is {cu_seqlens.tolist()}; it must never fall"
        raise ValueError(msg)
    if cu_seqlens[-1] != num_tokens:
        msg = f"{name} ends at {cu_seqlens[-1]}, but there are {num_tokens} tokens; they must agree"
        raise ValueError(msg)


def check_paged_cache(
    k_cache: FloatArray,
    v_cache: FloatArray,
    block_table: IntArray,
    seq_len_kv: IntArray,
    *,
    batch: int,
) -> None:
    """Require a cache of one layout, and a page of it for every cached token."""
    check_rank("(num_pages, G, page_size, D)", k_cache=k_cache, v_cache=v_cache)
    check_shape("v_cache", v_cache, k_cache.shape, "the shape of k_cache")
    num_pages, _, page_size, _ = k_cache.shape
    if not _MIN_PAGE_SIZE <= page_size <= _MAX_PAGE_SIZE:
        msg = f"page_size is {page_size}; expected {_MIN_PAGE_SIZE} to {_MAX_PAGE_SIZE}"
        raise ValueError(msg)
    check_int32("(B, max_pages)", block_table=block_table)
    check_int32("(B,)", seq_len_kv=seq_len_kv)
    check_shape("seq_len_kv", seq_len_kv, (batch,), "one per sequence of cu_seqlens_q")
    max_pages = block_table.shape[1]
    check_shape(
        "block_table", block_table, (batch, max_pages), "one row per sequence of cu_seqlens_q"
    )
    for b, length in enumerate(seq_len_kv.tolist()):
        if not 0 <= length <= max_pages * page_size:
            msg = (
                f"seq_len_kv[{b}] is {length}; expected 0 to {max_pages * page_size}, "
                f"what {max_pages} pages of {page_size} in block_table hold"
            )
            raise ValueError(msg)
        for page, page_id in enumerate(block_table[b, : -(-length // page_size)].tolist()):
            if not 0 <= page_id < num_pages:
                msg = (
                    f"block_table[{b}, {page}] is {page_id}, but sequence {b} has {length} tokens "
                    f"and needs that page; expected a page id of 0 to {num_pages - 1}"
                )
                raise ValueError(msg)


def check_prefix_len(prefix_len: IntArray | None, seq_len_kv: IntArray) -> IntArray:
    """Require prefixes inside their sequences; None means none, and becomes zeros."""
    if prefix_len is None:
        return np.zeros_like(seq_len_kv)
    check_int32("(B,)", prefix_len=prefix_len)
    check_shape("prefix_len", prefix_len, seq_len_kv.shape, "one per sequence")
    for b, (prefix, length) in enumerate(
        zip(prefix_len.tolist(), seq_len_kv.tolist(), strict=True)
    ):
        if not 0 <= prefix <= length:
            msg = f"prefix_len[{b}] is {prefix}; expected 0 to {length}, the keys of sequence {b}"
            raise ValueError(msg)
    return prefix_len


def check_window(window: int | None) -> None:
    """Require a window of one position or more, or None."""
    if window is not None and window < 1:
        msg = f"window is {window}; expected 1 or more, or None for no window"
        raise ValueError(msg)


def check_tiling(block_m: int, block_n: int) -> None:
    """Require tiles of one row or more."""
    if block_m < 1 or block_n < 1:
        msg = f"block_m is {block_m} and block_n {block_n}; expected 1 or more"
        raise ValueError(msg)


def resolve_scale(scale: float | None, head_dim: int) -> float:
    """Return the finite score scale as a Python float; None means ``1 / sqrt(head_dim)``."""
    if scale is None:
        return 1.0 / math.sqrt(head_dim)
    if not math.isfinite(scale):
        msg = f"scale is {scale}; expected a finite number, or None for 1 / sqrt(head_dim)"
        raise ValueError(msg)
    return float(scale)  # a numpy float64 scalar would widen float32 scores
