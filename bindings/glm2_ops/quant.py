"""quant_linear for numpy: a linear layer on a packed weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_ops import checks
from glm2_ops.packed_weight import WeightFormat, unpack_weight

Array = npt.NDArray[Any]


def quant_linear(
    x: Array,
    weight: npt.NDArray[np.uint8],
    scale: npt.NDArray[np.float32],
    bias: Array | None = None,
    *,
    format: WeightFormat,
    activation_bits: int,
    residual: Array | None = None,
) -> Array:
    """Multiply tokens by a packed weight: ``x @ (q * scale).T + bias + residual``.

    With ``activation_bits=8`` each token is quantised first, ``round(x / (absmax / largest))`` with
    largest 127, or 119 under a weight of 4 bits so that two int4 digits hold it; products are summed
    in int32, exactly, and scaled in float32. With 16 tokens are rounded to float16 and sums are
    float32; weights of 4 bits in groups are rounded to float16 after their scale.

    Parameters
    ----------
    x : float16, bfloat16 or float32, (M, in_features)
        in_features is 1 to 16,384. A token that holds NaN or infinity gives a row of NaN.
    weight : uint8, (packed_size,)
        From `pack_weight`; used in place, a mapped file is not copied.
    scale : float32, (out_features,), or (out_features, in_features / group)
        Multiplies each output channel ("fp16" too: ones leave it as it is), or each group of a row.
    bias : float16, bfloat16 or float32, (out_features,), or None
    format : str
        "fp16", "int8", "int4", "int4-g128", "int4-g64" or "int4-g32".
    activation_bits : 16 or 8
        "fp16" takes 16.
    residual : dtype of x, (M, out_features), or None
        Added before the result is rounded.

    Returns
    -------
    out : dtype of x, (M, out_features)

    Raises
    ------
    ValueError
        If shapes, sizes or options contradict one another.
    TypeError
        If a dtype is not served.

    References
    ----------
    ChatGLM2-6B ``quantization.QuantizedLinear``; Dettmers et al. 2022, "LLM.int8()".
    """
    out_features, storage = checks.check_quant_linear(
        x, weight, scale, bias, residual, format=format, activation_bits=activation_bits
    )
    plain = unpack_weight(
        weight, out_features=out_features, in_features=x.shape[1], format=format
    ).astype(np.float32)
    x32 = x.astype(np.float32)
    scales = scale.reshape(out_features, -1)
    groups = scales.shape[1]
    if activation_bits == 8:
        largest = np.float32(119 if storage == "int4" else 127)
        token_scale = np.abs(x32).max(axis=1, initial=0) / largest
        divisor = np.where(token_scale > 0, token_scale, np.float32(1))
        x32 = np.rint(x32 / divisor[:, None])
    else:
        x32 = x32.astype(np.float16).astype(np.float32)
        token_scale = np.ones(len(x), np.float32)
    tokens = x32.reshape(len(x), groups, -1).astype(np.float64)
    values = plain.reshape(out_features, groups, -1).astype(np.float64)
    sums = np.einsum("tgi,ogi->tog", tokens, values, optimize=True).astype(np.float32)
    out = (sums * scales).sum(axis=2) * token_scale[:, None]
    if bias is not None:
        out = out + bias.astype(np.float32)
    if residual is not None:
        out = out + residual.astype(np.float32)
    result: Array = out.astype(x.dtype)
    return result
