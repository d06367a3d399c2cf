"""ChatGLM2 and ChatGLM3 in plain numpy: the numbers that every other part is checked against."""

from glm2_reference.attention import attention, visible_keys
from glm2_reference.config import GLM2Config, published_tensor_shapes
from glm2_reference.flash_attention import flash_attention, flash_attention_varlen
from glm2_reference.generate import generate
from glm2_reference.kv_cache import KVCache, rope_append
from glm2_reference.layers import embedding, linear, rms_norm, softmax, swiglu
from glm2_reference.model import GLM2Model
from glm2_reference.rope import apply_rope, rope_table

__all__ = [
    "GLM2Config",
    "GLM2Model",
    "KVCache",
    "apply_rope",
    "attention",
    "embedding",
    "flash_attention",
    "flash_attention_varlen",
    "generate",
    "linear",
    "published_tensor_shapes",
    "rms_norm",
    "rope_append",
    "rope_table",
    "softmax",
    "swiglu",
    "visible_keys",
]
