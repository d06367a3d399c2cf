"""The whole network as one graph: token ids in, logits out."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import nn, ops

from glm2.attention import SelfAttention
from glm2.layers import MLP, make_linear
from glm2.packed_format import PackedFormat, WeightFormat
from glm2.quantized_checkpoint import scale_shape
from glm2_ops.mindspore import RmsNormResidual, dynamic
from glm2_reference.config import GLM2Config

# Tensors of one block, in the order in which `Transformer` takes them.
BLOCK_WEIGHTS = (
    "input_layernorm.weight",
    "self_attention.query_key_value.weight",
    "self_attention.query_key_value.weight_scale",
    "self_attention.query_key_value.bias",
    "self_attention.dense.weight",
    "self_attention.dense.weight_scale",
    "post_attention_layernorm.weight",
    "mlp.dense_h_to_4h.weight",
    "mlp.dense_h_to_4h.weight_scale",
    "mlp.dense_4h_to_h.weight",
    "mlp.dense_4h_to_h.weight_scale",
)
ATTENTION_WEIGHTS = 6  # of these, up to the second norm
# Before the blocks' tensors: embedding, final norm, output layer and its scale.
MODEL_WEIGHTS = 4
_PER_BLOCK = len(BLOCK_WEIGHTS)


class Block(nn.Cell):
    """One transformer block: pre-norm attention and MLP, each with a residual.

    What a part computes is added to the residual by the norm that follows it, one operator for both.
    """

    def __init__(self, config: GLM2Config, packed: PackedFormat | None) -> None:
        super().__init__()
        self.norm = RmsNormResidual(eps=config.norm_eps)
        self.attention = SelfAttention(
            num_heads=config.num_heads, head_dim=config.head_dim, packed=packed
        )
        self.mlp = MLP(packed)

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
        qkv, dense = (weights[1], weights[2]), (weights[4], weights[5])
        attended = self.attention(normed, qkv, weights[3], dense, *angles, *cache, *positions)
        return attended, residual

    def transform(self, x: Any, residual: Any, weights: Any) -> Any:
        """Run the second half: the MLP."""
        normed, residual = self.norm(x, weights[6], residual)
        return self.mlp(normed, (weights[7], weights[8]), (weights[9], weights[10])), residual


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
    packed : PackedFormat or None
        How matrices are stored; None is float32, with scales of one element that nobody reads.
    """

    def __init__(
        self,
        config: GLM2Config,
        cache_dtype: ms.Type,
        embedding_dtype: ms.Type,
        packed: PackedFormat | None = None,
    ) -> None:
        super().__init__()
        self.num_layers = config.num_layers
        self.blocks = nn.CellList([Block(config, packed) for _ in range(config.num_layers)])
        self.norm = RmsNormResidual(eps=config.norm_eps)
        self.linear = make_linear(packed, head=True)
        self.zeros_like = ops.ZerosLike()
        self.gather = ops.Gather()
        self.cast = ops.Cast()
        self.set_inputs(*_placeholders(config, cache_dtype, embedding_dtype, packed))

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
        output_scale: Any,
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
        return self.linear(normed, output, output_scale)


def _placeholders(
    config: GLM2Config,
    cache_dtype: ms.Type,
    embedding_dtype: ms.Type,
    packed: PackedFormat | None,
) -> list[ms.Tensor]:
    """Shapes of all call arguments; None where a call may vary without a new compilation."""
    hidden, vocab = config.hidden_size, config.vocab_size
    half_rotary = config.rotary_dim // 2
    weights = None if packed is None else packed.weights
    block = (
        dynamic(ms.float32, hidden),
        *_matrix(weights, config.qkv_size, hidden),
        dynamic(ms.float32, config.qkv_size),
        *_matrix(weights, hidden, config.num_heads * config.head_dim),
        dynamic(ms.float32, hidden),
        *_matrix(weights, 2 * config.ffn_hidden_size, hidden),
        *_matrix(weights, hidden, config.ffn_hidden_size),
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
        dynamic(embedding_dtype, None, hidden),
        dynamic(ms.float32, hidden),
        *_matrix(None if packed is None else packed.head, vocab, hidden),
        *block * config.num_layers,
        *[cache] * (2 * config.num_layers),
    ]


def _matrix(
    weight_format: WeightFormat | None, out_features: int, in_features: int
) -> tuple[ms.Tensor, ms.Tensor]:
    """Shapes of a matrix and its scales. A placeholder of known size would take memory of that size."""
    if weight_format is None:
        return dynamic(ms.float32, out_features, None), dynamic(ms.float32, 1)
    scales = scale_shape((out_features, in_features), weight_format)
    return dynamic(ms.uint8, None), dynamic(ms.float32, *scales)
