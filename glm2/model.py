"""GLM2Model: a checkpoint ready to run. Owns the weights; the cache is an argument."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt

from glm2.compile_cache import compile_cache, graph_key
from glm2.config import read_checkpoint_config
from glm2.device_weights import device_weights
from glm2.diagnosis import first_bad_layer
from glm2.generate import PREFILL_CHUNK
from glm2.interrupts import deferred_interrupts
from glm2.kv_cache import KVCache
from glm2.memory import available_bytes
from glm2.packed_cache import packed_copy
from glm2.packed_format import PackedFormat
from glm2.prefix_encoder import encode_prefix, has_prefix_encoder, load_prefix_encoder
from glm2.quantized_checkpoint import load_packed
from glm2.transformer import Transformer
from glm2.weights import load_weights
from glm2_ops import checks
from glm2_reference.config import GLM2Config

_CACHE_DTYPES = ("float16", "float32")
# MindSpore runs one graph of a process at a time; two threads at once would crash it.
_RUNTIME = threading.Lock()


class GLM2Model:
    """A ChatGLM2 or ChatGLM3 model on MindSpore in graph mode.

    Activations are float32. Packed and float32 weights are used where they lie, mapped files included;
    16-bit ones are widened once.

    Parameters
    ----------
    config : GLM2Config
    weights : mapping of str to array
        By their published names, shaped as `glm2_reference.config.published_tensor_shapes` says, float16,
        bfloat16 or float32; or packed, as `glm2.quantized_checkpoint.load_packed` returns them.
    packed : PackedFormat, optional
        What packed weights are.
    cache_dtype : "float16" or "float32"
        Of the K/V cache, and of the operands of attention's two products.
    graph_folder : Path, optional
        Where compiled graphs are kept between processes; none are unless given.
    prefix : float, (num_layers, 2, pre_seq_len, num_kv_heads, head_dim), optional
        Keys and values of a P-tuning v2 prefix, which stands before every sequence.

    Attributes
    ----------
    device_weights : tuple of Tensor
        In the order in which `glm2.transformer.Transformer` takes them.
    rope_angles : tuple of Tensor
        cos and sin, (pre_seq_len + seq_length, rotary_dim / 2) float32.

    Raises
    ------
    ValueError
        If ``cache_dtype`` is neither, or head or hidden size are such that the operators do not serve
        them.
    MemoryError
        If the machine has less memory than the widened weights need.
    """

    def __init__(
        self,
        config: GLM2Config,
        weights: Mapping[str, Any],
        *,
        packed: PackedFormat | None = None,
        cache_dtype: str = "float16",
        graph_folder: Path | None = None,
        prefix: npt.NDArray[Any] | None = None,
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
        if config.hidden_size > checks.MAX_HIDDEN_SIZE:
            msg = (
                f"hidden_size is {config.hidden_size}; the norm operator serves up to "
                f"{checks.MAX_HIDDEN_SIZE}"
            )
            raise ValueError(msg)
        self.config = config
        self.cache_dtype = np.dtype(cache_dtype)
        self._graph_folder = graph_folder
        self._prefix = prefix
        self._num_prefix = 0 if prefix is None else prefix.shape[2]
        self.packed = packed
        self.device_weights = device_weights(config, weights, packed)
        tables = _rope_tables(config, self._num_prefix)
        self.rope_angles = tuple(ms.Tensor.from_numpy(table) for table in tables)
        self._compiled = False
        self._cell = self._build()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        cache_dtype: str = "float16",
        graph_folder: Path | None = None,
        prefix_encoder: str | Path | None = None,
        activation_bits: int | None = None,
    ) -> GLM2Model:
        """Open a checkpoint folder: floats, a published INT8 or INT4 one, or a packed one.

        Parameters
        ----------
        folder : str or Path
            See `glm2.weights.load_weights`, also for its errors. A published INT8 or INT4 folder is
            packed once, into the user's cache folder.
        cache_dtype, graph_folder
            As the class takes them.
        prefix_encoder : str or Path, optional
            Folder of a P-tuning v2 checkpoint; see `glm2.prefix_encoder.load_prefix_encoder`.
            ``folder`` itself is one where it holds an encoder, or config.json has ``pre_seq_len``.
        activation_bits : 16 or 8, optional
            Of products with quantised weights; what the packed checkpoint says unless given.
        """
        checkpoint = read_checkpoint_config(folder)
        if checkpoint.quantization_bit is not None:
            folder = packed_copy(checkpoint)
            checkpoint = read_checkpoint_config(folder)
        packed = checkpoint.packed
        if packed is not None:
            weights = load_packed(Path(folder), checkpoint.config, packed)
            if activation_bits is not None:
                packed = dataclasses.replace(packed, activation_bits=activation_bits)
        elif activation_bits is not None:
            msg = f"activation_bits is {activation_bits}, but {folder} holds floats; run glm2 convert first"
            raise ValueError(msg)
        else:
            weights = load_weights(folder, checkpoint.config)
        if prefix_encoder is None and (
            checkpoint.pre_seq_len is not None or has_prefix_encoder(folder)
        ):
            prefix_encoder = folder
        prefix = None
        if prefix_encoder is not None:
            prefix = encode_prefix(
                load_prefix_encoder(prefix_encoder, checkpoint.config), checkpoint.config
            )
        return cls(
            checkpoint.config,
            weights,
            packed=packed,
            cache_dtype=cache_dtype,
            graph_folder=graph_folder,
            prefix=prefix,
        )

    def new_cache(self, max_tokens: int, *, num_seqs: int = 1) -> KVCache:
        """Return an empty cache for sequences of up to ``max_tokens`` tokens."""
        return KVCache(
            num_layers=self.config.num_layers,
            num_kv_heads=self.config.num_kv_heads,
            head_dim=self.config.head_dim,
            max_tokens=max_tokens,
            num_seqs=num_seqs,
            dtype=self.cache_dtype,
            prefix=self._prefix,
        )

    def forward(
        self, ids: npt.NDArray[np.int32], cache: KVCache, *, prefix_len: int = 0
    ) -> npt.NDArray[np.float32]:
        """Append tokens to a sequence and predict what follows the last one.

        Parameters
        ----------
        ids : int32, (T,)
            At least one token.
        cache : KVCache
            Of one sequence; holds the tokens before these, and these afterwards.
        prefix_len : int
            Positions before it are visible to every token: part A of blank infilling. All of them
            must be among ``ids``, or before them and appended with the same ``prefix_len``.

        Returns
        -------
        logits : float32, (vocab_size,)

        Raises
        ------
        ValueError
            If an id is outside the vocabulary, there are none, or the cache or the model's context
            has no room.
        FloatingPointError
            If the logits are not numbers; the message names the first layer that went bad.
        """
        ids = np.asarray(ids)
        cu_seqlens = np.array([0, ids.size], np.int32)
        prefixes = np.array([prefix_len], np.int32)
        return self.forward_ragged(ids, cu_seqlens, cache, prefix_len=prefixes)[0]

    def forward_ragged(
        self,
        ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int32],
        cache: KVCache,
        *,
        prefix_len: npt.NDArray[np.int32] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Append tokens to several sequences at once.

        Parameters
        ----------
        ids : int32, (T,)
            Tokens of all sequences, at least one.
        cu_seqlens : int32, (B + 1,)
            Sequence b gets ``ids[cu_seqlens[b]:cu_seqlens[b + 1]]``, which may be empty.
        cache : KVCache
            Of B sequences.
        prefix_len : int32, (B,), optional
            See `forward`.

        Returns
        -------
        logits : float32, (R, vocab_size)
            Of the last token of each of the R sequences that got tokens.

        Raises
        ------
        ValueError, FloatingPointError
            As `forward` does.
        """
        checks.check_cu_seqlens("cu_seqlens", cu_seqlens, np.size(ids))
        got_tokens = np.diff(cu_seqlens) > 0
        rows = (cu_seqlens[1:] - 1)[got_tokens].astype(np.int32)
        return self._run(ids, cu_seqlens, cache, rows, prefix_len)

    def logits(self, ids: npt.NDArray[np.int32], *, prefix_len: int = 0) -> npt.NDArray[np.float32]:
        """Return the logits (T, vocab_size) float32 of all tokens of one sequence ``ids`` (T,).

        A chunk a forward pass, so that a long text takes little more memory than its logits.
        ``prefix_len`` and errors are those of `forward`; MemoryError if there is no room for the logits.
        """
        ids = self._checked_ids(np.asarray(ids))
        self._check_seq_length(ids.size)
        num_bytes, available = 4 * ids.size * self.config.vocab_size, available_bytes()
        if available is not None and num_bytes > available:
            msg = (
                f"the logits of {ids.size} tokens need {num_bytes / 1e9:.1f} GB and this machine has "
                f"{available / 1e9:.1f} GB free; pass a shorter text"
            )
            raise MemoryError(msg)
        logits = np.empty((ids.size, self.config.vocab_size), np.float32)
        cache = self.new_cache(ids.size)
        prefixes = np.array([prefix_len], np.int32)
        start, size = 0, max(PREFILL_CHUNK, prefix_len)
        while start < ids.size:
            chunk = ids[start : start + size]
            rows = np.arange(chunk.size, dtype=np.int32)
            cu_seqlens = np.array([0, chunk.size], np.int32)
            logits[start : start + size] = self._run(chunk, cu_seqlens, cache, rows, prefixes)
            start, size = start + chunk.size, PREFILL_CHUNK
        return logits

    def _run(
        self,
        ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int32],
        cache: KVCache,
        rows: npt.NDArray[np.int32],
        prefix_len: npt.NDArray[np.int32] | None,
    ) -> npt.NDArray[np.float32]:
        """Check everything, run the graph, and only then advance the cache."""
        ids = self._checked_ids(ids)
        checks.check_cu_seqlens("cu_seqlens", cu_seqlens, ids.size)
        self._check_cache(cache, cu_seqlens)
        lengths = cache.lengths_after(np.diff(cu_seqlens).astype(np.int32))
        self._check_seq_length(int(lengths.max()))
        prefixes = _checked_prefixes(prefix_len, cache.lengths, lengths)
        slots = lengths + np.int32(self._num_prefix)
        checks.check_pages(
            cache.block_table,
            slots,
            batch=slots.size,
            num_pages=len(cache.k[0]),
            page_size=cache.k[0].shape[2],
        )
        max_slots = self.config.seq_length + self._num_prefix
        checks.check_rope_lengths(cu_seqlens, slots, max_slots)
        if cache.device_views is None:
            pages = [page for pair in zip(cache.k, cache.v, strict=True) for page in pair]
            cache.device_views = tuple(ms.Tensor.from_numpy(page) for page in pages)
        prefixes = np.where(prefixes > 0, prefixes + np.int32(self._num_prefix), 0)
        small = (ids, rows, cache.block_table, cu_seqlens, slots, prefixes.astype(np.int32))
        tensors = [ms.Tensor(array) for array in small]
        arguments = (*tensors, *self.rope_angles, *self.device_weights, *cache.device_views)
        logits = self._call(arguments)
        if not np.isfinite(logits).all():
            raise FloatingPointError(self._explain(arguments))
        cache.lengths[:] = lengths
        return logits

    def _explain(self, arguments: tuple[ms.Tensor, ...]) -> str:
        """Find the first layer whose output is not finite, and what to do about it."""
        with deferred_interrupts(), _RUNTIME:
            layer = first_bad_layer(self._cell, arguments, self.device_weights)
        return (
            f"the logits hold NaN or infinity; the first bad layer is {layer}. The weights are "
            f"damaged, or overflow the {self.cache_dtype} cache (try cache_dtype='float32')"
        )

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
        cell = Transformer(self.config, cache_dtype, self.device_weights[0].dtype, self.packed)
        # So named, a graph once compiled is run without comparing 400 arguments with it at each call.
        cell.phase = "increment"
        return cell

    def _graph_key(self) -> str:
        dtypes = (self.cache_dtype.name, str(self.device_weights[0].dtype))
        return graph_key(self.config, *dtypes, str(self.packed))

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

    def _check_seq_length(self, length: int) -> None:
        if length > self.config.seq_length:
            msg = (
                f"the sequence would have {length} tokens, but the model's seq_length is "
                f"{self.config.seq_length}; shorten it"
            )
            raise ValueError(msg)

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
        shape = (self.config.num_kv_heads, self.config.head_dim)
        pages = cache.k[0]
        same = (pages.shape[1], pages.shape[3]) == shape and pages.dtype == self.cache_dtype
        if (len(cache.k), cache.num_prefix) != (
            self.config.num_layers,
            self._num_prefix,
        ) or not same:
            msg = "the cache was made for another model; make it with this model's new_cache"
            raise ValueError(msg)


