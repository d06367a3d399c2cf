"""Tokens a second of a model: decode at a context, prefill of a prompt, on caches filled with noise."""

from __future__ import annotations

import dataclasses
import statistics
import time

import numpy as np

from glm2.generate import PREFILL_CHUNK
from glm2.kv_cache import KVCache
from glm2.model import GLM2Model


@dataclasses.dataclass(frozen=True)
class Speed:
    """Tokens a second, of all sequences together: median and quartiles over the timed runs.

    Parameters
    ----------
    median, lower, upper : float
        Tokens/s.
    runs : int
    """

    median: float
    lower: float
    upper: float
    runs: int

    @classmethod
    def of(cls, tokens: int, seconds: list[float]) -> Speed:
        """Summarise runs that made ``tokens`` each."""
        slow, median, fast = (
            statistics.quantiles(seconds, n=4, method="inclusive")
            if len(seconds) > 1
            else seconds * 3
        )
        return cls(tokens / median, tokens / fast, tokens / slow, len(seconds))


def filled_cache(model: GLM2Model, context: int, *, batch: int = 1, room: int = 1) -> KVCache:
    """Return a cache that holds ``context`` tokens of noise a sequence, with room for more.

    What is cached does not change how long a step takes, and a long prompt takes minutes to prefill.
    """
    cache = model.new_cache(context + room, num_seqs=batch)
    rng = np.random.default_rng(0)
    page = rng.standard_normal(cache.k[0].shape[1:]).astype(cache.k[0].dtype)
    for pages in (*cache.k, *cache.v):
        pages[:] = page
    cache.lengths[:] = context
    return cache


def decode_step_s(model: GLM2Model, cache: KVCache) -> float:
    """Return the seconds of one greedy decode step of all sequences; the cache does not grow."""
    batch, context = cache.lengths.size, cache.length
    ids = np.arange(batch, dtype=np.int32) + 3
    started_s = time.perf_counter()
    logits = model.forward_ragged(ids, np.arange(batch + 1, dtype=np.int32), cache)
    logits.argmax(axis=1)
    took_s = time.perf_counter() - started_s
    cache.truncate(context)
    return took_s


def prefill_s(model: GLM2Model, cache: KVCache, num_tokens: int) -> float:
    """Return the seconds from a prompt of ``num_tokens`` to its first token; forgets the prompt."""
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, num_tokens).astype(np.int32)
    context = cache.length
    started_s = time.perf_counter()
    for first in range(0, num_tokens, PREFILL_CHUNK):
        logits = model.forward(ids[first : first + PREFILL_CHUNK], cache)
    int(logits.argmax())
    took_s = time.perf_counter() - started_s
    cache.truncate(context)
    return took_s
