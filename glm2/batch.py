"""Generate for several prompts at once; each gets what it would get alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from glm2.generate import PREFILL_CHUNK, FinishReason, check_lengths
from glm2.sampling import Sampler
from glm2_reference.config import GLM2Config

Logits = npt.NDArray[np.float32]


class BatchCache(Protocol):
    """Keys and values of several sequences; `glm2.kv_cache.KVCache` is one."""

    lengths: npt.NDArray[np.int32]


CacheT = TypeVar("CacheT", bound=BatchCache)


class BatchModel(Protocol[CacheT]):
    """What batched generation needs of a model; `glm2.model.GLM2Model` is one."""

    @property
    def config(self) -> GLM2Config:
        """Dimensions and constants."""

    def new_cache(self, max_tokens: int, *, num_seqs: int) -> CacheT:
        """Return an empty cache."""

    def forward_ragged(
        self,
        ids: npt.NDArray[np.int32],
        cu_seqlens: npt.NDArray[np.int32],
        cache: CacheT,
        *,
        prefix_len: npt.NDArray[np.int32] | None = None,
    ) -> Logits:
        """Append tokens; logits of each sequence that got some."""


@dataclasses.dataclass(frozen=True)
class Generated:
    """What one prompt was continued with; ``ids`` without the stop token, if one came."""

    ids: list[int]
    finish_reason: FinishReason
    stop_id: int | None = None


def generate_batch(
    model: BatchModel[Any],
    prompts: Sequence[Sequence[int]],
    samplers: Sequence[Sampler],
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    max_length: int | None = None,
    prefix_lens: Sequence[int] | None = None,
    chunk_tokens: int = PREFILL_CHUNK,
    on_token: Callable[[int, int], bool] | None = None,
) -> list[Generated]:
    """Continue each prompt until a stop token, a length or ``on_token`` ends it.

    Parameters
    ----------
    model : BatchModel
    prompts : sequence of sequences of int
        Token ids, of any lengths; each at least one.
    samplers : sequence of Sampler
        One a prompt, so that what one draws does not depend on the others.
    stop_ids : collection of int
        Tokens that end an answer.
    max_new_tokens, max_length : int
        Most new tokens, and most tokens of prompt and answer together (the model's seq_length
        unless given).
    prefix_lens : sequence of int, optional
        Bidirectional prefix of each prompt; none unless given.
    chunk_tokens : int
        Most tokens of a prefill pass, all prompts together.
    on_token : callable, optional
        ``on_token(index, token)`` is called with each new token of prompt ``index``; True ends it.

    Returns
    -------
    generated : list of Generated
        In the order of the prompts.

    Raises
    ------
    ContextLengthError
        If a prompt leaves no room for an answer; the message has its number.
    ValueError
        If there are no prompts, one is empty, or a limit makes no sense.
    MemoryError
        If the machine has no memory for the cache of so many sequences.
    """
    seq_length = model.config.seq_length
    limit = seq_length if max_length is None else max_length
    if len(samplers) != len(prompts):
        msg = f"there are {len(prompts)} prompts and {len(samplers)} samplers; pass one for each"
        raise ValueError(msg)
    if chunk_tokens < 1:
        msg = f"chunk_tokens is {chunk_tokens}; it must be at least 1"
        raise ValueError(msg)
    if not prompts:
        msg = "there are no prompts; pass at least one"
        raise ValueError(msg)
    for index, prompt in enumerate(prompts):
        try:
            check_lengths(0, len(prompt), limit, seq_length, max_new_tokens)
        except ValueError as error:
            if len(prompts) == 1:
                raise
            msg = f"prompt {index}: {error}"
            raise type(error)(msg) from error
    longest = min(limit, max(map(len, prompts)) + max_new_tokens)
    cache = model.new_cache(longest, num_seqs=len(prompts))
    logits = prefill_batch(model, prompts, cache, prefix_lens or [0] * len(prompts), chunk_tokens)
    texts = [list(prompt) for prompt in prompts]
    reasons: dict[int, FinishReason] = {}
    stopped_at: dict[int, int] = {}
    active = list(range(len(prompts)))
    while active:
        going_on = []
        for index, row in zip(active, logits, strict=True):
            token = samplers[index].sample(row, texts[index])
            if token in stop_ids:
                reasons[index], stopped_at[index] = "stop", token
                continue
            texts[index].append(token)
            if on_token is not None and on_token(index, token):
                reasons[index] = "stop"
            elif len(texts[index]) >= limit:
                reasons[index] = "max_length"
            elif len(texts[index]) - len(prompts[index]) >= max_new_tokens:
                reasons[index] = "max_new_tokens"
            else:
                going_on.append(index)
        active = going_on
        if active:
            feeds = [texts[i][-1:] if i in active else [] for i in range(len(prompts))]
            logits = _feed(model, feeds, cache)
    return [
        Generated(text[len(prompt) :], reasons[index], stopped_at.get(index))
        for index, (text, prompt) in enumerate(zip(texts, prompts, strict=True))
    ]


def prefill_batch(
    model: BatchModel[CacheT],
    prompts: Sequence[Sequence[int]],
    cache: CacheT,
    prefix_lens: Sequence[int],
    chunk_tokens: int,
) -> Logits:
    """Feed all prompts, up to ``chunk_tokens`` a pass; a bidirectional prefix goes in whole.

    Returns
    -------
    logits : float32, (R, vocab_size)
        Of the last token of each of the R prompts that are not empty.
    """
    fed = [0] * len(prompts)
    ends: dict[int, Logits] = {}
    while len(ends) < sum(len(prompt) > 0 for prompt in prompts):
        feeds: list[Sequence[int]] = []
        room = chunk_tokens
        for index, prompt in enumerate(prompts):
            size = min(room, len(prompt) - fed[index])
            if fed[index] < prefix_lens[index] and size + fed[index] < prefix_lens[index]:
                # A bidirectional prefix goes in whole: now if nothing else has, or in a later pass.
                size = prefix_lens[index] if room == chunk_tokens else 0
            feeds.append(prompt[fed[index] : fed[index] + size])
            fed[index] += size
            room = max(0, room - size)
        rows = _feed(model, feeds, cache, np.array(prefix_lens, np.int32))
        served = [index for index, feed in enumerate(feeds) if len(feed)]
        for index, row in zip(served, rows, strict=True):
            if fed[index] == len(prompts[index]):
                ends[index] = row
    return np.stack([ends[index] for index in sorted(ends)])


def _feed(
    model: BatchModel[CacheT],
    feeds: Sequence[Sequence[int]],
    cache: CacheT,
    prefix_lens: npt.NDArray[np.int32] | None = None,
) -> Logits:
    """Run one forward pass over what each sequence gets, which may be nothing."""
    sizes = np.array([len(feed) for feed in feeds], np.int32)
    cu_seqlens = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    ids = np.concatenate([np.asarray(feed, np.int32) for feed in feeds])
    if prefix_lens is not None:
        prefix_lens = np.where(sizes > 0, prefix_lens, 0).astype(np.int32)
    return model.forward_ragged(ids, cu_seqlens, cache, prefix_len=prefix_lens)
