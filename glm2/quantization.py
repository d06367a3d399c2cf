"""Quantise rows of weights by the published rules, or group by group.

The numbers are those of ``glm2_reference.quant``, bit for bit; `quantize_rows` names the exception.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from glm2.safetensors_file import AnyArray

Int8Array = npt.NDArray[np.int8]
_LARGEST = {8: 127, 4: 7}


@dataclasses.dataclass(frozen=True)
class Quantized:
    """Rows of a quantised matrix.

    Parameters
    ----------
    values : int8, (rows, in_features)
        -128 to 127 of 8 bits; -8 to 7 of 4 bits, one a byte.
    scale : float, (rows,), or float32 (rows, in_features / group_size)
    """

    values: Int8Array
    scale: AnyArray


def quantize_rows(weight: AnyArray, *, bits: int) -> Quantized:
    """Quantise each row symmetrically, as the published checkpoints are.

    ``scale = absmax / (2**(bits - 1) - 1)`` and ``weight / scale``, both rounded to the weight's own
    dtype, then rounded half to even.

    Parameters
    ----------
    weight : float16, bfloat16 or float32, (rows, in_features)
    bits : 8 or 4

    Returns
    -------
    quantized : Quantized
        With scales in the dtype of ``weight``; 0 for a row of zeros, whose values are 0. A scale that
        was rounded down can push the largest value of a bfloat16 row, or of a float16 one of almost
        nothing, past what the bits hold: it is clipped there. Published code lets it wrap to the other
        sign, which is the one difference.

    Raises
    ------
    ValueError
        If ``weight`` holds NaN or infinity.

    References
    ----------
    ChatGLM2-6B ``quantization.QuantizedLinear``.
    """
    block = weight.astype(np.float32)
    absmax = np.abs(block).max(axis=1, initial=0)
    _check_finite(absmax)
    scale = (absmax.astype(weight.dtype) / weight.dtype.type(_LARGEST[bits])).astype(weight.dtype)
    divisor = scale.astype(np.float32)
    divisor[divisor == 0] = 1
    block /= divisor[:, None]
    if weight.dtype != np.float32:
        # A float32 quotient rounded to 16 bits is the 16-bit quotient: it has more than twice the bits.
        block = block.astype(weight.dtype).astype(np.float32)
    return Quantized(_rounded(block, bits), scale)


def quantize_groups(weight: AnyArray, *, group_size: int) -> Quantized:
    """Quantise to 4 bits with a scale for each group of a row's consecutive columns.

    ``scale = absmax / 7`` in float32, values rounded half to even.

    Parameters
    ----------
    weight : float, (rows, in_features)
    group_size : int
        Divides in_features.

    Raises
    ------
    ValueError
        If ``weight`` holds NaN or infinity.
    """
    block = weight.astype(np.float32)
    groups = block.reshape(len(block), -1, group_size)
    absmax = np.abs(groups).max(axis=2)
    _check_finite(absmax)
    scale = absmax / np.float32(_LARGEST[4])
    groups /= np.where(scale > 0, scale, np.float32(1))[:, :, None]
    return Quantized(_rounded(block, 4), scale)


def dequantize(quantized: Quantized) -> AnyArray:
    """Return ``values * scale``, multiplied in the dtype of the scales as the published code does."""
    scale = quantized.scale.reshape(len(quantized.values), -1, 1)
    groups = quantized.values.reshape(*scale.shape[:2], -1).astype(scale.dtype)
    return (groups * scale).reshape(quantized.values.shape)


def _rounded(block: npt.NDArray[np.float32], bits: int) -> Int8Array:
    """Round half to even, in place, and narrow."""
    np.rint(block, out=block)
    return np.clip(block, -_LARGEST[bits] - 1, _LARGEST[bits], out=block).astype(np.int8)


def _check_finite(absmax: AnyArray) -> None:
    if not np.isfinite(absmax).all():
        msg = "it holds NaN or infinity, which no integer stands for"
        raise ValueError(msg)
