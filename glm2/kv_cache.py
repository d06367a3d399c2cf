"""The paged K/V cache: pages of every layer, and which of them each sequence owns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2.memory import available_bytes

PAGE_SIZE = 128  # tokens; one KV head of one fp16 page of ChatGLM2 is 32 KB, one burst on an NPU


class CacheFullError(ValueError):
    """A sequence has no page left for its next tokens."""


class KVCache:
    """Keys and values of the tokens seen so far, for a fixed number of sequences.

    Pages are reserved at once but take memory only when written.

    Parameters
    ----------
    num_layers, num_kv_heads, head_dim : int
        Of the model.
    max_tokens : int
        Longest sequence that it can hold.
    num_seqs : int
        Sequences that run together; 1 for a conversation.
    dtype : float16 or float32
        Of keys and values.
    prefix : float, (num_layers, 2, num_prefix, num_kv_heads, head_dim), optional
        Keys and values that stand before every sequence (P-tuning v2). They take slots of their own
        and count in no length.

    Raises
    ------
    ValueError
        If a size is not positive.
    MemoryError
        If the machine has less memory than the pages need once they are full.
    """

    def __init__(
        self,
        *,
        num_layers: int,
        num_kv_heads: int,
        head_dim: int,
        max_tokens: int,
        num_seqs: int = 1,
        dtype: npt.DTypeLike = np.float16,
        prefix: npt.NDArray[Any] | None = None,
    ) -> None:
        if max_tokens < 1 or num_seqs < 1:
            msg = f"max_tokens is {max_tokens} and num_seqs {num_seqs}; both must be positive"
            raise ValueError(msg)
        self.num_prefix = 0 if prefix is None else prefix.shape[2]
        pages_per_seq = -(-(max_tokens + self.num_prefix) // PAGE_SIZE)
        shape = (num_seqs * pages_per_seq, num_kv_heads, PAGE_SIZE, head_dim)
        num_bytes = 2 * num_layers * int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
        available = available_bytes()
        try:
            if available is not None and num_bytes > available:
                raise MemoryError
            self.k = [np.zeros(shape, dtype) for _ in range(num_layers)]
            self.v = [np.zeros(shape, dtype) for _ in range(num_layers)]
        except (MemoryError, ValueError) as error:  # ValueError: more than numpy can count
            have = "too little" if available is None else f"{available / 1e9:.2f} GB"
            msg = (
                f"the K/V cache for {num_seqs} x {max_tokens} tokens needs {num_bytes / 1e9:.2f} GB "
                f"and this machine has {have} free; ask for a shorter context or fewer sequences"
            )
            raise MemoryError(msg) from error
        self.max_tokens = max_tokens
        self.block_table = np.arange(shape[0], dtype=np.int32).reshape(num_seqs, pages_per_seq)
        self.lengths = np.zeros(num_seqs, np.int32)
        self.device_views: tuple[Any, ...] | None = None  # made once by the model that uses it
        self._num_shared = 0  # tokens in pages that may belong to several sequences
        if prefix is not None:
            self._write_prefix(prefix)

    @property
    def length(self) -> int:
        """Tokens cached of the longest sequence."""
        return int(self.lengths.max())

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length`` of each sequence.

        Raises
        ------
        ValueError
            If there are fewer, or `reorder` has let sequences share pages past that length: one
            would then write over what another reads.
        """
        if not 0 <= length <= self.length:
            msg = f"length is {length}; the cache holds {self.length} tokens, so 0 to that"
            raise ValueError(msg)
        if length < self._num_shared:
            msg = f"length is {length}, and sequences share their first {self._num_shared} tokens; make a new cache"
            raise ValueError(msg)
        np.minimum(self.lengths, length, out=self.lengths)

    def lengths_after(self, new_tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return the lengths once each sequence has that many more tokens.

        Raises
        ------
        CacheFullError
            If a sequence would outgrow its pages.
        """
        after = (self.lengths + new_tokens).astype(np.int32)
        if after.max() > self.max_tokens:
            msg = (
                f"the cache holds {self.max_tokens} tokens a sequence and {after.max()} are needed; "
                "make one with a larger max_tokens"
            )
            raise CacheFullError(msg)
        return after

    def reorder(self, parents: Sequence[int]) -> None:
        """Let sequence b go on from what sequence ``parents[b]`` holds: what a beam search does.

        Full pages are shared, for nobody writes them again. Only the page that a sequence is filling
        is copied, and none where a parent has one child.

        Raises
        ------
        ValueError
            If ``parents`` does not name one sequence for each.
        """
        count = len(self.lengths)
        if len(parents) != count or not all(0 <= parent < count for parent in parents):
            msg = f"parents is {list(parents)}; expected {count} numbers from 0 to {count - 1}"
            raise ValueError(msg)
        old, table = self.block_table, self.block_table[list(parents)]
        keepers = {parent: child for child, parent in reversed(list(enumerate(parents)))}
        free = iter(sorted(set(range(old.size)) - set(old[list(keepers)].ravel().tolist())))
        for child, parent in enumerate(parents):
            if keepers[parent] == child:  # the first child takes over its parent's pages
                continue
            num_full, in_last = divmod(int(self.lengths[parent]) + self.num_prefix, PAGE_SIZE)
            self._num_shared = max(self._num_shared, num_full * PAGE_SIZE - self.num_prefix)
            for slot in range(num_full, table.shape[1]):
                table[child, slot] = next(free)
            if in_last:
                for pages in (*self.k, *self.v):
                    pages[table[child, num_full]] = pages[old[parent, num_full]]
        self.block_table = table
        self.lengths = self.lengths[list(parents)]

    def _write_prefix(self, prefix: npt.NDArray[Any]) -> None:
        """Put the prefix into the first slots of each sequence."""
        for layer, (k, v) in enumerate(prefix):
            for slot in range(self.num_prefix):
                pages = self.block_table[:, slot // PAGE_SIZE]
                self.k[layer][pages, :, slot % PAGE_SIZE] = k[slot]
                self.v[layer][pages, :, slot % PAGE_SIZE] = v[slot]
