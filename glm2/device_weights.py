"""Published weights as MindSpore tensors, in the order in which `Transformer` takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt

from glm2.memory import available_bytes
from glm2.transformer import BLOCK_WEIGHTS
from glm2.weights import EMBEDDING, OUTPUT
from glm2_reference.config import GLM2Config

_FINAL_NORM = "transformer.encoder.final_layernorm.weight"


def device_weights(config: GLM2Config, weights: Mapping[str, Any]) -> tuple[ms.Tensor, ...]:
    """Bring the weights into the order and dtypes in which `Transformer` takes them.

    Raises
    ------
    MemoryError
        If the machine has less memory than the copies need.
    """
    _check_memory(copied_bytes(config, weights))
    embedding = weights[EMBEDDING]
    if embedding.dtype != np.float16:  # only the rows of a prompt are widened
        embedding = _float32(embedding)
    output = embedding if config.tie_word_embeddings else weights[OUTPUT]
    arrays = [embedding, _float32(weights[_FINAL_NORM]), _float32(output)]
    for i in range(config.num_layers):
        prefix = f"transformer.encoder.layers.{i}."
        for name in BLOCK_WEIGHTS:
            if name.endswith("query_key_value.bias") and not config.add_qkv_bias:
                array = np.zeros(config.qkv_size, np.float32)
            else:
                array = _float32(weights[prefix + name])
            if "query_key_value" in name and not config.multi_query_attention:
                array = _split_interleaved_qkv(array, config)
            arrays.append(array)
    return tuple(ms.Tensor.from_numpy(array) for array in arrays)


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


def _split_interleaved_qkv(
    array: npt.NDArray[np.float32], config: GLM2Config
) -> npt.NDArray[np.float32]:
    """Re-lay rows that hold q, k, v of each head in turn as all q, all k, all v."""
    heads = array.reshape(config.num_heads, 3, config.head_dim, *array.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(0, 1)).reshape(array.shape)
