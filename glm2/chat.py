"""A conversation with a model: history, reuse of the cache, streamed answers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator
from typing import Any

from glm2.config import CheckpointConfig
from glm2.generate import ContextLengthError, FinishReason, Model, stream_tokens
from glm2.prompt import Message, build_prompt, stop_ids
from glm2.sampling import Sampler, SamplingParams
from glm2.tokenizer import StreamDecoder, Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TurnStats:
    """What one turn cost.

    Parameters
    ----------
    prompt_tokens, cached_tokens, new_tokens : int
        Tokens of the whole prompt, those of them that were cached already, tokens of the answer.
    prefill_s, decode_s : float
        Seconds to the first token, and from the first to the last.
    finish_reason : "stop", "max_new_tokens", "max_length" or "interrupted"
        Why the answer ended.
    """

    prompt_tokens: int
    cached_tokens: int
    new_tokens: int
    prefill_s: float
    decode_s: float
    finish_reason: str


class ChatSession:
    """A conversation that feeds the model only what is new.

    Parameters
    ----------
    model : Model
        `glm2.model.GLM2Model` or one with the same methods.
    tokenizer : Tokenizer
        The checkpoint's.
    checkpoint : CheckpointConfig
        Prompt format, stop tokens and length limit.
    system : str, optional
        System message; the checkpoint's default unless given.
    sampling : SamplingParams, optional
        The checkpoint's default unless given.
    max_new_tokens : int, optional
        Most tokens of one answer; as many as the context holds unless given.

    Raises
    ------
    ValueError
        If the checkpoint's prompt format has no system message and one is given.

    Notes
    -----
    Every turn encodes the whole conversation, keeps the longest start of it that the cache
    already holds, and feeds the rest. This is exact: the model sees the same ids as without a
    cache, also where an answer encodes differently from the tokens that the model chose.
    """

    def __init__(
        self,
        model: Model[Any],
        tokenizer: Tokenizer,
        checkpoint: CheckpointConfig,
        *,
        system: str | None = None,
        sampling: SamplingParams | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        if system is not None and checkpoint.chat_format == "chatglm2":
            msg = "ChatGLM2 has no system message; put the text into the first question"
            raise ValueError(msg)
        self._model = model
        self._tokenizer = tokenizer
        self._checkpoint = checkpoint
        self._sampler = Sampler(sampling or checkpoint.sampling)
        self._max_new_tokens = checkpoint.max_length if max_new_tokens is None else max_new_tokens
        self._stop_ids = stop_ids(tokenizer, checkpoint.chat_format) | {*checkpoint.eos_token_ids}
        self._system = checkpoint.default_system if system is None else system
        self._cache = model.new_cache(checkpoint.max_length)
        self._cached_ids: list[int] = []
        self._messages: list[Message] = []
        self.last_turn: TurnStats | None = None
        self.clear()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, the system message included."""
        return tuple(self._messages)

    def clear(self) -> None:
        """Forget the conversation; the system message stays."""
        self._messages = [Message("system", self._system)] if self._system else []

    def stream(self, text: str) -> Generator[str, None, None]:
        """Ask ``text`` and yield the answer's text as it comes.

        An answer that is interrupted (the generator is closed, or KeyboardInterrupt) stays in the
        conversation as far as it got; a turn that fails or yields nothing before it is
        interrupted leaves the conversation as it was.

        Raises
        ------
        ContextLengthError
            If the conversation with ``text`` leaves no room for an answer.
        """
        messages = [*self._messages, Message("user", text)]
        prompt = build_prompt(self._tokenizer, messages, self._checkpoint.chat_format)
        self._check_room(len(prompt))
        num_cached = self._keep_common(prompt)
        answer: list[str] = []
        try:
            yield from self._answer(prompt, num_cached, answer)
        except (GeneratorExit, KeyboardInterrupt):
            if answer:
                self._messages = [*messages, Message("assistant", "".join(answer))]
            raise
        self._messages = [*messages, Message("assistant", "".join(answer))]

    def _answer(
        self, prompt: list[int], num_cached: int, answer: list[str]
    ) -> Generator[str, None, None]:
        """Generate, decode and clean one answer; ``answer`` receives what is yielded."""
        decoder = StreamDecoder(self._tokenizer)
        cleaner = _AnswerCleaner(self._checkpoint.chat_format != "chatml")
        new_ids: list[int] = []
        started_s = first_s = last_s = time.perf_counter()
        reason: FinishReason | None = None
        tokens = stream_tokens(
            self._model,
            prompt[num_cached:],
            self._cache,
            self._sampler,
            stop_ids=self._stop_ids,
            max_new_tokens=self._max_new_tokens,
            max_length=self._checkpoint.max_length,
            cached_ids=prompt[:num_cached],
        )
        try:
            while reason is None:
                try:
                    token = next(tokens)
                except StopIteration as end:
                    reason = end.value
                    piece = cleaner.flush()
                else:
                    last_s = time.perf_counter()
                    first_s = first_s if new_ids else last_s
                    new_ids.append(token)
                    piece = cleaner.push(decoder.push(token))
                if piece:
                    answer.append(piece)
                    yield piece
        finally:
            tokens.close()
            self._cached_ids = [*prompt, *new_ids][: self._cache.length]
            self.last_turn = TurnStats(
                prompt_tokens=len(prompt),
                cached_tokens=num_cached,
                new_tokens=len(new_ids),
                prefill_s=first_s - started_s,
                decode_s=last_s - first_s,
                finish_reason=reason or "interrupted",
            )

    def _keep_common(self, prompt: list[int]) -> int:
        """Cut the cache to the start it shares with ``prompt``, and return that length."""
        common = 0
        most = min(len(self._cached_ids), len(prompt) - 1)  # one token must be fed to get logits
        while common < most and self._cached_ids[common] == prompt[common]:
            common += 1
        self._cache.truncate(common)
        self._cached_ids = prompt[:common]
        return common

    def _check_room(self, num_prompt: int) -> None:
        """Refuse a conversation that leaves no room for an answer."""
        limit = self._checkpoint.max_length
        if num_prompt >= limit:
            msg = (
                f"the conversation has {num_prompt} tokens and the context holds {limit} (the "
                f"model's seq_length is {self._model.config.seq_length}), answer included; start "
                "a new conversation or ask for less"
            )
            raise ContextLengthError(msg)


class _AnswerCleaner:
    """Strips an answer and fills in the training date, as the published code does, in a stream."""

    _MARKER, _DATE = "[[训练时间]]", "2023年"

    def __init__(self, fill_in_date: bool) -> None:
        self._fill_in_date = fill_in_date
        self._held = ""
        self._started = False

    def push(self, text: str) -> str:
        """Take more text and return what no later text can change."""
        self._held += text
        if not self._started:
            self._held = self._held.lstrip()
            self._started = bool(self._held)
        if self._fill_in_date:
            self._held = self._held.replace(self._MARKER, self._DATE)
        ready = self._held[: len(self._held) - self._num_undecided()]
        self._held = self._held[len(ready) :]
        return ready

    def flush(self) -> str:
        """End the answer: the white space held back is not part of it."""
        rest, self._held = self._held.rstrip(), ""
        return rest

    def _num_undecided(self) -> int:
        """Count characters at the end that are white space or may become the marker."""
        if self._fill_in_date:
            for length in range(min(len(self._MARKER) - 1, len(self._held)), 0, -1):
                if self._held.endswith(self._MARKER[:length]):
                    before = self._held[:-length]
                    return length + len(before) - len(before.rstrip())
        return len(self._held) - len(self._held.rstrip())
