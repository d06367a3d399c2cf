"""ChatTokenizer: a tokenizer with the methods that users of the published ones know."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glm2.batch_encoding import BatchEncoding, PaddingSide, as_tensors, pad_rows, truncate
from glm2.config import ChatFormat, recognise_chat_format
from glm2.prompt import Message, build_prompt
from glm2.tokenizer import ChatGLMTokenizer, Tokenizer, load_tokenizer

_ROLES = re.compile(r"(<\|(?:system|user|assistant|observation)\|>)")
_BLANKS = re.compile(r"(\[(?:MASK|sMASK|gMASK)\])")


class Prompt(str):
    """A conversation as text to read, with the token ids that it really stands for.

    `ChatTokenizer` encodes it to ``token_ids``. What is cut out of it or joined to it is plain text.
    """

    token_ids: tuple[int, ...] = ()

    @classmethod
    def make(cls, text: str, token_ids: Sequence[int]) -> Prompt:
        """Join a text and its ids."""
        prompt = cls(text)
        prompt.token_ids = tuple(token_ids)
        return prompt


class ChatTokenizer:
    """Encodes texts, batches and conversations.

    Parameters
    ----------
    tokenizer : Tokenizer
    chat_format : "chatglm2", "chatglm3" or "chatml"
    padding_side : "left" or "right"
        Left as Hugging Face's, right as MindFormers'.
    encode_special_tokens : bool
        Whether role names in a text, ``<|user|>`` say, become role tokens. Text from users must not:
        they could forge a role.

    Notes
    -----
    Differs from the published tokenizers where those have traps: names of special tokens in a text
    stay text, ``</s>`` included; ``skip_special_tokens`` hides all of them; ids of padding rows
    have no text.

    References
    ----------
    ChatGLM2-6B and ChatGLM3-6B ``tokenization_chatglm.ChatGLMTokenizer``.
    """

    model_input_names = ("input_ids", "attention_mask", "position_ids")

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_format: ChatFormat,
        *,
        padding_side: PaddingSide = "left",
        encode_special_tokens: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat_format = chat_format
        self.padding_side = padding_side
        self.encode_special_tokens = encode_special_tokens

    @classmethod
    def from_folder(
        cls, folder: str | Path, chat_format: str | None = None, **options: Any
    ) -> ChatTokenizer:
        """Load the tokenizer of a checkpoint folder; ``options`` are those of the class.

        Raises
        ------
        FileNotFoundError
            If the folder holds no tokenizer.
        ValueError
            If a file is damaged or the format unknown.
        """
        tokenizer = load_tokenizer(folder)
        return cls(tokenizer, recognise_chat_format(folder, chat_format), **options)

    @property
    def pad_token_id(self) -> int:
        """Id that rows are padded with: 0, which no text contains."""
        return 0

    @property
    def unk_token_id(self) -> int:
        """Id of the unknown piece, which is the padding as well."""
        return 0

    @property
    def eos_token_id(self) -> int | None:
        """Id that ends a text; None where the tokenizer has none."""
        return self.tokenizer.eos_id

    @property
    def vocab_size(self) -> int:
        """Ids with a meaning: 64794 in ChatGLM2-6B, 64798 in ChatGLM3-6B."""
        roles = 4 if self.chat_format == "chatglm2" else 0  # padding rows there
        sentencepiece = isinstance(self.tokenizer, ChatGLMTokenizer)
        return self.tokenizer.vocab_size - (roles if sentencepiece else 0)

    def __len__(self) -> int:
        return self.vocab_size

    def get_command(self, name: str) -> int:
        """Return the id of ``[gMASK]``, ``sop``, ``<|user|>``, ``<eos>``, ``<pad>`` and the like.

        Raises
        ------
        ValueError
            If there is no such token.
        """
        own = {"<eos>": self.eos_token_id, "<pad>": self.pad_token_id}.get(name)
        return self.tokenizer.special_id(name) if own is None else own

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool = False,
        max_length: int | None = None,
        padding_side: PaddingSide | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        is_split_into_words: bool = False,
    ) -> BatchEncoding:
        """Encode a text or a batch of them.

        Parameters
        ----------
        text : str or sequence of str
            Or of token ids: ``is_split_into_words`` says so.
        text_pair : str or sequence of str, optional
            A second text behind each; an end-of-text token follows it.
        add_special_tokens : bool
            Whether the prefix (``[gMASK] sop``), and the end after a pair, are added.
        padding, padding_side, max_length, pad_to_multiple_of
            See `glm2.batch_encoding.pad_rows`.
        truncation : bool
            Cut to ``max_length`` tokens, special tokens included, from the right.
        return_tensors : "np", "ms" or None
            int32 arrays (B, T), MindSpore tensors, or lists.
        is_split_into_words : bool
            ``text`` holds ids already: (T,) or a list of such.

        Returns
        -------
        encoding : BatchEncoding
            ``input_ids``, ``attention_mask`` (0 at padding) and ``position_ids`` (0 at padding);
            lists of ids for one text, of such lists for a batch.

        Raises
        ------
        ValueError, TypeError
            If an option or a text is not one.
        """
        if is_split_into_words:
            single = bool(text) and isinstance(text[0], int | np.integer)
        else:
            single = isinstance(text, str)
        texts = [text] if single else list(text)
        pairs = (
            [text_pair] if single else [None] * len(texts) if text_pair is None else list(text_pair)
        )
        if len(pairs) != len(texts):
            msg = f"there are {len(texts)} texts and {len(pairs)} pairs; pass one for each"
            raise ValueError(msg)
        if truncation and max_length is None:
            msg = "truncation needs max_length; pass it"
            raise ValueError(msg)
        most = max_length if truncation else None
        rows = [
            self._row(item, pair, add_special_tokens, most)
            for item, pair in zip(texts, pairs, strict=True)
        ]
        encoding = pad_rows(
            rows,
            pad_id=self.pad_token_id,
            side=padding_side or self.padding_side,
            padding=padding,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
        )
        if single and return_tensors is None:
            return BatchEncoding({name: values[0] for name, values in encoding.items()})
        return as_tensors(encoding, return_tensors)

    def encode(
        self, text: str, text_pair: str | None = None, *, add_special_tokens: bool = True
    ) -> list[int]:
        """Return the ids of one text or pair, the prefix in front unless told otherwise."""
        return self._row(text, text_pair, add_special_tokens, None)

    def encode_blanks(self, text: str) -> list[int]:
        """Encode a text with blanks, without a prefix: part A of blank infilling.

        ``[MASK]``, ``[sMASK]`` and ``[gMASK]`` become their tokens; what stands between is encoded
        piece by piece.

        Raises
        ------
        ValueError
            If the text has no blank.
        """
        if not _BLANKS.search(text):
            msg = f"the text {text[:40]!r} has no blank; mark one with [MASK], [sMASK] or [gMASK]"
            raise ValueError(msg)
        return self._encode_split(text, _BLANKS)

    def decode(self, ids: Any, *, skip_special_tokens: bool = False) -> Any:
        """Return the text of ids.

        Parameters
        ----------
        ids : int, integers (T,), or (B, T)
            Lists, a numpy array or a MindSpore tensor.
        skip_special_tokens : bool
            Hide all special tokens. Else ChatGLM2 hides them anyway and ChatGLM3 shows their
            names, end and padding excepted, as the published tokenizers do.

        Returns
        -------
        text : str, or list of str for (B, T)

        Raises
        ------
        ValueError
            If an id is negative.
        """
        ids = ids.asnumpy() if hasattr(ids, "asnumpy") else ids
        ids = ids.tolist() if isinstance(ids, np.ndarray) else ids
        if isinstance(ids, int | np.integer):
            ids = [ids]
        if ids and not isinstance(ids[0], int | np.integer):
            return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in ids]
        row = [int(token) for token in ids]
        if self.chat_format != "chatglm3" or skip_special_tokens:
            return self.tokenizer.decode(row)
        if not isinstance(self.tokenizer, ChatGLMTokenizer):
            return self.tokenizer.decode(row)
        return self.tokenizer.decode_with_specials(row)

    def batch_decode(self, rows: Any, *, skip_special_tokens: bool = False) -> list[str]:
        """Return the text of each row; see `decode`."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in rows]

    def build_prompt(self, query: str, history: Sequence[tuple[str, str]] | None = None) -> str:
        """Return the prompt of a question, to be passed to the tokenizer.

        Parameters
        ----------
        query : str
        history : sequence of (question, answer), optional

        Returns
        -------
        prompt : str
            ChatGLM2's rounds; else a `Prompt`, whose role tokens no text could stand for.
        """
        if self.chat_format == "chatglm2":
            text = ""
            for number, turn in enumerate(history or (), start=1):
                text += f"[Round {number}]\n\n问：{turn[0]}\n\n答：{turn[1]}\n\n"  # noqa: RUF001
            return f"{text}[Round {len(history or ()) + 1}]\n\n问：{query}\n\n答："  # noqa: RUF001
        messages = [
            message
            for question, answer in history or ()
            for message in (Message("user", question), Message("assistant", answer))
        ]
        messages.append(Message("user", query))
        text = "".join(f"<|{message.role}|>\n{message.content}" for message in messages)
        token_ids = build_prompt(self.tokenizer, messages, self.chat_format)
        return Prompt.make(f"{text}<|assistant|>", token_ids)

    def build_chat_input(
        self,
        query: str,
        history: Sequence[Mapping[str, Any]] | None = None,
        role: str = "user",
        *,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Encode a conversation, as a batch of one.

        Parameters
        ----------
        query : str
        history : sequence of dicts, optional
            See `glm2.prompt.Message.from_dict`.
        role : str
            Of the query.
        return_tensors : "np", "ms" or None
        """
        messages = [*(history or ()), {"role": role, "content": query}]
        return self(
            [self.apply_chat_template(messages)],
            add_special_tokens=False,
            is_split_into_words=True,
            return_tensors=return_tensors,
        )

    def build_single_message(self, role: str, metadata: str, message: str) -> list[int]:
        """Encode one ChatGLM3 message: role token, metadata line, content.

        Raises
        ------
        ValueError
            If there is no such role.
        """
        checked = Message.from_dict({"role": role, "metadata": metadata, "content": message})
        head = [self.get_command(f"<|{checked.role}|>"), *self.tokenizer.encode(f"{metadata}\n")]
        return [*head, *self.tokenizer.encode(message)]

    def apply_chat_template(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Encode a conversation of dicts up to where the assistant's answer starts."""
        entries = [Message.from_dict(message) for message in messages]
        return build_prompt(self.tokenizer, entries, self.chat_format)

    def _row(self, text: Any, pair: Any, add_special_tokens: bool, most: int | None) -> list[int]:
        """Encode one item of a batch."""
        if isinstance(text, Prompt):
            return list(text.token_ids)
        ids = self._ids(text)
        pair_ids = None if pair is None else self._ids(pair)
        front = self._prefix() if add_special_tokens else []
        back = [self.get_command("<eos>")] if add_special_tokens and pair is not None else []
        if most is not None:
            room = most - len(front) - len(back)
            if room < 0:
                msg = f"max_length is {most}; special tokens alone are {len(front) + len(back)}"
                raise ValueError(msg)
            ids, pair_ids = truncate(ids, pair_ids, room)
        return [*front, *ids, *(pair_ids or []), *back]

    def _prefix(self) -> list[int]:
        if self.chat_format == "chatml":
            return []
        return [self.get_command("[gMASK]"), self.get_command("sop")]

    def _ids(self, text: Any) -> list[int]:
        """Encode a text; ids are taken as they are."""
        if isinstance(text, str):
            return (
                self._encode_split(text, _ROLES)
                if self.encode_special_tokens
                else self.tokenizer.encode(text)
            )
        if isinstance(text, list | tuple | np.ndarray) and all(
            isinstance(token, int | np.integer) for token in text
        ):
            return [int(token) for token in text]
        msg = f"a text is a {type(text).__name__}; expected str, or a list of token ids"
        raise TypeError(msg)

    def _encode_split(self, text: str, specials: re.Pattern[str]) -> list[int]:
        """Encode a text in which the names that ``specials`` matches are tokens."""
        ids: list[int] = []
        for index, part in enumerate(specials.split(text)):
            if index % 2:
                ids.append(self.get_command(part))
            elif part:
                ids += self.tokenizer.encode(part)
        return ids
