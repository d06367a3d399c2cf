"""GLM2Model: a checkpoint ready to run. Owns the weights; the cache is an argument."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt

from glm2.compile_cache import compile_cache, graph_key
from glm2.config import read_checkpoint_config
from glm2.interrupts import deferred_interrupts
from glm2.kv_cache import KVCache
from glm2.transformer import BLOCK_WEIGHTS, Transformer
from glm2.weights import load_weights
from glm2_ops import checks
from glm2_reference.config import GLM2Config

_CACHE_DTYPES = ("float16", "float32")
_EMBEDDING = "transformer.embedding.word_embeddings.weight"
_OUTPUT = "transformer.output_layer.weight"
_FINAL_NORM = "transformer.encoder.final_layernorm.weight"
# MindSpore runs one graph of a process at a time; two threads at once would crash it.
_RUNTIME = threading.Lock()


class GLM2Model:
    """A ChatGLM2 or ChatGLM3 model on MindSpore in graph mode.

    Activations are float32. Float32 weights are used where they lie, mapped files included; narrower
    ones are widened once.

    Parameters
    ----------
    config : GLM2Config
    weights : mapping of str to float16, bfloat16 or float32 arrays
        By their published names, shaped as `glm2_reference.config.published_tensor_shapes` says.
    cache_dtype : "float16" or "float32"
        Of the K/V cache, and of the operands of attention's two products.
    graph_folder : Path, optional
        Where compiled graphs are kept between processes; none are unless given.

    Raises
    ------
    ValueError
        If ``cache_dtype`` is neither, or the head size is one that the operators do not serve.
    """

    def __init__(
        self,
        config: GLM2Config,
        weights: Mapping[str, Any],
        *,
        cache_dtype: str = "float16",
        graph_folder: Path | None = None,
    ) -> None:
        if cache_dtype not in _CACHE_DTYPES:
            msg = f"cache_dtype is {cache_dtype!r}; expected {' or '.join(_CACHE_DTYPES)}"
            raise ValueError(msg)
        if config.head_dim % 16 or config.head_dim > 256:
            msg = (
                f"kv_channels is {config.head_dim}; the attention operator serves multiples of 16 "
                "up to 256"
            )
            raise ValueError(msg)
        self.config = config
        self.cache_dtype = np.dtype(cache_dtype)
        self._graph_folder = graph_folder
        self._weights = _device_weights(config, weights)
        self._angles = tuple(ms.Tensor.from_numpy(table) for table in _rope_tables(config))
        self._compiled = False
        self._cell = self._build()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        cache_dtype: str = "float16",
        graph_folder: Path | None = None,
    ) -> GLM2Model:
        """Open a published checkpoint folder; see `glm2.weights.load_weights` for its errors."""
        config = read_checkpoint_config(folder).config
        weights = load_weights(folder, config)
        return cls(config, weights, cache_dtype=cache_dtype, graph_folder=graph_folder)

    def new_cache(self, max_tokens: int, *, num_seqs: int = 1) -> KVCache:
        """Return an empty cache for sequences of up to ``max_tokens`` tokens."""
        return KVCache(
            num_layers=self.config.num_layers,
            num_kv_heads=self.config.num_kv_heads,
            head_dim=self.config.head_dim,
            max_tokens=max_tokens,
            num_seqs=num_seqs,
            dtype=self.cache_dtype,
        )

    def forward(self, ids: npt.NDArray[np.int32], cache: KVCache) -> npt.NDArray[np.float32]:
        """Append tokens to a sequence and predict what follows the last one.

        Parameters
        ----------
        ids : int32, (T,)
            At least one token.
        cache : KVCache
            Of one sequence; holds the tokens before these, and these afterwards.

        Returns
        -------
        logits : float32, (vocab_size,)

        Raises
        ------
        ValueError
            If an id is outside the vocabulary, there are none, or the cache or the model's context
            has no room.
        FloatingPointError
            If the logits are not numbers.
        """
        ids = np.asarray(ids)
        cu_seqlens = np.array([0, ids.size], np.int32)
        return self.forward_ragged(ids, cu_seqlens, cache)[0]

    def forward_ragged(
        self, ids: npt.NDArray[np.int32], cu_seqlens: npt.NDArray[np.int32], cache: KVCache
    ) -> npt.NDArray[np.float32]:
        """Append tokens to several sequences at once.

        Parameters
        ----------
        ids : int32, (T,)
            Tokens of all sequences.
        cu_seqlens : int32, (B + 1,)
            Sequence b gets ``ids[cu_seqlens[b]:cu_seqlens[b + 1]]``, at least one token.
        cache : KVCache
            Of B sequences.

        Returns
        -------
        logits : float32, (B, vocab_size)
            Of each sequence's last token.

        Raises
        ------
        ValueError, FloatingPointError
            As `forward` does.
        """
        checks.check_cu_seqlens("cu_seqlens", cu_seqlens, np.size(ids))
        return self._run(ids, cu_seqlens, cache, (cu_seqlens[1:] - 1).astype(np.int32))

    def logits(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Return the logits (T, vocab_size) float32 of all tokens of one sequence ``ids`` (T,)."""
        ids = np.asarray(ids)
        cache = self.new_cache(max(1, ids.size))
        rows = np.arange(ids.size, dtype=np.int32)
        return self._run(ids, np.array([0, ids.size], np.int32), cache, rows)

    def _run(
        self,
        ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int32],
        cache: KVCache,
        rows: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.float32]:
        """Check everything, run the graph, and only then advance the cache."""
        ids = self._checked_ids(ids)
        checks.check_cu_seqlens("cu_seqlens", cu_seqlens, ids.size)
        self._check_cache(cache, cu_seqlens)
        lengths = cache.lengths_after(np.diff(cu_seqlens).astype(np.int32))
        if int(lengths.max()) > self.config.seq_length:
            msg = (
                f"the sequence would have {lengths.max()} tokens, but the model's seq_length is "
                f"{self.config.seq_length}; shorten it"
            )
            raise ValueError(msg)
        checks.check_pages(
            cache.block_table,
            lengths,
            batch=lengths.size,
            num_pages=len(cache.k[0]),
            page_size=cache.k[0].shape[2],
        )
        checks.check_rope_lengths(cu_seqlens, lengths, self.config.seq_length)
        if cache.device_views is None:
            pages = [page for pair in zip(cache.k, cache.v, strict=True) for page in pair]
            cache.device_views = tuple(ms.Tensor.from_numpy(page) for page in pages)
        prefix_len = np.zeros_like(lengths)
        small = (ids, rows, cache.block_table, cu_seqlens, lengths, prefix_len)
        tensors = [ms.Tensor(array) for array in small]
        logits = self._call((*tensors, *self._angles, *self._weights, *cache.device_views))
        if not np.isfinite(logits).all():
            msg = (
                "the logits hold NaN or infinity; the weights are damaged, or overflow the "
                f"{self.cache_dtype} cache (try cache_dtype='float32')"
            )
            raise FloatingPointError(msg)
        cache.lengths[:] = lengths
        return logits

    def _call(self, arguments: tuple[ms.Tensor, ...]) -> npt.NDArray[np.float32]:
        """Run the graph; the first call compiles it."""
        kept: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if not self._compiled and self._graph_folder is not None:
            kept = compile_cache(self._graph_folder, self._graph_key())
        try:
            with deferred_interrupts(), _RUNTIME, kept:
                logits: npt.NDArray[np.float32] = self._cell(*arguments).asnumpy()
        except RuntimeError:
            # After a failure inside a custom operator the compiled graph refuses every later call.
            self._cell = self._build()
            raise
        self._compiled = True
        return logits

    def _build(self) -> Transformer:
        ms.set_context(mode=ms.GRAPH_MODE)
        self._compiled = False
        cache_dtype = ms.float16 if self.cache_dtype == np.float16 else ms.float32
        return Transformer(self.config, cache_dtype, self._weights[0].dtype)

    def _graph_key(self) -> str:
        return graph_key(self.config, self.cache_dtype.name, str(self._weights[0].dtype))

    def _checked_ids(self, ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        checks.check_array("ids", ids, "(T,)")
        if ids.size == 0:
            msg = "ids is empty; feed at least one token"
            raise ValueError(msg)
        if ids.dtype.kind not in "iu":
            msg = f"ids has dtype {ids.dtype}; token ids are integers"
            raise TypeError(msg)
        if int(ids.min()) < 0 or int(ids.max()) >= self.config.vocab_size:
            bad = ids.min() if ids.min() < 0 else ids.max()
            msg = f"ids holds {bad}; the vocabulary has ids 0 to {self.config.vocab_size - 1}"
            raise ValueError(msg)
        return np.ascontiguousarray(ids, dtype=np.int32)

    def _check_cache(self, cache: KVCache, cu_seqlens: npt.NDArray[np.int32]) -> None:
        if not isinstance(cache, KVCache):
            msg = f"cache is a {type(cache).__name__}; make one with this model's new_cache"
            raise TypeError(msg)
        if cache.lengths.size != cu_seqlens.size - 1:
            msg = (
                f"the cache has {cache.lengths.size} sequences and cu_seqlens names "
                f"{cu_seqlens.size - 1}; they must agree"
            )
            raise ValueError(msg)
        if bool(np.any(np.diff(cu_seqlens) < 1)):
            msg = f"cu_seqlens is {cu_seqlens.tolist()}; each sequence needs at least one token"
            raise ValueError(msg)
        shape = (self.config.num_kv_heads, self.config.head_dim)
        pages = cache.k[0]
        same = (pages.shape[1], pages.shape[3]) == shape and pages.dtype == self.cache_dtype
        if len(cache.k) != self.config.num_layers or not same:
            msg = "the cache was made for another model; make it with this model's new_cache"
            raise ValueError(msg)


def _device_weights(config: GLM2Config, weights: Mapping[str, Any]) -> tuple[ms.Tensor, ...]:
    """Bring the weights into the order and dtypes in which `Transformer` takes them."""
    embedding = weights[_EMBEDDING]
    if embedding.dtype != np.float16:  # only the rows of a prompt are widened
        embedding = _float32(embedding)
    output = embedding if config.tie_word_embeddings else weights[_OUTPUT]
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


def _float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(array, dtype=np.float32)  # the same memory where it is float32


def _split_interleaved_qkv(
    array: npt.NDArray[np.float32], config: GLM2Config
) -> npt.NDArray[np.float32]:
    """Re-lay rows that hold q, k, v of each head in turn as all q, all k, all v."""
    heads = array.reshape(config.num_heads, 3, config.head_dim, *array.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(0, 1)).reshape(array.shape)


def _rope_tables(config: GLM2Config) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return cos and sin (seq_length, rotary_dim / 2) of all positions, computed in float64."""
    exponents = np.arange(0, config.rotary_dim, 2) / config.rotary_dim
    inv_freq = config.rope_base**-exponents
    positions = np.arange(config.seq_length) / config.rope_position_scale
    angles = np.outer(positions, inv_freq)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
