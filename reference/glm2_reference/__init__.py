"""ChatGLM2 and ChatGLM3 in plain numpy: the numbers that every other part is checked against."""

from glm2_reference.attention import attention, visible_keys
from glm2_reference.config import GLM2Config, published_tensor_shapes
from glm2_reference.flash_attention import flash_attention, flash_attention_varlen
from glm2_reference.flash_attention_grad import flash_attention_grad
from glm2_reference.generate import generate
from glm2_reference.kv_cache import KVCache, rope_append
from glm2_reference.layers import embedding, linear, rms_norm, softmax, swiglu
from glm2_reference.model import GLM2Model
from glm2_reference.quant import (
    dequantize_groups,
    dequantize_rows,
    pack_int4,
    quantize_groups,
    quantize_rows,
    quantize_tokens,
    split_int4_digits,
    unpack_int4,
)
from glm2_reference.quant_linear import quant_linear
from glm2_reference.rope import apply_rope, rope_table

__all__ = [
    "GLM2Config",
    "GLM2Model",
    "KVCache",
    "apply_rope",
    "attention",
    "dequantize_groups",
    "dequantize_rows",
    "embedding",
    "flash_attention",
    "flash_attention_grad",
    "flash_attention_varlen",
    "generate",
    "linear",
    "pack_int4",
    "published_tensor_shapes",
    "quant_linear",
    "quantize_groups",
    "quantize_rows",
    "quantize_tokens",
    "rms_norm",
    "rope_append",
    "rope_table",
    "softmax",
    "split_int4_digits",
    "swiglu",
    "unpack_int4",
    "visible_keys",
]
