"""Checks of packed weights, their formats, and the operands of quant_linear."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_ops._library import native
from glm2_ops.checks.arrays import check_array, check_float, check_shape
from glm2_ops.checks.options import check_int

# Columns of one group, 0: a scale a row.
WEIGHT_FORMATS = {"fp16": 0, "int8": 0, "int4": 0, "int4-g128": 128, "int4-g64": 64, "int4-g32": 32}
NIBBLE_ORDERS = ("high_first", "low_first")
MAX_IN_FEATURES = native.MAX_IN_FEATURES
_MAX_FEATURES = 2**31 - 1


def group_size_of(format: str) -> int:
    """Return the columns that share a scale in a format, which must be known; 0: all of a row."""
    if format not in WEIGHT_FORMATS:
        msg = f"format is {format!r}; expected one of {', '.join(WEIGHT_FORMATS)}"
        raise ValueError(msg)
    return WEIGHT_FORMATS[format]


def check_weight_format(format: str, in_features: int) -> str:
    """Require a known format whose group divides the row; return how it is stored."""
    group = group_size_of(format)
    if group and in_features % group:
        msg = (
            f"format is {format!r}, but in_features is {in_features}; expected a multiple of {group}, "
            'or "int4", which has one scale a row'
        )
        raise ValueError(msg)
    return format.partition("-")[0]


def check_features(name: str, value: int) -> int:
    """Require a positive number of channels."""
    if not 1 <= check_int(name, value) <= _MAX_FEATURES:
        msg = f"{name} is {value}; expected 1 to {_MAX_FEATURES}"
        raise ValueError(msg)
    return int(value)


def check_nibble_order(nibble_order: str | None, storage: str, in_features: int) -> None:
    """Require an order that is known, and only where two values lie in a byte."""
    if nibble_order is None:
        return
    if nibble_order not in NIBBLE_ORDERS:
        msg = f"nibble_order is {nibble_order!r}; expected 'high_first', 'low_first' or None"
        raise ValueError(msg)
    if storage != "int4":
        msg = (
            f"nibble_order is {nibble_order!r}, but {storage} values fill whole bytes; leave it out"
        )
        raise ValueError(msg)
    if in_features % 2:
        msg = f"in_features is {in_features}; two values share a byte, so it must be even"
        raise ValueError(msg)


def check_plain_weight(
    weight: npt.NDArray[Any],
    format: str,
    nibble_order: str | None,
) -> tuple[int, int, str]:
    """Require a weight that `pack_weight` takes; return its rows, columns and storage."""
    check_array("weight", weight, "(out_features, in_features)")
    rows = weight.shape[0]
    columns = weight.shape[1] * (2 if nibble_order is not None else 1)
    storage = check_weight_format(format, columns)
    check_nibble_order(nibble_order, storage, columns)
    check_features("out_features", rows)
    check_features("in_features", columns)
    wanted = ["float16"] if storage == "fp16" else ["int8"]
    if nibble_order is not None:
        wanted.append("uint8")
    if weight.dtype.name not in wanted:
        msg = f"weight has dtype {weight.dtype}; {format} is packed from {' or '.join(wanted)}"
        raise TypeError(msg)
    return rows, columns, storage


def check_packed(
    name: str, packed: npt.NDArray[Any], size: int, *, writeable: bool = False
) -> None:
    """Require a buffer of ``size`` bytes."""
    check_array(name, packed, "(packed_size,)")
    if packed.dtype != np.uint8:
        msg = f"{name} has dtype {packed.dtype}; a packed weight is uint8"
        raise TypeError(msg)
    check_shape(name, packed, (size,), "what packed_size gives for this format and these features")
    if not packed.flags.c_contiguous:
        msg = f"{name} is not C-contiguous; packed weights are used in place"
        raise ValueError(msg)
    if writeable and not packed.flags.writeable:
        msg = f"{name} is read-only; it is written in place, so pass a writeable array"
        raise ValueError(msg)


def check_quant_linear(
    x: npt.NDArray[Any],
    weight: npt.NDArray[np.uint8],
    scale: npt.NDArray[np.float32],
    bias: npt.NDArray[Any] | None,
    residual: npt.NDArray[Any] | None,
    *,
    format: str,
    activation_bits: int,
) -> tuple[int, str]:
    """Require what `glm2_ops.quant_linear` says of its operands; return out_features and storage."""
    check_array("x", x, "(M, in_features)")
    check_float("x", x)
    rows, columns = x.shape
    storage = check_weight_format(format, columns)
    if not 1 <= columns <= MAX_IN_FEATURES:
        msg = f"x has {columns} columns; quant_linear serves 1 to {MAX_IN_FEATURES}"
        raise ValueError(msg)
    check_activation_bits(activation_bits, storage)
    group = WEIGHT_FORMATS[format]
    layout = "(out_features, in_features / group)" if group else "(out_features,)"
    check_array("scale", scale, layout)
    if scale.dtype != np.float32:
        msg = f"scale has dtype {scale.dtype}; expected float32"
        raise TypeError(msg)
    out_features = check_features("out_features", scale.shape[0])
    if group:
        check_shape("scale", scale, (out_features, columns // group), "one a group of a row")
    check_packed("weight", weight, native.packed_size(storage, out_features, columns))
    if bias is not None:
        check_array("bias", bias, "(out_features,)")
        check_float("bias", bias)
        check_shape("bias", bias, (out_features,), "one a row of the weight")
    if residual is not None:
        check_array("residual", residual, "(M, out_features)")
        check_shape("residual", residual, (rows, out_features), "the shape of the result")
        if residual.dtype != x.dtype:
            msg = f"residual is {residual.dtype} and x {x.dtype}; expected the same dtype"
            raise TypeError(msg)
    return out_features, storage


def check_activation_bits(activation_bits: int, storage: str) -> None:
    """Require 16 or 8, and 16 under a float16 weight."""
    if check_int("activation_bits", activation_bits) not in (8, 16):
        msg = f"activation_bits is {activation_bits}; expected 16 or 8"
        raise ValueError(msg)
    if storage == "fp16" and activation_bits != 16:
        msg = f"activation_bits is {activation_bits}; a float16 weight takes 16"
        raise ValueError(msg)
