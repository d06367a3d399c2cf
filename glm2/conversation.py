"""One turn of a conversation as the published ``chat`` and ``stream_chat`` run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from glm2.beam_search import BeamParams, beam_search
from glm2.chat_tokenizer import ChatTokenizer
from glm2.generate import check_lengths, stream_tokens
from glm2.kv_cache import KVCache
from glm2.model import GLM2Model
from glm2.prompt import Message, build_continuation, build_prompt, read_history
from glm2.response import clean_response, process_turns
from glm2.sampling import Sampler, SamplingParams
from glm2.tokenizer import StreamDecoder


@dataclasses.dataclass
class PastKeyValues:
    """What `glm2.ChatGLM.stream_chat` hands from one turn to the next.

    Parameters
    ----------
    cache : KVCache
    ids : list of int
        Prompts and answers so far; the last of them may not be in the cache yet.
    """

    cache: KVCache
    ids: list[int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """A question and what came before it.

    Parameters
    ----------
    tokenizer : ChatTokenizer
    query : Message
    history : list
        Pairs (question, answer) in ChatGLM2, else dicts with ``role`` and ``content``.
    stop_ids : collection of int
    """

    tokenizer: ChatTokenizer
    query: Message
    history: list[Any]
    stop_ids: Collection[int]

    @property
    def round_number(self) -> int:
        """Number of this round in ChatGLM2, from 1."""
        return 1 + sum(message.role == "assistant" for message in read_history(self.history))

    def prompt(self) -> list[int]:
        """Encode the whole conversation."""
        messages = [*read_history(self.history), self.query]
        return build_prompt(self.tokenizer.tokenizer, messages, self.tokenizer.chat_format)

    def continuation(self) -> list[int]:
        """Encode the question alone, to follow a cached conversation."""
        return build_continuation(
            self.tokenizer.tokenizer, self.query, self.tokenizer.chat_format, self.round_number
        )


@dataclasses.dataclass(frozen=True)
class Answer:
    """The answer so far, the history with it, and what the next turn can go on from."""

    response: Any
    history: list[Any]
    past: PastKeyValues | None


def run_turn(
    model: GLM2Model,
    turn: Turn,
    sampling: SamplingParams,
    *,
    past: PastKeyValues | None,
    num_beams: int,
    max_length: int,
    max_new_tokens: int,
) -> Iterator[Answer]:
    """Answer ``turn``, yielding the answer whenever it grows, and at its end.

    Parameters
    ----------
    model : GLM2Model
    turn : Turn
    sampling : SamplingParams
    past : PastKeyValues or None
        Changed in place; None encodes the whole conversation into a new cache.
    num_beams : int
        More than 1 yields the whole answer at once.
    max_length, max_new_tokens : int
        Most tokens of the conversation, and of the answer.

    Raises
    ------
    ContextLengthError, ValueError
        If the conversation has no room or cannot be encoded.
    ToolCallError
        At the end of an answer that calls a tool in a way that cannot be read.
    """
    BeamParams(num_beams=num_beams)  # refuses what is no number of beams
    if num_beams > 1:
        if past is not None:
            msg = f"num_beams is {num_beams}; a beam search cannot go on from past_key_values"
            raise ValueError(msg)
        yield _beam_turn(model, turn, sampling, num_beams, max_length, max_new_tokens)
        return
    if not isinstance(past, PastKeyValues | None):
        msg = f"past_key_values is a {type(past).__name__}; pass what stream_chat yielded"
        raise TypeError(msg)
    if past is None:
        new = turn.prompt()
        check_lengths(0, len(new), max_length, model.config.seq_length, max_new_tokens)
        past = PastKeyValues(model.new_cache(max_length), [])
    else:
        if len(past.ids) < past.cache.length:
            msg = (
                f"past_key_values has {len(past.ids)} ids and a cache of {past.cache.length} tokens; "
                "pass what stream_chat yielded, unchanged"
            )
            raise ValueError(msg)
        new = turn.continuation()
        max_length = min(max_length, past.cache.max_tokens)
    num_cached, before = past.cache.length, past.ids
    feed = [*before[num_cached:], *new]
    check_lengths(num_cached, len(feed), max_length, model.config.seq_length, max_new_tokens)
    tokens = stream_tokens(
        model,
        feed,
        past.cache,
        Sampler(sampling),
        stop_ids=turn.stop_ids,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        cached_ids=before[:num_cached],
    )
    past.ids = [*before, *new]
    answer = AnswerText(turn.tokenizer)
    asked = False
    try:
        for token in tokens:
            asked = True
            past.ids.append(token)
            if answer.push(token):
                yield Answer(*_with_turn(turn, answer, final=False), past)
    except BaseException:
        if not asked:  # the question may be asked again
            past.cache.truncate(num_cached)
            past.ids = before
        raise
    yield Answer(*_with_turn(turn, answer, final=True), past)


def _beam_turn(
    model: GLM2Model,
    turn: Turn,
    sampling: SamplingParams,
    num_beams: int,
    max_length: int,
    max_new_tokens: int,
) -> Answer:
    """Answer by beam search, all at once and without a cache to go on from."""
    made = beam_search(
        model,
        turn.prompt(),
        BeamParams(num_beams=num_beams),
        sampling,
        stop_ids=turn.stop_ids,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
    )
    answer = AnswerText(turn.tokenizer)
    for token in made.ids:
        answer.push(token)
    return Answer(*_with_turn(turn, answer, final=True), None)


def _with_turn(turn: Turn, answer: AnswerText, *, final: bool) -> tuple[Any, list[Any]]:
    """Return the response that an answer is so far, and the history with this turn."""
    if turn.tokenizer.chat_format == "chatglm2":
        response = clean_response(answer.text)
        return response, [*turn.history, (turn.query.content, response)]
    asked = [*turn.history, {"role": turn.query.role, "content": turn.query.content}]
    if turn.tokenizer.chat_format == "chatml" or not final:
        response = clean_response(answer.text)
        return response, [*asked, {"role": "assistant", "metadata": "", "content": response}]
    return process_turns(answer.turns, asked)


def history_entries(history: Sequence[Any], chat_format: str) -> list[Any]:
    """Copy a history, with pairs as dicts in all formats but ChatGLM2's.

    Raises
    ------
    ValueError
        If an entry is neither a pair nor a dict.
    """
    if chat_format == "chatglm2":
        read_history(history)
        return list(history)
    entries: list[Any] = []
    for entry in history:
        if isinstance(entry, Mapping):
            entries.append(entry)
            continue
        entries += [
            {"role": message.role, "metadata": message.metadata, "content": message.content}
            for message in read_history([entry])
        ]
    return entries


class AnswerText:
    """Collects the text of an answer, and its turns, which ChatGLM3 parts with a role's token.

    Parameters
    ----------
    tokenizer : ChatTokenizer
    """

    _MARKER = "<|assistant|>"

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._decoder = StreamDecoder(tokenizer.tokenizer)
        chatglm3 = tokenizer.chat_format == "chatglm3"
        self._marker_id = tokenizer.tokenizer.special_id(self._MARKER) if chatglm3 else -1
        self.turns = [""]

    @property
    def text(self) -> str:
        """The whole answer, with the role's name where its token stood."""
        return self._MARKER.join(self.turns)

    def push(self, token_id: int) -> bool:
        """Take one id; whether the text has grown."""
        if token_id == self._marker_id:
            self.turns.append("")
            return True
        piece = self._decoder.push(token_id)
        self.turns[-1] += piece
        return bool(piece)
