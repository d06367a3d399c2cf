"""Self-attention of one block: fused projection, rope_append, flash_attention, output projection."""

from __future__ import annotations

from typing import Any

from mindspore import nn, ops

from glm2.layers import make_linear
from glm2.packed_format import PackedFormat
from glm2_ops.mindspore import FlashAttention, RopeAppend


class SelfAttention(nn.Cell):
    """Attention of new tokens over all cached ones; appends the new ones to the cache.

    Parameters
    ----------
    num_heads, head_dim : int
        Of the model.
    packed : PackedFormat or None
        How its matrices are stored; None is float32.
    """

    def __init__(self, *, num_heads: int, head_dim: int, packed: PackedFormat | None) -> None:
        super().__init__()
        self.project = make_linear(packed, bias=True)
        self.linear = make_linear(packed)
        self.rope_append = RopeAppend()
        self.flash_attention = FlashAttention(scale=head_dim**-0.5)
        self.reshape = ops.Reshape()
        self.width = num_heads * head_dim

    def construct(
        self,
        x: Any,
        qkv: Any,
        qkv_bias: Any,
        dense: Any,
        cos: Any,
        sin: Any,
        k_cache: Any,
        v_cache: Any,
        block_table: Any,
        cu_seqlens_q: Any,
        seq_len_kv: Any,
        prefix_len: Any,
    ) -> Any:
        """Attend with x (T, hidden_size) float32; matrices are (weight, scale)."""
        projected = self.project(x, *qkv, qkv_bias)  # (T, (N + 2G) * D)
        q = self.rope_append(
            projected, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv
        )  # (T, N, D)
        o = self.flash_attention(
            q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len
        )
        return self.linear(self.reshape(o, (-1, self.width)), *dense)
