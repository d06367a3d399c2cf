"""Quantised weights and activations: the published INT8 and INT4, groups, tokens, int4 digits."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from glm2_reference.checks import FloatArray, check_float, check_rank, check_shape

Int8Array = npt.NDArray[np.int8]
NibbleOrder = Literal["high_first", "low_first"]

_MAX_DIGIT_VALUE = 119  # 16 * 7 + 7: what two int4 digits can hold on the positive side


def quantize_rows(weight: FloatArray, *, bits: int) -> tuple[Int8Array, FloatArray]:
    """Quantise each row of a weight symmetrically, as the published checkpoints are.

    ``scale = absmax / (2**(bits - 1) - 1)`` and ``weight / scale``, both in the weight's own dtype,
    then rounded half to even.

    Parameters
    ----------
    weight : float16, bfloat16 or float32, (out_features, in_features)
    bits : 8 or 4

    Returns
    -------
    quantized : int8, (out_features, in_features)
        -127 to 127, or -7 to 7.
    scale : dtype of weight, (out_features,)
        0 for a row of zeros, whose quantised values are 0.

    Raises
    ------
    ValueError
        If ``bits`` is another, or ``weight`` holds NaN or infinity.

    References
    ----------
    ChatGLM2-6B ``quantization.QuantizedLinear``.
    """
    check_float(weight=weight)
    check_rank("(out_features, in_features)", weight=weight)
    _check_bits(bits)
    _check_finite(weight)
    scale = np.abs(weight).max(axis=1, initial=0) / weight.dtype.type(_largest(bits))
    return _divide_and_round(weight, scale[:, None]), scale.astype(weight.dtype)


def dequantize_rows(quantized: Int8Array, scale: FloatArray) -> FloatArray:
    """Return ``quantized * scale`` in the dtype of ``scale``, as the published code multiplies.

    Parameters
    ----------
    quantized : int8, (out_features, in_features)
    scale : float, (out_features,)

    Returns
    -------
    weight : dtype of scale, (out_features, in_features)

    Raises
    ------
    ValueError
        If ``scale`` is not one a row.
    """
    check_shape("scale", scale, quantized.shape[:1], "one a row")
    out: FloatArray = quantized.astype(scale.dtype) * scale[:, None]
    return out


def pack_int4(quantized: Int8Array, *, order: NibbleOrder) -> Int8Array:
    """Put two 4-bit values of a row into each byte, in two's complement.

    Parameters
    ----------
    quantized : int8, (..., n)
        -8 to 7; n is even.
    order : "high_first" or "low_first"
        Where the even column goes: into the high nibble in published checkpoints, into the low one
        in Ascend's int4b_t.

    Returns
    -------
    packed : int8, (..., n / 2)

    Raises
    ------
    ValueError
        If n is odd, a value does not fit, or ``order`` is unknown.
    """
    if quantized.shape[-1] % 2:
        msg = f"rows have {quantized.shape[-1]} values; two go into a byte, so it must be even"
        raise ValueError(msg)
    if quantized.size and not -8 <= quantized.min() <= quantized.max() <= 7:
        msg = f"values are {quantized.min()} to {quantized.max()}; 4 bits hold -8 to 7"
        raise ValueError(msg)
    even, odd = (quantized[..., i::2].view(np.uint8) & 15 for i in (0, 1))
    high, low = (even, odd) if _high_first(order) else (odd, even)
    return ((high << 4) | low).view(np.int8)


def unpack_int4(packed: Int8Array, *, order: NibbleOrder) -> Int8Array:
    """Undo `pack_int4`.

    Parameters
    ----------
    packed : int8, (..., n / 2)
    order : "high_first" or "low_first"

    Returns
    -------
    quantized : int8, (..., n)
        -8 to 7.
    """
    high = packed >> 4  # arithmetic: keeps the sign
    low = (packed << 4) >> 4
    pair = (high, low) if _high_first(order) else (low, high)
    shape = (*packed.shape[:-1], 2 * packed.shape[-1])
    out: Int8Array = np.stack(pair, axis=-1).reshape(shape)
    return out


def quantize_groups(
    weight: FloatArray, *, group_size: int
) -> tuple[Int8Array, npt.NDArray[np.float32]]:
    """Quantise to 4 bits with a scale for each group of a row's consecutive columns.

    ``scale = absmax / 7`` in float32, values rounded half to even.

    Parameters
    ----------
    weight : float, (out_features, in_features)
    group_size : int
        Divides in_features: 128, 64 or 32.

    Returns
    -------
    quantized : int8, (out_features, in_features)
        -7 to 7.
    scale : float32, (out_features, in_features / group_size)

    Raises
    ------
    ValueError
        If ``group_size`` does not divide the row, or ``weight`` holds NaN or infinity.
    """
    check_float(weight=weight)
    check_rank("(out_features, in_features)", weight=weight)
    rows, columns = weight.shape
    if group_size < 1 or columns % group_size:
        msg = f"group_size is {group_size}; it must divide in_features, {columns}"
        raise ValueError(msg)
    _check_finite(weight)
    groups = weight.astype(np.float32).reshape(rows, columns // group_size, group_size)
    scale = np.abs(groups).max(axis=2) / np.float32(_largest(4))
    return _divide_and_round(groups, scale[:, :, None]).reshape(rows, columns), scale


def dequantize_groups(
    quantized: Int8Array, scale: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return ``quantized * scale``, one scale a group of columns; float32 (out, in)."""
    rows, columns = quantized.shape
    groups = quantized.reshape(rows, scale.shape[1], -1)
    return (groups.astype(np.float32) * scale[:, :, None]).reshape(rows, columns)