def _checked_prefixes(
    prefix_len: npt.NDArray[np.int32] | None,
    before: npt.NDArray[np.int32],
    after: npt.NDArray[np.int32],
) -> npt.NDArray[np.int32]:
    """Refuse a bidirectional prefix that is not appended as a whole, for what came first saw less."""
    if prefix_len is None:
        return np.zeros_like(after)
    prefixes = np.asarray(prefix_len, np.int32)
    if prefixes.shape != after.shape:
        msg = f"prefix_len has shape {prefixes.shape}; expected {after.shape}, one a sequence"
        raise ValueError(msg)
    split = (prefixes < 0) | (prefixes > after) | ((before > 0) & (before < prefixes))
    if split.any():
        b = int(np.flatnonzero(split)[0])
        msg = (
            f"prefix_len is {prefixes[b]} and the tokens are {before[b]} to {after[b] - 1}; feed the "
            "whole bidirectional prefix in one call"
        )
        raise ValueError(msg)
    return prefixes


def _rope_tables(
    config: GLM2Config, num_prefix: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return cos and sin (num_prefix + seq_length, rotary_dim / 2), computed in float64.

    A token's row is its slot in the cache. The slots of a P-tuning prefix have rows that no token
    uses: the prefix is not rotated, and positions start at 0 after it.
    """
    exponents = np.arange(0, config.rotary_dim, 2) / config.rotary_dim
    inv_freq = config.rope_base**-exponents
    positions = np.maximum(np.arange(-num_prefix, config.seq_length), 0)
    angles = np.outer(positions / config.rope_position_scale, inv_freq)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
