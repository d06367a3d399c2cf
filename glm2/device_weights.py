"""Weights as MindSpore tensors, in the order in which `Transformer` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt

from glm2.memory import available_bytes
from glm2.packed_format import PackedFormat
from glm2.quantized_checkpoint import qkv_row_order, scale_name
from glm2.transformer import BLOCK_WEIGHTS
from glm2.weights import EMBEDDING, OUTPUT
from glm2_reference.config import GLM2Config

_FINAL_NORM = "transformer.encoder.final_layernorm.weight"


def device_weights(
    config: GLM2Config, weights: Mapping[str, Any], packed: PackedFormat | None = None
) -> tuple[ms.Tensor, ...]:
    """Bring the weights into the order and dtypes in which `Transformer` takes them.

    Parameters
    ----------
    config : GLM2Config
    weights : mapping of str to array
        By published names, or as `glm2.quantized_checkpoint.packed_specs` names them.
    packed : PackedFormat or None
        Packed weights are used where they lie; floats are widened to float32 where they are not.

    Raises
    ------
    MemoryError
        If the machine has less memory than the copies need.
    """
    if packed is not None:
        arrays = _packed_arrays(config, weights)
    else:
        _check_memory(copied_bytes(config, weights))
        arrays = _float_arrays(config, weights)
    return tuple(ms.Tensor.from_numpy(array) for array in arrays)


def _packed_arrays(config: GLM2Config, weights: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
    """List the tensors of a packed checkpoint, as they are."""
    arrays = [weights[name] for name in (EMBEDDING, _FINAL_NORM, OUTPUT, scale_name(OUTPUT))]
    no_bias = np.zeros(config.qkv_size, np.float32)
    for i in range(config.num_layers):
        for name in BLOCK_WEIGHTS:
            full_name = f"transformer.encoder.layers.{i}.{name}"
            missing = name.endswith(".bias") and not config.add_qkv_bias
            arrays.append(no_bias if missing else weights[full_name])
    return arrays


def _float_arrays(config: GLM2Config, weights: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
    """List the tensors of a float checkpoint, matrices widened to float32."""
    embedding = weights[EMBEDDING]
    if embedding.dtype != np.float16:  # only the rows of a prompt are widened
        embedding = _float32(embedding)
    output = embedding if config.tie_word_embeddings else weights[OUTPUT]
    no_scale = np.ones(1, np.float32)
    arrays = [embedding, _float32(weights[_FINAL_NORM]), _float32(output), no_scale]
    for i in range(config.num_layers):
        prefix = f"transformer.encoder.layers.{i}."
        for name in BLOCK_WEIGHTS:
            if name.endswith("_scale"):
                arrays.append(no_scale)
                continue
            if name.endswith("query_key_value.bias") and not config.add_qkv_bias:
                array = np.zeros(config.qkv_size, np.float32)
            else:
                array = _float32(weights[prefix + name])
            order = qkv_row_order(config) if "query_key_value" in name else None
            arrays.append(array if order is None else array[order])
    return arrays


def copied_bytes(config: GLM2Config, weights: Mapping[str, Any]) -> int:
    """Return the bytes of the float32 copies that `device_weights` makes."""
    copied = 0
    for name, array in weights.items():
        keeps = array.dtype == np.float32 or (name == EMBEDDING and array.dtype == np.float16)
        tied = name == EMBEDDING and config.tie_word_embeddings  # it is the output layer too
        relaid = "query_key_value" in name and not config.multi_query_attention
        if not keeps or relaid or (tied and array.dtype != np.float32):
            copied += 4 * array.size
    return copied


def _check_memory(needed: int) -> None:
    """Refuse what would drive the machine into killing the process."""
    available = available_bytes()
    if available is not None and needed > available:
        msg = (
            f"the weights need {needed / 1e9:.1f} GB as float32 and this machine has "
            f"{available / 1e9:.1f} GB free; use a smaller model or a larger machine"
        )
        raise MemoryError(msg)


def _float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(array, dtype=np.float32)  # the same memory where it is float32