def quantize_tokens(
    x: FloatArray, *, largest: int = 127
) -> tuple[Int8Array, npt.NDArray[np.float32]]:
    """Quantise each token's activations symmetrically to int8.

    ``scale = absmax / largest`` in float32, values rounded half to even.

    Parameters
    ----------
    x : float, (T, in_features)
    largest : int
        127, or 119 where the values are to be split into two int4 digits.

    Returns
    -------
    quantized : int8, (T, in_features)
    scale : float32, (T,)
        0 for a token of zeros.

    Raises
    ------
    ValueError
        If ``largest`` is not 1 to 127, or ``x`` holds NaN or infinity.
    """
    check_float(x=x)
    check_rank("(T, in_features)", x=x)
    if not 1 <= largest <= 127:
        msg = f"largest is {largest}; int8 holds up to 127"
        raise ValueError(msg)
    _check_finite(x)
    x32 = x.astype(np.float32)
    scale = np.abs(x32).max(axis=1, initial=0) / np.float32(largest)
    return _divide_and_round(x32, scale[:, None]), scale


def split_int4_digits(x: Int8Array) -> tuple[Int8Array, Int8Array]:
    """Write int8 values as two int4 digits: ``x = 16 * high + low``, exactly.

    With it an int8 activation meets int4 weights in two int4 products, whose sums ``16 * (w . high)
    + w . low`` are those of the int8 product.

    Parameters
    ----------
    x : int8
        -128 to 119; see `quantize_tokens`.

    Returns
    -------
    high, low : int8, shape of x
        -8 to 7.

    Raises
    ------
    ValueError
        If a value is above 119, which would take a third digit.
    """
    if x.size and x.max() > _MAX_DIGIT_VALUE:
        msg = f"x holds {x.max()}; two int4 digits hold -128 to {_MAX_DIGIT_VALUE}"
        raise ValueError(msg)
    wide = x.astype(np.int16)
    low = ((wide + 8) & 15) - 8
    return ((wide - low) >> 4).astype(np.int8), low.astype(np.int8)


def _divide_and_round(values: FloatArray, scale: FloatArray) -> Int8Array:
    """Divide in the values' own dtype and round half to even; a scale of 0 gives 0."""
    divisor = np.where(scale > 0, scale, np.ones_like(scale)).astype(values.dtype)
    rounded: Int8Array = np.rint((values / divisor).astype(np.float32)).astype(np.int8)
    return rounded


def _largest(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


def _check_bits(bits: int) -> None:
    if bits not in (4, 8):
        msg = f"bits is {bits}; expected 8 or 4"
        raise ValueError(msg)


def _check_finite(values: FloatArray) -> None:
    if not np.isfinite(values.astype(np.float32)).all():
        msg = "the values hold NaN or infinity, which no integer stands for"
        raise ValueError(msg)


def _high_first(order: Any) -> bool:
    if order not in ("high_first", "low_first"):
        msg = f"order is {order!r}; expected 'high_first' or 'low_first'"
        raise ValueError(msg)
    return bool(order == "high_first")
