"""ChatGLM: a loaded checkpoint with the methods that users of the published code know."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2.batch import Generated, generate_batch
from glm2.beam_search import BeamParams, beam_search
from glm2.chat_tokenizer import ChatTokenizer
from glm2.config import CheckpointConfig, read_checkpoint_config
from glm2.conversation import Answer, PastKeyValues, Turn, history_entries, run_turn
from glm2.demo import cache_folder
from glm2.generate import check_lengths, stream_tokens
from glm2.hub import find_checkpoint
from glm2.input_ids import check_prefix_len, id_rows
from glm2.model import GLM2Model
from glm2.prompt import Message, stop_ids
from glm2.sampling import Sampler, SamplingParams
from glm2.streaming import Streamer, TextStream
from glm2_reference.config import GLM2Config

# Defaults of the published chat methods; top_k is that of the library they call.
_CHAT = SamplingParams(temperature=0.8, top_p=0.8, top_k=50)


class ChatGLM:
    """A ChatGLM2 or ChatGLM3 checkpoint, ready to generate and to chat.

    Parameters
    ----------
    model : GLM2Model
    checkpoint : CheckpointConfig
        Prompt format, stop tokens, limits and the publisher's sampling.
    """

    def __init__(self, model: GLM2Model, checkpoint: CheckpointConfig) -> None:
        self.model = model
        self.checkpoint = checkpoint

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        *,
        prefix_encoder: str | Path | None = None,
        cache_dtype: str = "float16",
        chat_format: str | None = None,
        revision: str | None = None,
        activation_bits: int | None = None,
    ) -> ChatGLM:
        """Open a checkpoint.

        Parameters
        ----------
        name_or_folder : str or Path
            A checkpoint folder; a short name, ``glm2_6b`` or ``glm3_6b``; or a hub id such as
            ``THUDM/chatglm3-6b``. Names are fetched with ``huggingface_hub``.
        prefix_encoder : str or Path, optional
            Folder of a P-tuning v2 checkpoint to put before every text.
        cache_dtype : "float16" or "float32"
            Of the K/V cache.
        chat_format : "chatglm2", "chatglm3" or "chatml", optional
            Overrides what the folder says.
        revision : str, optional
            Branch, tag or commit on the hub.
        activation_bits : 16 or 8, optional
            Of products with quantised weights; what the packed checkpoint says unless given.

        Raises
        ------
        FileNotFoundError
            If there is no such folder, or files are missing.
        ImportError
            If a name is to be fetched and ``huggingface_hub`` is not installed.
        ValueError
            If a file is damaged, or tensors do not fit the config.
        MemoryError
            If the machine has less memory than the weights need.
        """
        folder = find_checkpoint(name_or_folder, revision=revision)
        checkpoint = read_checkpoint_config(folder, chat_format)
        model = GLM2Model.from_pretrained(
            folder,
            cache_dtype=cache_dtype,
            graph_folder=cache_folder() / "graphs",
            prefix_encoder=prefix_encoder,
            activation_bits=activation_bits,
        )
        return cls(model, checkpoint)

    def eval(self) -> ChatGLM:
        """Return the model itself: it is never in training, but programs ask."""
        return self

    @property
    def config(self) -> GLM2Config:
        """Dimensions and constants."""
        return self.model.config

    def logits(self, ids: Any, *, prefix_len: int = 0) -> npt.NDArray[np.float32]:
        """Return the logits of every position of one text: what evaluations need.

        Parameters
        ----------
        ids : integers, (T,) or (1, T)
            A list, numpy array or MindSpore tensor.
        prefix_len : int
            Positions before it are visible to every token.

        Returns
        -------
        logits : float32, (T, vocab_size)
        """
        rows, _ = id_rows(ids, padded=False)
        if len(rows) != 1:
            msg = f"ids holds {len(rows)} texts; logits takes one at a time"
            raise ValueError(msg)
        check_prefix_len(prefix_len, self.config.seq_length)
        return self.model.logits(np.array(rows[0], np.int32), prefix_len=prefix_len)

    def generate(
        self,
        input_ids: Any,
        *,
        attention_mask: Any = None,
        position_ids: Any = None,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 50,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
        eos_token_id: int | Collection[int] | None = None,
        stop_strings: Sequence[str] = (),
        tokenizer: ChatTokenizer | None = None,
        streamer: Streamer | None = None,
        prefix_len: int = 0,
    ) -> list[int] | list[list[int]]:
        """Continue one text or several.

        Parameters
        ----------
        input_ids : integers, (T,) or (B, T), or a list of lists of any lengths
            A list, numpy array or MindSpore tensor. Rows may be padded left or right: with
            ``attention_mask``, tokens whose mask is 0 are left out; without, so is id 0 at either
            end of a row of a batch.
        attention_mask : integers, shaped as input_ids, optional
        position_ids : optional
            What a tokenizer returns beside the other two; they follow from the mask and are not read.
        max_length : int, optional
            Most tokens of prompt and answer together; the checkpoint's limit unless given.
        max_new_tokens : int, optional
            Most tokens of the answer. Where both are given, what is reached first ends it.
        do_sample : bool
            Draw tokens, as temperature, top_k and top_p say; else take the most likely.
        temperature, top_k, top_p, repetition_penalty, seed
            See `glm2.SamplingParams`. With a seed, each row draws what it would draw alone.
        num_beams, length_penalty, early_stopping
            See `glm2.beam_search.BeamParams`; 1 beam is no beam search.
        eos_token_id : int or collection of int, optional
            Tokens that end an answer; those of config.json unless given.
        stop_strings : sequence of str
            Strings that end an answer; they need ``tokenizer``.
        tokenizer : ChatTokenizer, optional
        streamer : Streamer, optional
            Gets each new token of the answer as it comes; for one text, without beams.
        prefix_len : int
            Positions before it see each other both ways (part A of blank infilling).

        Returns
        -------
        ids : list of int, or list of lists of int
            Nested as ``input_ids`` is: prompt without padding, then its continuation, the stop token
            included where one came.

        Raises
        ------
        ContextLengthError
            If a prompt leaves no room for an answer; the message has both numbers.
        ValueError, TypeError
            If an argument is wrong.
        """
        del position_ids
        check_prefix_len(prefix_len, self.config.seq_length)
        with contextlib.ExitStack() as stack:
            if streamer is not None:
                stack.callback(streamer.end)  # whatever happens: another thread may wait for it
            rows, nested = id_rows(input_ids, attention_mask)
            sampling = SamplingParams(
                temperature=temperature if do_sample else 0.0,
                top_k=top_k,
                top_p=top_p,
                repetition_penalty=repetition_penalty,
                seed=seed,
            )
            beams = BeamParams(
                num_beams=num_beams, length_penalty=length_penalty, early_stopping=early_stopping
            )
            if (streamer is not None or stop_strings) and num_beams > 1:
                msg = f"num_beams is {num_beams}; a streamer and stop_strings need one beam"
                raise ValueError(msg)
            if streamer is not None and len(rows) > 1:
                msg = f"input_ids holds {len(rows)} texts; a streamer takes one"
                raise ValueError(msg)
            watchers = _watchers(len(rows), stop_strings, tokenizer)

            def on_token(index: int, token: int) -> bool:
                if streamer is not None:
                    streamer.put([token])
                if not watchers:
                    return False
                watchers[index].push(token)
                return watchers[index].stopped

            limits: dict[str, Any] = self._limits(max_length, max_new_tokens)
            limits["stop_ids"] = self._stop_ids(eos_token_id)
            if num_beams > 1:
                made = [
                    beam_search(self.model, row, beams, sampling, prefix_len=prefix_len, **limits)
                    for row in rows
                ]
            else:
                made = generate_batch(
                    self.model,
                    rows,
                    [Sampler(sampling) for _ in rows],
                    prefix_lens=[prefix_len] * len(rows),
                    on_token=on_token,
                    **limits,
                )
            whole = [_whole(row, generated) for row, generated in zip(rows, made, strict=True)]
            return whole if nested else whole[0]

    def stream_generate(
        self,
        input_ids: Any,
        *,
        max_length: int | None = None,
        max_new_tokens: int | None = None,
        sampling: SamplingParams | None = None,
        eos_token_id: int | Collection[int] | None = None,
    ) -> Iterator[int]:
        """Yield the new tokens of one text as they come, without the stop token.

        Greedy unless ``sampling`` is given; the rest as `generate` takes it.
        """
        rows, _ = id_rows(input_ids)
        if len(rows) != 1:
            msg = f"input_ids holds {len(rows)} texts; stream_generate takes one"
            raise ValueError(msg)
        limits = self._limits(max_length, max_new_tokens)
        limit, most = limits["max_length"], limits["max_new_tokens"]
        check_lengths(0, len(rows[0]), limit, self.config.seq_length, most)
        return stream_tokens(
            self.model,
            rows[0],
            self.model.new_cache(min(limit, len(rows[0]) + most)),
            Sampler(sampling or SamplingParams(temperature=0.0)),
            stop_ids=self._stop_ids(eos_token_id),
            max_new_tokens=most,
            max_length=limit,
        )

    def chat(
        self,
        tokenizer: ChatTokenizer,
        query: str,
        history: Sequence[Any] | None = None,
        *,
        role: str = "user",
        num_beams: int = 1,
        **options: Any,
    ) -> tuple[Any, list[Any]]:
        """Answer a question.

        Parameters
        ----------
        tokenizer : ChatTokenizer
        query : str
        history : sequence, optional
            What an earlier call returned: pairs (question, answer) in ChatGLM2, else dicts with
            ``role``, ``content``, and in ChatGLM3 ``metadata`` and ``tools``. Not changed.
        role : str
            Of the query: "user", or in ChatGLM3 "observation" for the result of a tool.
        num_beams : int
        options
            ``max_length``, ``max_new_tokens``, ``do_sample``, ``temperature``, ``top_p``, ``top_k``,
            ``repetition_penalty`` and ``seed``; the publisher's settings unless given.

        Returns
        -------
        response : str or dict
            A dict with ``name`` and ``parameters`` or ``content`` where ChatGLM3 calls a tool.
        history : list
            With this turn.

        Raises
        ------
        ContextLengthError
            If the conversation leaves no room for an answer.
        ToolCallError
            If ChatGLM3 calls a tool in a way that cannot be read.
        """
        options = dict(options, num_beams=num_beams)
        answer = None
        for answer in self._turn(tokenizer, query, history, role, None, options):  # noqa: B007
            pass
        assert answer is not None  # a turn yields its end
        return answer.response, answer.history

    def stream_chat(
        self,
        tokenizer: ChatTokenizer,
        query: str,
        history: Sequence[Any] | None = None,
        *,
        role: str = "user",
        past_key_values: PastKeyValues | None = None,
        return_past_key_values: bool = False,
        **options: Any,
    ) -> Iterator[tuple[Any, ...]]:
        """Answer a question, yielding the answer so far whenever it grows.

        Parameters
        ----------
        tokenizer, query, history, role, options
            As `chat` takes them.
        past_key_values : PastKeyValues, optional
            From the turn before: only what is new is encoded and fed, as the published code does. The
            ids can then differ from those of a whole conversation encoded anew, by how an answer
            encodes and by the piece of a space before it. It is changed in place.
        return_past_key_values : bool
            Whether to yield them too.

        Yields
        ------
        response : str or dict
            As `chat` returns it; the text so far until the answer has ended.
        history : list
        past_key_values : PastKeyValues
            If asked for.
        """
        for answer in self._turn(tokenizer, query, history, role, past_key_values, options):
            if return_past_key_values:
                yield answer.response, answer.history, answer.past
            else:
                yield answer.response, answer.history

    def _turn(
        self,
        tokenizer: ChatTokenizer,
        query: str,
        history: Sequence[Any] | None,
        role: str,
        past: PastKeyValues | None,
        options: dict[str, Any],
    ) -> Iterator[Answer]:
        """Sort the options and run one turn."""
        chatglm = self.checkpoint.chat_format != "chatml"
        defaults, given = _CHAT if chatglm else self.checkpoint.sampling, dict(options)
        limits = self._limits(given.pop("max_length", None), given.pop("max_new_tokens", None))
        num_beams = given.pop("num_beams", 1)
        if not given.pop("do_sample", True):
            given["temperature"] = 0.0
        known = [field.name for field in dataclasses.fields(SamplingParams)]
        unknown = sorted(set(given) - set(known))
        if unknown:
            msg = (
                f"unknown options {', '.join(unknown)}; there are max_length, max_new_tokens, "
                f"num_beams, do_sample, {', '.join(known)}"
            )
            raise TypeError(msg)
        sampling = dataclasses.replace(defaults, **given)
        if tokenizer.chat_format != self.checkpoint.chat_format:
            msg = (
                f"the tokenizer writes {tokenizer.chat_format} prompts and the model reads "
                f"{self.checkpoint.chat_format}; open both from the same checkpoint"
            )
            raise ValueError(msg)
        turn = Turn(
            tokenizer=tokenizer,
            query=Message(role, query),  # type: ignore[arg-type]
            history=history_entries(history or [], tokenizer.chat_format),
            stop_ids=stop_ids(tokenizer.tokenizer, tokenizer.chat_format)
            | {*self.checkpoint.eos_token_ids},
        )
        return run_turn(self.model, turn, sampling, past=past, num_beams=num_beams, **limits)

    def _limits(self, max_length: int | None, max_new_tokens: int | None) -> dict[str, int]:
        """Fill in the lengths that were not given; 0 is given."""
        limit = self.checkpoint.max_length if max_length is None else max_length
        return {
            "max_length": limit,
            "max_new_tokens": limit if max_new_tokens is None else max_new_tokens,
        }

    def _stop_ids(self, eos_token_id: int | Collection[int] | None) -> frozenset[int]:
        """Return the ids that end an answer: those given, else those of config.json."""
        if eos_token_id is None:
            return frozenset(self.checkpoint.eos_token_ids)
        ids = [eos_token_id] if isinstance(eos_token_id, int | np.integer) else list(eos_token_id)
        for token in ids:
            if not isinstance(token, int | np.integer):
                msg = f"eos_token_id is {eos_token_id!r}; expected a token id, or several"
                raise TypeError(msg)
        return frozenset(int(token) for token in ids)


def _watchers(
    count: int, stop_strings: Sequence[str], tokenizer: ChatTokenizer | None
) -> list[TextStream]:
    """Make a decoder a text, where stop strings are to be looked for."""
    if not stop_strings:
        return []
    if tokenizer is None:
        msg = "stop_strings need the tokenizer that decodes the answer; pass tokenizer="
        raise ValueError(msg)
    return [TextStream(tokenizer.tokenizer, stop_strings) for _ in range(count)]


def _whole(prompt: list[int], generated: Generated) -> list[int]:
    """Join prompt, answer and stop token."""
    end = [] if generated.stop_id is None else [generated.stop_id]
    return [*prompt, *generated.ids, *end]
