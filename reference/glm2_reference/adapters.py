"""Small trained parts beside frozen weights: LoRA and the prefixes of P-tuning v2."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from glm2_reference.checks import FloatArray, check_rank, check_shape, compute_dtype
from glm2_reference.config import GLM2Config
from glm2_reference.layers import linear


def lora_linear(
    x: FloatArray, weight: FloatArray, down: FloatArray, up: FloatArray, *, alpha: float
) -> FloatArray:
    """Multiply by a frozen weight and add a low-rank correction.

    ``out = x @ weight.T + alpha / rank * (x @ down.T) @ up.T``

    Parameters
    ----------
    x : float, (..., in_features)
    weight : float, (out_features, in_features)
    down : float, (rank, in_features)
        A in the paper.
    up : float, (out_features, rank)
        B in the paper; zero before training.
    alpha : float

    Returns
    -------
    out : dtype of x, (..., out_features)

    Raises
    ------
    ValueError
        If the shapes do not fit.

    References
    ----------
    Hu et al. 2021, LoRA, eq. 3.
    """
    _check_lora(weight, down, up)
    dtype = compute_dtype(x.dtype)
    wide = x.astype(dtype)
    low = linear(linear(wide, down.astype(dtype)), up.astype(dtype))
    out: FloatArray = linear(wide, weight.astype(dtype)) + dtype.type(alpha / len(down)) * low
    return out.astype(x.dtype)


def merge_lora(weight: FloatArray, down: FloatArray, up: FloatArray, *, alpha: float) -> FloatArray:
    """Return the weight that alone does what `lora_linear` does, in the dtype of ``weight``.

    Parameters and errors are those of `lora_linear`.
    """
    _check_lora(weight, down, up)
    dtype = compute_dtype(weight.dtype)
    change = up.astype(dtype) @ down.astype(dtype)  # (out_features, in_features)
    merged: FloatArray = weight.astype(dtype) + dtype.type(alpha / len(down)) * change
    return merged.astype(weight.dtype)


def encode_prefix(tensors: Mapping[str, FloatArray], config: GLM2Config) -> FloatArray:
    """Compute the keys and values that P-tuning v2 puts before a text.

    Parameters
    ----------
    tensors : mapping of str to float array
        ``embedding.weight`` (pre_seq_len, kv_size), kv_size being ``num_layers * 2 * num_kv_heads *
        head_dim``. With a projection also ``trans.0.weight`` (hidden_size, kv_size), ``trans.0.bias``,
        ``trans.2.weight`` (kv_size, hidden_size), ``trans.2.bias``.
    config : GLM2Config

    Returns
    -------
    prefix : dtype of the embedding, (num_layers, 2, pre_seq_len, num_kv_heads, head_dim)
        Keys, then values, of each layer. They are not rotated; the text's positions start at 0.

    Raises
    ------
    ValueError
        If a shape does not fit.

    References
    ----------
    Liu et al. 2022, P-Tuning v2; ChatGLM2-6B ``modeling_chatglm.PrefixEncoder``.
    """
    x = tensors["embedding.weight"]
    check_rank("(pre_seq_len, kv_size)", embedding=x)
    kv_size = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    check_shape("embedding", x, (len(x), kv_size), "keys and values of every layer")
    if "trans.0.weight" in tensors:
        hidden = np.tanh(linear(x, tensors["trans.0.weight"], tensors["trans.0.bias"]))
        x = linear(hidden, tensors["trans.2.weight"], tensors["trans.2.bias"])
    x = x.reshape(len(x), config.num_layers, 2, config.num_kv_heads, config.head_dim)
    return np.ascontiguousarray(x.transpose(1, 2, 0, 3, 4))


def check_prefix(prefix: FloatArray, config: GLM2Config) -> None:
    """Require a prefix as `encode_prefix` lays it out.

    Raises
    ------
    ValueError
        If it is of another shape.
    """
    check_rank("(num_layers, 2, pre_seq_len, num_kv_heads, head_dim)", prefix=prefix)
    wanted = (config.num_layers, 2, prefix.shape[2], config.num_kv_heads, config.head_dim)
    check_shape("prefix", prefix, wanted, "keys and values of every layer of this model")


def _check_lora(weight: FloatArray, down: FloatArray, up: FloatArray) -> None:
    check_rank("(out_features, in_features)", weight=weight)
    check_rank("(rank, in_features)", down=down)
    rank = len(down)
    if rank == 0:
        msg = "down has no rows; the rank of an adapter is at least 1"
        raise ValueError(msg)
    check_shape("down", down, (rank, weight.shape[1]), "(rank, in_features)")
    check_shape("up", up, (weight.shape[0], rank), "(out_features, rank)")
