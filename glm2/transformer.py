"""The whole network as one graph: token ids in, logits out."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import nn, ops

from glm2.attention import SelfAttention
from glm2.layers import MLP, Linear
from glm2_ops.mindspore import RmsNormResidual, dynamic
from glm2_reference.config import GLM2Config

# Tensors of one block, in the order in which `Transformer` takes them.
BLOCK_WEIGHTS = (
    "input_layernorm.weight",
    "self_attention.query_key_value.weight",
    "self_attention.query_key_value.bias",
    "self_attention.dense.weight",
    "post_attention_layernorm.weight",
    "mlp.dense_h_to_4h.weight",
    "mlp.dense_4h_to_h.weight",
)
_PER_BLOCK = len(BLOCK_WEIGHTS)


class Block(nn.Cell):
    """One transformer block: pre-norm attention and MLP, each with a residual.

    What a part computes is added to the residual by the norm that follows it, one operator for both.
    """

    def __init__(self, config: GLM2Config) -> None:
        super().__init__()
        self.norm = RmsNormResidual(eps=config.norm_eps)
        self.attention = SelfAttention(num_heads=config.num_heads, head_dim=config.head_dim)
        self.mlp = MLP()

    def construct(
        self, x: Any, residual: Any, weights: Any, angles: Any, cache: Any, positions: Any
    ) -> Any:
        """Return what is to be added to the residual, and the residual: (T, hidden_size) float32."""
        attended, residual = self.attend(x, residual, weights, angles, cache, positions)
        return self.transform(attended, residual, weights)

    def attend(
        self, x: Any, residual: Any, weights: Any, angles: Any, cache: Any, positions: Any
    ) -> Any:
        """Run the first half: attention."""
        normed, residual = self.norm(x, weights[0], residual)
        attended = self.attention(
            normed, weights[1], weights[2], weights[3], *angles, *cache, *positions
        )
        return attended, residual

    def transform(self, x: Any, residual: Any, weights: Any) -> Any:
        """Run the second half: the MLP."""
        normed, residual = self.norm(x, weights[4], residual)
        return self.mlp(normed, weights[5], weights[6]), residual


class Transformer(nn.Cell):
    """Embedding, blocks, final norm and output layer.

    Weights and caches are call arguments: their memory, mapped files included, reaches the operators
    as it is, and MindSpore's compile cache holds the graph alone.

    Parameters
    ----------
    config : GLM2Config
    cache_dtype : mindspore dtype
        Of the K/V caches: float16 or float32.
    embedding_dtype : mindspore dtype
        Of the embedding: float16 or float32.
    """

    def __init__(self, config: GLM2Config, cache_dtype: ms.Type, embedding_dtype: ms.Type) -> None:
        super().__init__()
        self.num_layers = config.num_layers
        self.blocks = nn.CellList([Block(config) for _ in range(config.num_layers)])
        self.norm = RmsNormResidual(eps=config.norm_eps)
        self.linear = Linear()
        self.zeros_like = ops.ZerosLike()
        self.gather = ops.Gather()
        self.cast = ops.Cast()
        self.set_inputs(*_placeholders(config, cache_dtype, embedding_dtype))

    def construct(
        self,
        ids: Any,
        rows: Any,
        block_table: Any,
        cu_seqlens_q: Any,
        seq_len_kv: Any,
        prefix_len: Any,
        cos: Any,
        sin: Any,
        embedding: Any,
        final_norm: Any,
        output: Any,
        *layer_tensors: Any,
    ) -> Any:
        """Return logits (R, vocab_size) float32 of the tokens ``rows`` (R,) of ``ids`` (T,)."""
        x = self.cast(self.gather(embedding, ids, 0), ms.float32)  # (T, hidden_size)
        residual = self.zeros_like(x)
        positions = (block_table, cu_seqlens_q, seq_len_kv, prefix_len)
        caches = _PER_BLOCK * self.num_layers
        for i in range(self.num_layers):
            weights = layer_tensors[_PER_BLOCK * i : _PER_BLOCK * (i + 1)]
            cache = (layer_tensors[caches + 2 * i], layer_tensors[caches + 2 * i + 1])
            x, residual = self.blocks[i](x, residual, weights, (cos, sin), cache, positions)
        x, residual = self.gather(x, rows, 0), self.gather(residual, rows, 0)  # (R, hidden_size)
        normed, _ = self.norm(x, final_norm, residual)
        return self.linear(normed, output)


def _placeholders(
    config: GLM2Config, cache_dtype: ms.Type, embedding_dtype: ms.Type
) -> list[ms.Tensor]:
    """Shapes of all call arguments; None where a call may vary without a new compilation."""
    hidden, vocab = config.hidden_size, config.vocab_size
    half_rotary = config.rotary_dim // 2
    block = (
        dynamic(ms.float32, hidden),
        dynamic(ms.float32, config.qkv_size, hidden),
        dynamic(ms.float32, config.qkv_size),
        dynamic(ms.float32, hidden, config.num_heads * config.head_dim),
        dynamic(ms.float32, hidden),
        dynamic(ms.float32, 2 * config.ffn_hidden_size, hidden),
        dynamic(ms.float32, hidden, config.ffn_hidden_size),
    )
    # A page count is a dynamic dim, the page size is not.
    cache = dynamic(cache_dtype, None, config.num_kv_heads, None, config.head_dim)
    return [
        dynamic(ms.int32, None),
        dynamic(ms.int32, None),
        dynamic(ms.int32, None, None),
        dynamic(ms.int32, None),
        dynamic(ms.int32, None),
        dynamic(ms.int32, None),
        dynamic(ms.float32, None, half_rotary),
        dynamic(ms.float32, None, half_rotary),
        dynamic(embedding_dtype, vocab, hidden),
        dynamic(ms.float32, hidden),
        dynamic(ms.float32, vocab, hidden),
        *block * config.num_layers,
        *[cache] * (2 * config.num_layers),
    ]
