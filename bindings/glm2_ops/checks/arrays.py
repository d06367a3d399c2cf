"""Checks of one array, or of two that must fit one another."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_FLOATS = ("float16", "bfloat16", "float32")  # by name: numpy has no bfloat16 of its own
_MAX_INT32 = 2**31 - 1
MAX_LENGTH = 2**30  # positions and windows add up inside int32
_INT32, _FLOAT32 = np.dtype(np.int32), np.dtype(np.float32)
# Up to so many numbers plain Python is quicker than numpy: a decode step's checks must not show.
FEW = 64


@functools.cache
def _axes(layout: str) -> int:
    """Count the axes that a layout, such as "(T, N, D)", spells."""
    return len([axis for axis in layout.strip("()").split(",") if axis.strip()])


@functools.cache
def _is_served(dtype: np.dtype[Any]) -> bool:
    return dtype.name in _FLOATS and dtype.isnative


def few(values: npt.NDArray[Any] | list[int]) -> str:
    """Spell numbers in a message: all of up to 16, else the first ones and how many there are."""
    listed = list(map(int, values[:16]))
    if len(values) == len(listed):
        return str(listed)
    return f"[{', '.join(map(str, listed[:8]))}, ...] of {len(values)}"


def check_array(name: str, array: npt.NDArray[Any], layout: str) -> None:
    """Require a numpy array with as many axes as ``layout``, such as "(T, N, D)", spells."""
    if type(array) is not np.ndarray:
        _check_class(name, array, layout)
    wanted = _axes(layout)
    if array.ndim != wanted:
        msg = f"{name} has shape {array.shape}; expected {wanted} axes, {layout}"
        raise ValueError(msg)
    # An axis is no longer than the size, unless another one is 0.
    if not 0 < array.size <= _MAX_INT32 and max(array.shape, default=0) > _MAX_INT32:
        msg = f"{name} has shape {array.shape}; an axis holds at most {_MAX_INT32}"
        raise ValueError(msg)
    if not array.flags.aligned:
        msg = f"{name} lies at an address that is no multiple of its itemsize; pass {name}.copy()"
        raise ValueError(msg)


def _check_class(name: str, array: object, layout: str) -> None:
    """Require a class of arrays that holds numbers and nothing else."""
    if not isinstance(array, np.ndarray):
        msg = f"{name} is a {type(array).__name__}; expected a numpy array {layout}"
        raise TypeError(msg)
    if isinstance(array, (np.ma.MaskedArray, np.matrix)):
        msg = (
            f"{name} is a {type(array).__name__}, which is more than its numbers; expected a plain "
            f"numpy array {layout}, such as np.asarray({name})"
        )
        raise TypeError(msg)


def check_shape(name: str, array: npt.NDArray[Any], wanted: tuple[int, ...], why: str) -> None:
    """Require one shape; ``why`` says what it follows from."""
    if array.shape != wanted:
        msg = f"{name} has shape {array.shape}; expected {wanted}, {why}"
        raise ValueError(msg)


def check_float(name: str, x: npt.NDArray[Any]) -> None:
    """Require a dtype that the operators serve."""
    if not _is_served(x.dtype):
        order = "" if x.dtype.isnative else " in this machine's byte order"
        msg = f"{name} has dtype {x.dtype}; the operators serve {', '.join(_FLOATS)}{order}"
        raise TypeError(msg)


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


def check_dtype_name(name: str, dtypes: Mapping[str, str], rule: str) -> None:
    """Require a dtype where all that is known of the operands is its name.

    ``dtypes`` holds the name of each operand's dtype. ``rule`` is a dtype, "float" for one that the
    operators serve, another operand whose dtype ``name`` shares, or "under q" for the dtype of q or
    a 16-bit one under a float32 q.
    """
    dtype, other = dtypes[name], rule.removeprefix("under ")
    if rule == "float" or other != rule:
        if dtype not in _FLOATS:
            msg = f"{name} has dtype {dtype}; the operators serve {', '.join(_FLOATS)}"
            raise TypeError(msg)
        if other != rule and dtypes[other] not in (dtype, "float32"):
            msg = (
                f"{other} is {dtypes[other]} and {name} {dtype}; the dtype of {name} must be that of "
                f"{other}, or a 16-bit one under a float32 {other}"
            )
            raise TypeError(msg)
    elif rule in dtypes:
        if dtype != dtypes[rule]:
            msg = f"{name} is {dtype} and {rule} {dtypes[rule]}; they must agree"
            raise TypeError(msg)
    elif dtype != rule:
        msg = f"{name} has dtype {dtype}; expected {rule}"
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
        msg = f"{name} is {few(cu_seqlens)}; it must start at 0"
        raise ValueError(msg)
    if _ever_falls(cu_seqlens):
        msg = f"{name} is {few(cu_seqlens)}; it must never fall"
        raise ValueError(msg)
    if cu_seqlens.item(-1) != num_tokens:
        msg = f"{name} ends at {cu_seqlens[-1]}, but there are {num_tokens} tokens; they must agree"
        raise ValueError(msg)


def _ever_falls(offsets: npt.NDArray[np.int32]) -> bool:
    if offsets.size > FEW:
        return bool(np.any(offsets[1:] < offsets[:-1]))
    listed: list[int] = offsets.tolist()
    return listed != sorted(listed)


def check_head_dim(head_dim: int) -> None:
    """Require a head_dim that kernels serve."""
    if head_dim % 16 or not 16 <= head_dim <= 256:
        msg = f"head_dim is {head_dim}; it must be a multiple of 16 up to 256"
        raise ValueError(msg)


def check_heads(num_heads: int, num_kv_heads: int) -> None:
    """Require that every KV head serves the same number of query heads."""
    if num_heads < 1 or num_kv_heads < 1 or num_heads % num_kv_heads:
        msg = (
            f"q has {num_heads} heads and k has {num_kv_heads}; "
            "num_heads must be a multiple of num_kv_heads"
        )
        raise ValueError(msg)
