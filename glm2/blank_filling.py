"""GLM's blank infilling: a text with blanks, read both ways, and what fills them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from glm2.chat_tokenizer import ChatTokenizer
from glm2.generate import stream_tokens
from glm2.pretrained import ChatGLM
from glm2.sampling import Sampler, SamplingParams

_BLANK = re.compile(r"\[(?:MASK|sMASK|gMASK)\]")


@dataclasses.dataclass(frozen=True)
class FilledText:
    """A text with its blanks filled, and what each was filled with, in order."""

    text: str
    fills: list[str]


def fill_blanks(
    model: ChatGLM,
    tokenizer: ChatTokenizer,
    text: str,
    *,
    sampling: SamplingParams | None = None,
    max_new_tokens: int = 128,
) -> FilledText:
    """Fill the blanks of a text, from left to right.

    Part A, the text with its blanks, sees itself both ways. Part B follows: for each blank ``sop``
    and what fills it, up to ``eop``, which sees part A and what stands before it in part B.

    Parameters
    ----------
    model : ChatGLM
    tokenizer : ChatTokenizer
    text : str
        Blanks are ``[MASK]`` (a short span), ``[sMASK]`` (a sentence) and ``[gMASK]`` (a long one).
    sampling : SamplingParams, optional
        Greedy unless given.
    max_new_tokens : int
        Most tokens of one blank.

    Returns
    -------
    filled : FilledText

    Raises
    ------
    ContextLengthError
        If text and fills are longer than the model's context.
    ValueError
        If the text has no blank.

    References
    ----------
    Du et al. 2022, GLM: General Language Model Pretraining with Autoregressive Blank Infilling.
    """
    part_a = tokenizer.encode_blanks(text)
    start, end = (tokenizer.tokenizer.special_id(name) for name in ("sop", "eop"))
    stop_ids = {end, *model.checkpoint.eos_token_ids}
    blanks = _BLANK.findall(text)
    limit = model.config.seq_length
    cache = model.model.new_cache(min(limit, len(part_a) + len(blanks) * (max_new_tokens + 1)))
    sampler = Sampler(sampling or SamplingParams(temperature=0.0))
    ids: list[int] = [*part_a]
    fills = []
    for _ in blanks:
        ids.append(start)
        num_cached = cache.length
        options: dict[str, Any] = {"prefix_len": len(part_a)} if num_cached == 0 else {}
        new_ids = list(
            stream_tokens(
                model.model,
                ids[num_cached:],
                cache,
                sampler,
                stop_ids=stop_ids,
                max_new_tokens=max_new_tokens,
                max_length=limit,
                cached_ids=ids[:num_cached],
                **options,
            )
        )
        ids += new_ids
        fills.append(tokenizer.tokenizer.decode(new_ids))
    pieces = iter(fills)
    return FilledText(_BLANK.sub(lambda _: next(pieces), text), fills)
