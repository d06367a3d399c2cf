"""GLM2Model: token ids in, logits out, in plain numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_reference.adapters import check_prefix
from glm2_reference.checks import FloatArray, FloatDType
from glm2_reference.config import GLM2Config, published_tensor_shapes
from glm2_reference.flash_attention import flash_attention
from glm2_reference.kv_cache import KVCache, rope_append
from glm2_reference.layers import embedding, linear, rms_norm, swiglu
from glm2_reference.rope import rope_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockWeights:
    """The tensors of one transformer block; weights are (out, in)."""

    input_norm: FloatArray
    qkv: FloatArray
    qkv_bias: FloatArray | None
    dense: FloatArray
    post_attention_norm: FloatArray
    h_to_4h: FloatArray
    four_h_to_h: FloatArray


def block(
    x: FloatArray,
    weights: BlockWeights,
    attend: Callable[[FloatArray], FloatArray],
    *,
    norm_eps: float,
) -> FloatArray:
    """Run one transformer block: attention and a gated MLP, each normalised before, added after.

    Parameters
    ----------
    x : float32 or float64, (T, hidden_size)
    weights : BlockWeights
    attend : callable
        Takes the fused projection (T, qkv_size), returns the heads' outputs (T, num_heads * D).
    norm_eps : float

    Returns
    -------
    out : dtype and shape of x

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.GLMBlock``.
    """
    h = rms_norm(x, weights.input_norm, eps=norm_eps)
    x = x + linear(attend(linear(h, weights.qkv, weights.qkv_bias)), weights.dense)
    h = rms_norm(x, weights.post_attention_norm, eps=norm_eps)
    return x + linear(swiglu(linear(h, weights.h_to_4h)), weights.four_h_to_h)


class GLM2Model:
    """A ChatGLM2 or ChatGLM3 model.

    Parameters
    ----------
    config : GLM2Config
    weights : mapping of str to array
        By their published names; others are ignored. Copied to ``dtype``.
    dtype : float32 or float64
        What every layer is computed in. float64 is the golden side of the accuracy rule.
    prefix : float, (num_layers, 2, pre_seq_len, num_kv_heads, head_dim), or None
        Keys and values of a P-tuning v2 prefix, which stand before every text, unrotated; see
        `glm2_reference.adapters.encode_prefix`. The text's positions begin at 0 all the same.

    Raises
    ------
    ValueError
        If weights are missing or have the wrong shape; the message lists all of them.
    TypeError
        If ``dtype`` is another.

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.ChatGLMForConditionalGeneration``.
    """

    def __init__(
        self,
        config: GLM2Config,
        weights: Mapping[str, FloatArray],
        dtype: FloatDType = np.float32,
        *,
        prefix: FloatArray | None = None,
    ) -> None:
        if np.dtype(dtype) not in (np.float32, np.float64):
            msg = f"dtype is {np.dtype(dtype)}; the reference computes in float32 or float64"
            raise TypeError(msg)
        _check_weights(config, weights)
        self.config = config
        self.dtype = np.dtype(dtype)
        self.embedding = weights["transformer.embedding.word_embeddings.weight"].astype(dtype)
        self.blocks = [
            _block_weights(config, weights, f"transformer.encoder.layers.{index}.", self.dtype)
            for index in range(config.num_layers)
        ]
        self.final_norm = weights["transformer.encoder.final_layernorm.weight"].astype(dtype)
        self.output_layer = (
            self.embedding
            if config.tie_word_embeddings
            else weights["transformer.output_layer.weight"].astype(dtype)
        )
        tables = rope_table(
            max_position=config.seq_length,
            rotary_dim=config.rotary_dim,
            base=config.rope_base,
            position_scale=config.rope_position_scale,
            dtype=dtype,
        )
        if prefix is not None:
            check_prefix(prefix, config)
        self.prefix = prefix
        self.num_prefix = 0 if prefix is None else prefix.shape[2]
        # The cache counts the prefix's tokens, the text's positions do not: their rows stand first.
        padding = ((self.num_prefix, 0), (0, 0))
        self.cos, self.sin = (np.pad(table, padding) for table in tables)

    def new_cache(self, max_tokens: int, *, page_size: int = 128) -> KVCache:
        """Allocate a cache for a text of ``max_tokens`` tokens, the prefix already in it.

        Raises
        ------
        ValueError
            If ``max_tokens`` is not positive, or ``page_size`` not 16 to 256.
        """
        cache = KVCache.new(
            self.config,
            max_tokens=max_tokens + self.num_prefix if max_tokens > 0 else max_tokens,
            page_size=page_size,
            dtype=self.dtype,
        )
        if self.prefix is not None:
            cache.append(self.prefix[:, 0], self.prefix[:, 1])
        return cache

    def forward(
        self,
        ids: npt.NDArray[np.integer[Any]],
        *,
        cache: KVCache | None = None,
        prefix_len: int = 0,
    ) -> FloatArray:
        """Compute the logits of the token that follows each of ``ids``.

        Parameters
        ----------
        ids : integer, (T,)
            Continue what ``cache`` holds.
        cache : KVCache or None
            Keys and values of earlier tokens; those of ``ids`` are added, in place. None means that
            ``ids`` are the whole text. With a P-tuning prefix, from `new_cache`.
        prefix_len : int
            Positions of the text before it are visible to every token: 0 in chat, the length of part A in
            blank infilling.

        Returns
        -------
        logits : float32 or float64, (T, vocab_size)

        Raises
        ------
        ValueError
            If an id is not in the vocabulary, or the text is longer than the cache or the model
            allows. The cache's lengths are unchanged then.
        TypeError
            If ``ids`` are not integers.
        """
        x = embedding(ids, self.embedding)  # (T, hidden_size)
        num_tokens = x.shape[0]
        if num_tokens == 0:
            msg = "ids are empty; pass at least one token"
            raise ValueError(msg)
        if cache is None:
            cache = self.new_cache(num_tokens)
        self._check_length(cache, num_tokens)
        for index, weights in enumerate(self.blocks):
            attend = self._attention(index, cache, num_tokens, prefix_len)
            x = block(x, weights, attend, norm_eps=self.config.norm_eps)
        cache.advance(num_tokens)
        x = rms_norm(x, self.final_norm, eps=self.config.norm_eps)
        return linear(x, self.output_layer)  # (T, vocab_size)

    def _check_length(self, cache: KVCache, num_tokens: int) -> None:
        if cache.length < self.num_prefix:
            msg = (
                f"the cache holds {cache.length} tokens, but the model's prefix has "
                f"{self.num_prefix}; make the cache with new_cache"
            )
            raise ValueError(msg)
        length = int(cache.lengths_after(num_tokens)[0]) - self.num_prefix
        if length > self.config.seq_length:
            msg = (
                f"the text has {length} tokens, {num_tokens} of them new, but the model's "
                f"seq_length is {self.config.seq_length}; shorten it"
            )
            raise ValueError(msg)

    def _attention(
        self, layer: int, cache: KVCache, num_tokens: int, prefix_len: int
    ) -> Callable[[FloatArray], FloatArray]:
        """Bind one layer's cache: the returned callable rotates, appends and attends."""
        k, v, block_table = cache.k[layer], cache.v[layer], cache.block_table
        cu_seqlens_q = np.array([0, num_tokens], np.int32)
        seq_len_kv = cache.lengths_after(num_tokens)
        prefixes = np.array([self.num_prefix + prefix_len], np.int32)

        def attend(qkv: FloatArray) -> FloatArray:
            q = rope_append(
                qkv,
                self.cos,
                self.sin,
                k,
                v,
                block_table,
                cu_seqlens_q,
                seq_len_kv,
                num_heads=self.config.num_heads,
                num_kv_heads=self.config.num_kv_heads,
                rotary_dim=self.config.rotary_dim,
            )  # (T, num_heads, D)
            o = flash_attention(q, k, v, block_table, cu_seqlens_q, seq_len_kv, prefix_len=prefixes)
            return o.reshape(num_tokens, -1)  # (T, num_heads * D)

        return attend


