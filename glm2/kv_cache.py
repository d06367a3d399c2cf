"""The paged K/V cache: pages of every layer, and which of them each sequence owns."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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

    Raises
    ------
    ValueError
        If a size is not positive.
    MemoryError
        If the pages cannot be reserved; the message says how many bytes they need.
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
    ) -> None:
        if max_tokens < 1 or num_seqs < 1:
            msg = f"max_tokens is {max_tokens} and num_seqs {num_seqs}; both must be positive"
            raise ValueError(msg)
        pages_per_seq = -(-max_tokens // PAGE_SIZE)
        shape = (num_seqs * pages_per_seq, num_kv_heads, PAGE_SIZE, head_dim)
        num_bytes = 2 * num_layers * int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            self.k = [np.zeros(shape, dtype) for _ in range(num_layers)]
            self.v = [np.zeros(shape, dtype) for _ in range(num_layers)]
        except (MemoryError, ValueError) as error:  # ValueError: more than numpy can count
            msg = (
                f"the K/V cache for {num_seqs} x {max_tokens} tokens needs {num_bytes / 1e9:.2f} GB, "
                "which this machine does not give; ask for a shorter context"
            )
            raise MemoryError(msg) from error
        self.max_tokens = max_tokens
        self.block_table = np.arange(shape[0], dtype=np.int32).reshape(num_seqs, pages_per_seq)
        self.lengths = np.zeros(num_seqs, np.int32)
        self.device_views: tuple[Any, ...] | None = None  # made once by the model that uses it

    @property
    def length(self) -> int:
        """Tokens cached of the longest sequence."""
        return int(self.lengths.max())

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length`` of each sequence."""
        if not 0 <= length <= self.length:
            msg = f"length is {length}; the cache holds {self.length} tokens, so 0 to that"
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
