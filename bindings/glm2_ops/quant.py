"""quant_linear for numpy: a linear layer on a packed weight."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_ops import checks
from glm2_ops._library import native
from glm2_ops.packed_weight import WeightFormat

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
        in_features is 1 to 16,384. A token that holds NaN or infinity gives no finite row.
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
    out = np.empty((len(x), out_features), x.dtype)
    if bias is not None:
        bias = np.ascontiguousarray(bias, np.float32)
    if residual is not None:
        residual = np.ascontiguousarray(residual)
    native.quant_matmul(
        np.ascontiguousarray(x),
        weight,
        np.ascontiguousarray(scale),
        bias,
        residual,
        out,
        storage,
        checks.WEIGHT_FORMATS[format],
        activation_bits,
    )
    return out
