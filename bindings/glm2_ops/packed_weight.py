"""The packed form of linear weights: what `glm2_ops.quant_linear` streams, on a CPU and on an NPU.

Stripes of 16 output channels follow one another. A stripe is a run of fractals of 512 bytes along
the input: 16 rows, one a channel, of 32 bytes, which are 16 float16 values, 32 int8 or 64 of 4 bits.
Byte j of a row of 4-bit values holds column 2 j in its low nibble and 2 j + 1 in its high one. What
fills up the last stripe and the last fractal is 0. Scales stay outside. docs/quantization.md shows it.
"""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from glm2_ops import checks
from glm2_ops._library import native

WeightFormat = Literal["fp16", "int8", "int4", "int4-g128", "int4-g64", "int4-g32"]
NibbleOrder = Literal["high_first", "low_first"]


def packed_size(out_features: int, in_features: int, *, format: WeightFormat) -> int:
    """Return the bytes that a packed weight takes.

    Parameters
    ----------
    out_features, in_features : int
    format : str
        "fp16", "int8", "int4", "int4-g128", "int4-g64" or "int4-g32".

    Raises
    ------
    ValueError
        If a size is not positive, the format is unknown, or its group does not divide in_features.
    """
    storage = checks.check_weight_format(format, in_features)
    for name, value in (("out_features", out_features), ("in_features", in_features)):
        checks.check_features(name, value)
    return native.packed_size(storage, out_features, in_features)


def pack_weight(
    weight: npt.NDArray[Any],
    *,
    format: WeightFormat,
    nibble_order: NibbleOrder | None = None,
    out: npt.NDArray[np.uint8] | None = None,
) -> npt.NDArray[np.uint8]:
    """Pack the weight of a linear layer; its scales are not touched.

    Parameters
    ----------
    weight : array, (out_features, in_features)
        float16 for "fp16"; int8 for "int8"; int8 values of -8 to 7 for the formats of 4 bits.
        With ``nibble_order``: int8 or uint8, (out_features, in_features / 2), two values a byte.
    format : str
        "fp16", "int8", "int4", "int4-g128", "int4-g64" or "int4-g32".
    nibble_order : "high_first", "low_first" or None
        Where the even column of a byte is: "high_first" in published checkpoints, "low_first" in
        Ascend's int4b_t. None: a byte holds one value.
    out : uint8, (packed_size,), optional
        Where to pack to, such as a part of a mapped file; C-contiguous.

    Returns
    -------
    packed : uint8, (packed_size,)
        ``out`` where it is given.

    Raises
    ------
    ValueError
        If a value does not fit 4 bits, a shape or the format does not fit, or a group does not
        divide in_features.
    TypeError
        If the dtype is not that of the format.
    """
    rows, columns, storage = checks.check_plain_weight(weight, format, nibble_order)
    size = native.packed_size(storage, rows, columns)
    if out is None:
        out = np.empty(size, np.uint8)
    else:
        checks.check_packed("out", out, size, writeable=True)
    source = np.ascontiguousarray(weight)
    native.pack_weight(storage, nibble_order or "", rows, columns, source, out)
    return out


def unpack_weight(
    packed: npt.NDArray[np.uint8],
    *,
    out_features: int,
    in_features: int,
    format: WeightFormat,
    nibble_order: NibbleOrder | None = None,
) -> npt.NDArray[Any]:
    """Undo `pack_weight`, exactly.

    Parameters
    ----------
    packed : uint8, (packed_size,)
    out_features, in_features : int
    format, nibble_order
        As in `pack_weight`.

    Returns
    -------
    weight : float16 or int8, (out_features, in_features)
        With ``nibble_order``: int8, (out_features, in_features / 2).

    Raises
    ------
    ValueError
        If ``packed`` has another size than these features need, or an argument does not fit.
    TypeError
        If ``packed`` is not uint8.
    """
    size = packed_size(out_features, in_features, format=format)
    checks.check_packed("packed", packed, size)
    storage = checks.check_weight_format(format, in_features)
    checks.check_nibble_order(nibble_order, storage, in_features)
    shape = (out_features, in_features // 2 if nibble_order else in_features)
    weight = np.empty(shape, np.float16 if storage == "fp16" else np.int8)
    native.unpack_weight(storage, nibble_order or "", out_features, in_features, packed, weight)
    return cast(npt.NDArray[Any], weight)
