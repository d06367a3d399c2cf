"""Greedy generation: token ids in, token ids out; never text."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from glm2_reference.kv_cache import KVCache
from glm2_reference.model import GLM2Model


def generate(
    model: GLM2Model,
    ids: Sequence[int],
    *,
    max_new_tokens: int,
    stop_ids: Collection[int] = (),
    cache: KVCache | None = None,
    prefix_len: int = 0,
) -> list[int]:
    """Extend ``ids`` by the likeliest token, again and again.

    One prefill of ``ids``, then one decode a token, on the same cache.

    Parameters
    ----------
    model : GLM2Model
    ids : sequence of int
        The prompt, or with a ``cache`` what follows it.
    max_new_tokens : int
    stop_ids : collection of int
        Ids that end the text: 2 in ChatGLM2, 2, 64795 and 64797 in ChatGLM3.
    cache : KVCache or None
        Holds earlier text, and afterwards ``ids`` and every new token but the last, which no
        forward pass has read yet: begin a second turn's ``ids`` with it.
    prefix_len : int
        See `GLM2Model.forward`.

    Returns
    -------
    new_ids : list of int
        At most ``max_new_tokens``; the last may be a stop id.

    Raises
    ------
    ValueError
        If there is nothing to generate from or to, or if ``max_new_tokens`` more would not fit the
        model's seq_length or the cache.

    References
    ----------
    ChatGLM2-6B ``generation_config.json`` and ``transformers`` greedy search.
    """
    if max_new_tokens < 1 or len(ids) == 0:
        msg = (
            f"ids hold {len(ids)} tokens and max_new_tokens is {max_new_tokens}; expected 1 or more"
        )
        raise ValueError(msg)
    cached = 0 if cache is None else cache.length - model.num_prefix
    total = cached + len(ids) + max_new_tokens - 1  # the last new token is never read
    if total > model.config.seq_length:
        msg = (
            f"{cached} cached tokens, {len(ids)} ids and {max_new_tokens} new tokens exceed the "
            f"model's seq_length {model.config.seq_length}; lower max_new_tokens"
        )
        raise ValueError(msg)
    if cache is None:
        cache = model.new_cache(total)
    cache.lengths_after(total - cached)

    new_ids: list[int] = []
    step = np.asarray(ids, np.int64)
    while True:
        logits = model.forward(step, cache=cache, prefix_len=prefix_len)
        new_ids.append(int(np.argmax(logits[-1])))
        if new_ids[-1] in stop_ids or len(new_ids) == max_new_tokens:
            return new_ids
        step = np.array(new_ids[-1:], np.int64)
