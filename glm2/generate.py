"""Generate token ids: prefill a prompt, then decode one token at a time."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from glm2.sampling import Sampler
from glm2_reference.config import GLM2Config

FinishReason = Literal["stop", "max_new_tokens", "max_length"]
PREFILL_CHUNK = 1024  # tokens of one forward pass: bounds the memory that a long prompt takes


class ContextLengthError(ValueError):
    """A prompt or conversation is longer than the model's context."""


class Cache(Protocol):
    """Keys and values of one sequence's tokens; `glm2.kv_cache.KVCache` is one."""

    @property
    def length(self) -> int:
        """Tokens cached."""

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first ``length``."""


CacheT = TypeVar("CacheT", bound=Cache)


class Model(Protocol[CacheT]):
    """What generation needs of a model; `glm2.model.GLM2Model` is one."""

    @property
    def config(self) -> GLM2Config:
        """Dimensions and constants."""

    def new_cache(self, max_tokens: int) -> CacheT:
        """Return an empty cache for one sequence."""

    def forward(
        self, ids: npt.NDArray[np.int32], cache: CacheT, *, prefix_len: int = 0
    ) -> npt.NDArray[np.float32]:
        """Append ids (T,) to the cache and return logits (vocab_size,) of the last one."""


def stream_tokens(
    model: Model[CacheT],
    ids: Sequence[int],
    cache: CacheT,
    sampler: Sampler,
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    max_length: int | None = None,
    cached_ids: Sequence[int] = (),
    prefix_len: int = 0,
    chunk_tokens: int = PREFILL_CHUNK,
) -> Generator[int, None, FinishReason]:
    """Prefill ``ids``, then yield new tokens until one ends the answer.

    Parameters
    ----------
    model : Model
        Computes logits and appends to ``cache``.
    ids : sequence of int
        Tokens to feed, not yet cached; at least one.
    cache : Cache
        May already hold the start of the sequence. When the generator ends, is closed or is
        interrupted, it holds a start of prompt and yielded tokens without a gap; the last token
        yielded is not in it.
    sampler : Sampler
        Chooses each token.
    stop_ids : collection of int
        Tokens that end the answer; they are not yielded.
    max_new_tokens : int
        Most tokens to yield; at least one.
    max_length : int, optional
        Most tokens of prompt and answer together; the model's seq_length unless given.
    cached_ids : sequence of int
        The tokens already in ``cache``, for the repetition penalty.
    prefix_len, chunk_tokens : int
        See `prefill`.

    Yields
    ------
    token : int

    Returns
    -------
    reason : "stop", "max_new_tokens" or "max_length"
        Why no more came.

    Raises
    ------
    ContextLengthError
        If the prompt leaves no room for an answer.
    ValueError
        If there is nothing to feed or ``max_new_tokens`` is not positive.
    FloatingPointError
        If the model's logits are not numbers.
    """
    limit = model.config.seq_length if max_length is None else max_length
    check_lengths(cache.length, len(ids), limit, model.config.seq_length, max_new_tokens)
    previous_ids = [*cached_ids, *ids]
    logits = prefill(model, ids, cache, prefix_len=prefix_len, chunk_tokens=chunk_tokens)
    for count in range(1, max_new_tokens + 1):
        token = sampler.sample(logits, previous_ids)
        if token in stop_ids:
            return "stop"
        yield token
        if cache.length + 1 >= limit:
            return "max_length"
        if count < max_new_tokens:
            previous_ids.append(token)
            logits = _forward(model, np.asarray([token], dtype=np.int32), cache)
    return "max_new_tokens"


def prefill(
    model: Model[CacheT],
    ids: Sequence[int],
    cache: CacheT,
    *,
    prefix_len: int = 0,
    chunk_tokens: int = PREFILL_CHUNK,
) -> npt.NDArray[np.float32]:
    """Append a prompt to the cache, a chunk a forward pass.

    Parameters
    ----------
    model, ids, cache
        As `stream_tokens` takes them.
    prefix_len : int
        Positions before it are visible to every token (part A of blank infilling); 0 in chat.
        They go into one chunk, however long.
    chunk_tokens : int
        Most tokens of a forward pass.

    Returns
    -------
    logits : float32, (vocab_size,)
        Of the last token.

    Raises
    ------
    ValueError
        If ``chunk_tokens`` is not positive, or whatever ``model.forward`` refuses.
    """
    if chunk_tokens < 1:
        msg = f"chunk_tokens is {chunk_tokens}; it must be at least 1"
        raise ValueError(msg)
    rest = np.asarray(ids, dtype=np.int32)
    while True:
        size = max(chunk_tokens, prefix_len - cache.length)
        logits = _forward(model, rest[:size], cache, prefix_len)
        rest = rest[size:]
        if not len(rest):
            return logits


def _forward(
    model: Model[CacheT], feed: npt.NDArray[np.int32], cache: CacheT, prefix_len: int = 0
) -> npt.NDArray[np.float32]:
    """Run the model; whatever interrupts it, the cache keeps no half-written tokens."""
    before = cache.length
    try:
        return model.forward(feed, cache, prefix_len=prefix_len)
    except BaseException:
        cache.truncate(before)
        raise


def check_lengths(
    num_cached: int, num_fed: int, limit: int, seq_length: int, max_new_tokens: int
) -> None:
    """Check that prompt and answer have room, before anything runs.

    Parameters
    ----------
    num_cached, num_fed : int
        Tokens of the prompt that are cached already, and those to feed.
    limit, seq_length, max_new_tokens : int
        Most tokens of the conversation, of the model's context and of the answer.

    Raises
    ------
    ContextLengthError
        If the prompt leaves no room for an answer.
    ValueError
        If there is nothing to feed or a limit makes no sense.
    TypeError
        If a limit is no integer.
    """
    if num_fed < 1:
        msg = "the prompt is empty; it needs at least one token, from which the next one follows"
        raise ValueError(msg)
    given: dict[str, Any] = {"max_length": limit, "max_new_tokens": max_new_tokens}
    for name, value in given.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool):
            msg = f"{name} is {value!r}; expected an integer"
            raise TypeError(msg)
    if not 1 <= limit <= seq_length:
        msg = f"max_length is {limit}; the model's seq_length allows 1 to {seq_length}"
        raise ValueError(msg)
    if max_new_tokens < 1:
        msg = f"max_new_tokens is {max_new_tokens}; it must be at least 1"
        raise ValueError(msg)
    num_prompt = num_cached + num_fed
    if num_prompt >= limit:
        msg = (
            f"the prompt has {num_prompt} tokens and the context holds {limit} (the model's "
            f"seq_length is {seq_length}), answer included; shorten the prompt"
        )
        raise ContextLengthError(msg)


def check_ids(ids: Sequence[int], vocab_size: int) -> None:
    """Raise ValueError if a token id is outside the vocabulary."""
    bad = [token for token in ids if not 0 <= token < vocab_size]
    if bad:
        msg = f"the prompt holds token id {bad[0]}; the vocabulary has ids 0 to {vocab_size - 1}"
        raise ValueError(msg)
