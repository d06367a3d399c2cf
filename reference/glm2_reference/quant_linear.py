"""A linear layer with a quantised weight: 16-bit activations, or 8-bit ones and exact integer sums."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glm2_reference.checks import FloatArray, check_rank, check_shape
from glm2_reference.quant import Int8Array, dequantize_groups, quantize_tokens


def quant_linear(
    x: FloatArray,
    quantized: Int8Array,
    scale: FloatArray,
    bias: FloatArray | None = None,
    *,
    activation_bits: int,
    largest: int = 127,
) -> npt.NDArray[np.float32]:
    """Multiply tokens by a quantised weight.

    Parameters
    ----------
    x : float, (T, in_features)
    quantized : int8, (out_features, in_features)
        Unpacked values, of 8 or 4 bits.
    scale : float, (out_features,), or (out_features, in_features / group_size)
    bias : float, (out_features,), or None
    activation_bits : 16 or 8
        16 multiplies by the dequantised weight in float32. 8 quantises each token first and sums
        integers exactly, a group at a time.
    largest : int
        Of a quantised token: 127, or 119 where its values are to be split into two int4 digits; see
        `quantize_tokens`.

    Returns
    -------
    out : float32, (T, out_features)

    Raises
    ------
    ValueError
        If shapes do not fit or ``activation_bits`` is another.
    """
    check_rank("(T, in_features)", x=x)
    if quantized.ndim != 2 or x.shape[1] != quantized.shape[1]:
        msg = f"x has shape {x.shape} and the weight {quantized.shape}; both end in in_features"
        raise ValueError(msg)
    scales = scale.astype(np.float32).reshape(len(quantized), -1)  # (out_features, groups)
    if scale.shape[:1] != quantized.shape[:1] or quantized.shape[1] % scales.shape[1]:
        msg = f"scale has shape {scale.shape}; expected one a row or group of {quantized.shape}"
        raise ValueError(msg)
    if activation_bits == 16:
        out = x.astype(np.float32) @ dequantize_groups(quantized, scales).T
    elif activation_bits == 8:
        tokens, token_scale = quantize_tokens(x, largest=largest)
        groups = tokens.reshape(len(x), scales.shape[1], -1).astype(np.int32)
        weights = quantized.reshape(*scales.shape, -1).astype(np.int32)
        sums = np.einsum("tgi,ogi->tog", groups, weights)  # (T, out_features, groups), exact
        out = (sums.astype(np.float32) * scales).sum(axis=2) * token_scale[:, None]
    else:
        msg = f"activation_bits is {activation_bits}; expected 16 or 8"
        raise ValueError(msg)
    if bias is not None:
        check_shape("bias", bias, quantized.shape[:1], "one a row of the weight")
        out = out + bias.astype(np.float32)
    return out.astype(np.float32)
