"""Prompts in, texts out: what ``glm2 generate`` answers its lines with."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from glm2.batch import BatchModel, generate_batch
from glm2.generate import FinishReason
from glm2.sampling import Sampler
from glm2.streaming import TextStream
from glm2.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Completion:
    """One answer: its text without what stopped it, and why it ended."""

    response: str
    finish_reason: FinishReason
    prompt_tokens: int
    new_tokens: int


def complete(
    model: BatchModel[Any],
    prompts: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    samplers: Sequence[Sampler],
    *,
    stop_ids: Collection[int],
    stop_strings: Sequence[str] = (),
    max_new_tokens: int,
    max_length: int,
) -> list[Completion]:
    """Continue each prompt and decode what came.

    Parameters
    ----------
    model, prompts, samplers, stop_ids, max_new_tokens, max_length
        As `glm2.batch.generate_batch` takes them, errors too.
    tokenizer : Tokenizer
    stop_strings : sequence of str
        An answer ends before the first of them.

    Returns
    -------
    completions : list of Completion
        In the order of the prompts.
    """
    streams = [TextStream(tokenizer, stop_strings) for _ in prompts]

    def on_token(index: int, token: int) -> bool:
        streams[index].push(token)
        return streams[index].stopped

    made = generate_batch(
        model,
        prompts,
        samplers,
        stop_ids=stop_ids,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        on_token=on_token,
    )
    for stream in streams:
        stream.flush()
    return [
        Completion(stream.text, generated.finish_reason, len(prompt), len(generated.ids))
        for stream, generated, prompt in zip(streams, made, prompts, strict=True)
    ]