def _check_weights(config: GLM2Config, weights: Mapping[str, FloatArray]) -> None:
    problems = []
    for name, shape in published_tensor_shapes(config).items():
        if name not in weights:
            problems.append(f"{name} {shape} is missing")
        elif weights[name].shape != shape:
            problems.append(f"{name} has shape {weights[name].shape}, expected {shape}")
    if problems:
        msg = f"{len(problems)} weights do not fit the config: {'; '.join(problems)}"
        raise ValueError(msg)


def _block_weights(
    config: GLM2Config, weights: Mapping[str, FloatArray], prefix: str, dtype: np.dtype[Any]
) -> BlockWeights:
    def take(name: str) -> FloatArray:
        return weights[prefix + name].astype(dtype)

    qkv = take("self_attention.query_key_value.weight")
    bias = take("self_attention.query_key_value.bias") if config.add_qkv_bias else None
    if not config.multi_query_attention:
        qkv = gather_qkv_rows(qkv, config.num_heads)
        bias = None if bias is None else gather_qkv_rows(bias, config.num_heads)
    return BlockWeights(
        input_norm=take("input_layernorm.weight"),
        qkv=qkv,
        qkv_bias=bias,
        dense=take("self_attention.dense.weight"),
        post_attention_norm=take("post_attention_layernorm.weight"),
        h_to_4h=take("mlp.dense_h_to_4h.weight"),
        four_h_to_h=take("mlp.dense_4h_to_h.weight"),
    )


def gather_qkv_rows(rows: FloatArray, num_heads: int) -> FloatArray:
    """Reorder rows that interleave q, k and v a head into all of q, all of k, all of v.

    Without multi-query attention the published projection holds ``q0 k0 v0 q1 k1 v1 ...``, D rows
    each.

    Parameters
    ----------
    rows : float, (num_heads * 3 * D, ...)

    Returns
    -------
    rows : same dtype and shape
    """
    heads = rows.reshape(num_heads, 3, -1, *rows.shape[1:])  # (num_heads, 3, D, ...)
    return heads.swapaxes(0, 1).reshape(rows.shape)
