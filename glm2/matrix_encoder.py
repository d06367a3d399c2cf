"""Turn rows of a checkpoint's matrices into those of another form; convert.py says which and when."""

from __future__ import annotations

import numpy as np

from glm2.checkpoint_source import CheckpointSource, Rows
from glm2.packed_format import PackedFormat
from glm2.quantization import Quantized, dequantize, quantize_groups, quantize_rows
from glm2.quantized_checkpoint import (
    group_size_of,
    is_block_linear,
    qkv_row_order,
)
from glm2.safetensors_file import AnyArray
from glm2.weights import EMBEDDING
from glm2_ops import pack_weight, unpack_weight

# Bytes of the tensor, and float32 scales of its rows where it has any.
Encoded = tuple[AnyArray, AnyArray | None]


def encode_packed(
    source: CheckpointSource, packed: PackedFormat, name: str, rows: slice
) -> Encoded:
    """Pack some rows, and unpack them again to see that nothing was lost.

    Raises
    ------
    ValueError
        If a number is NaN, infinite or too large for float16.
    RuntimeError
        If the packed bytes are not those numbers, which would be a bug.
    """
    found = source.rows(name, rows)
    if name == EMBEDDING:
        return _as_float16(found), None
    weight_format = packed.of(name)
    if weight_format == "fp16":
        values = _as_float16(found)
        scale = np.ones(len(values), np.float32)
    else:
        quantized = _quantized(found, weight_format)
        values, scale = quantized.values, quantized.scale.astype(np.float32)
    num_rows, num_columns = values.shape
    data = pack_weight(values, format=weight_format)
    again = unpack_weight(
        data, out_features=num_rows, in_features=num_columns, format=weight_format
    )
    if again.tobytes() != values.tobytes():
        msg = f"{name}: rows {rows.start} to {rows.stop} do not survive packing; please report this"
        raise RuntimeError(msg)
    return data, scale


def encode_published(
    source: CheckpointSource, bits: int | None, dtype: str, name: str, rows: slice
) -> Encoded:
    """Write some rows as the publisher stores them: floats, or values of 8 or 4 bits and scales.

    Raises
    ------
    ValueError
        If a number is NaN or infinite, or scales are not numbers of ``dtype``.
    """
    found = source.rows(name, rows)
    if bits is None or not is_block_linear(name):
        floats = dequantize(found) if isinstance(found, Quantized) else found
        return published_order(source, name, floats).astype(dtype), None
    quantized = found if isinstance(found, Quantized) else quantize_rows(found, bits=bits)
    scale = quantized.scale.astype(dtype)
    if (scale.astype(np.float32) != quantized.scale.astype(np.float32)).any():
        msg = f"its scales are no {dtype} numbers; convert the checkpoint that it was packed from"
        raise ValueError(msg)
    values = published_order(source, name, quantized.values)
    if bits == 4:
        num_rows, num_columns = values.shape
        values = unpack_weight(
            pack_weight(np.ascontiguousarray(values), format="int4"),
            out_features=num_rows,
            in_features=num_columns,
            format="int4",
            nibble_order="high_first",
        )
    return values, published_order(source, name, scale)


def published_order(source: CheckpointSource, name: str, array: AnyArray) -> AnyArray:
    """Put rows of query_key_value where the publisher has them: q, k, v of a head in turn without MQA."""
    order = qkv_row_order(source.config) if "query_key_value" in name else None
    if order is None:
        return array
    published = np.empty_like(array)
    published[order] = array
    return published


def _quantized(found: Rows, weight_format: str) -> Quantized:
    """Quantise rows that are not yet."""
    if isinstance(found, Quantized):
        return found
    group_size = group_size_of(weight_format)
    if group_size is not None:
        return quantize_groups(found, group_size=group_size)
    return quantize_rows(found, bits=8 if weight_format == "int8" else 4)


def _as_float16(found: Rows) -> AnyArray:
    """Round floats to float16, none of them to infinity."""
    floats = dequantize(found) if isinstance(found, Quantized) else found
    if floats.dtype == np.float16:
        return floats
    with np.errstate(over="ignore"):
        rounded = floats.astype(np.float16)
    if not np.isfinite(rounded).all():
        msg = "it holds NaN, infinity, or numbers beyond 65504, the largest float16"
        raise ValueError(msg)
    return rounded
