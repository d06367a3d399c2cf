"""Self-attention of one block: fused projection, rope_append, flash_attention, output projection."""

from __future__ import annotations

from typing import Any

from mindspore import nn, ops

from glm2.layers import Linear
from glm2_ops.mindspore import FlashAttention, RopeAppend


class SelfAttention(nn.Cell):
    """Attention of new tokens over all cached ones; appends the new ones to the cache.

    Parameters
    ----------
    num_heads, head_dim : int
        Of the model.
    """

    def __init__(self, *, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.linear = Linear()
        self.rope_append = RopeAppend()
        self.flash_attention = FlashAttention(scale=head_dim**-0.5)
        self.reshape = ops.Reshape()
        self.width = num_heads * head_dim

    def construct(
        self,
        x: Any,
        qkv_weight: Any,
        qkv_bias: Any,
        dense_weight: Any,
        cos: Any,
        sin: Any,
        k_cache: Any,
        v_cache: Any,
        block_table: Any,
        cu_seqlens_q: Any,
        seq_len_kv: Any,
        prefix_len: Any,
    ) -> Any:
        """Attend with x (T, hidden_size) float32."""
        qkv = self.linear(x, qkv_weight) + qkv_bias  # (T, (N + 2G) * D)
        q = self.rope_append(
            qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv
        )  # (T, N, D)
        o = self.flash_attention(
            q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len
        )
        return self.linear(self.reshape(o, (-1, self.width)), dense_weight)
