"""ChatGLM2-6B's shapes, and what its weights and its cache take in each format."""

from __future__ import annotations

import dataclasses
import math
from typing import Final

from glm2_reference.config import CHATGLM2_6B, GLM2Config, published_tensor_shapes

WEIGHT_FORMATS: Final = ("fp16", "int8", "int4")
_QUANTISED = ("query_key_value.weight", "dense.weight", "h_to_4h.weight", "4h_to_h.weight")


def with_kv_heads(num_kv_heads: int) -> GLM2Config:
    """Return ChatGLM2-6B with another number of K/V heads.

    Raises
    ------
    ValueError
        If 32 is not a multiple of it.
    """
    return dataclasses.replace(CHATGLM2_6B, num_kv_heads=num_kv_heads)


def head_name(num_kv_heads: int) -> str:
    """Name a number of K/V heads: MHA, GQA-8, MQA."""
    if num_kv_heads == CHATGLM2_6B.num_heads:
        return "MHA"
    return "MQA" if num_kv_heads == 1 else f"GQA-{num_kv_heads}"


def kv_bytes_per_token(config: GLM2Config, element_bytes: int = 2) -> int:
    """Return what one token takes in the K/V cache of all layers."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * element_bytes


def weight_bytes(config: GLM2Config, weight_format: str) -> int:
    """Return what the weights take; int8 and int4 as published, with one fp16 scale a row."""
    total = 0
    for name, shape in published_tensor_shapes(config).items():
        count = math.prod(shape)
        if weight_format != "fp16" and name.endswith(_QUANTISED):
            bits = 8 if weight_format == "int8" else 4
            total += count * bits // 8 + 2 * shape[0]
        else:
            total += 2 * count
    return total


def decode_weight_bytes(config: GLM2Config, weight_format: str) -> int:
    """Return what of the weights one decoding step reads: all but the embedding's other rows."""
    return weight_bytes(config, weight_format) - 2 * config.vocab_size * config.hidden_size


def decode_flops(config: GLM2Config, context: int) -> int:
    """Return the FLOPs of one token's decoding step, matrix products alone."""
    weights = sum(
        math.prod(shape)
        for name, shape in published_tensor_shapes(config).items()
        if len(shape) == 2 and "word_embeddings" not in name
    )
    attention = 2 * config.num_layers * config.num_heads * config.head_dim * context
    return 2 * (weights + attention)
