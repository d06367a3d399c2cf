"""Argument checks, once, before a launch: the kernels trust what passes here.

ValueError for values and shapes, TypeError for dtypes; each message says what came and what was
wanted. `glm2` calls them too, before it runs a graph: a MindSpore custom operator that fails inside
a graph leaves that graph unusable.
"""

from glm2_ops.checks.arrays import (
    MAX_LENGTH,
    check_array,
    check_cu_seqlens,
    check_dtype_name,
    check_float,
    check_float_pair,
    check_head_dim,
    check_heads,
    check_index,
    check_shape,
)
from glm2_ops.checks.cache import (
    check_cache,
    check_disjoint,
    check_pages,
    check_prefix_len,
    check_rope_lengths,
    check_rotary,
    check_written_in_place,
)
from glm2_ops.checks.operators import (
    MAX_HIDDEN_SIZE,
    check_flash_attention,
    check_flash_attention_grad,
    check_flash_attention_varlen,
    check_rms_norm,
    check_rope_append,
    check_swiglu,
)
from glm2_ops.checks.options import (
    check_bool,
    check_eps,
    check_int,
    check_scale,
    check_window,
)
from glm2_ops.checks.weights import (
    MAX_IN_FEATURES,
    WEIGHT_FORMATS,
    check_activation_bits,
    check_features,
    check_nibble_order,
    check_packed,
    check_plain_weight,
    check_quant_linear,
    check_weight_format,
    group_size_of,
)

__all__ = [
    "MAX_HIDDEN_SIZE",
    "MAX_IN_FEATURES",
    "MAX_LENGTH",
    "WEIGHT_FORMATS",
    "check_activation_bits",
    "check_array",
    "check_bool",
    "check_cache",
    "check_cu_seqlens",
    "check_disjoint",
    "check_dtype_name",
    "check_eps",
    "check_features",
    "check_flash_attention",
    "check_flash_attention_grad",
    "check_flash_attention_varlen",
    "check_float",
    "check_float_pair",
    "check_head_dim",
    "check_heads",
    "check_index",
    "check_int",
    "check_nibble_order",
    "check_packed",
    "check_pages",
    "check_plain_weight",
    "check_prefix_len",
    "check_quant_linear",
    "check_rms_norm",
    "check_rope_append",
    "check_rope_lengths",
    "check_rotary",
    "check_scale",
    "check_shape",
    "check_swiglu",
    "check_weight_format",
    "check_window",
    "check_written_in_place",
    "group_size_of",
]
