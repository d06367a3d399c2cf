"""TextTokenizer: texts and batches of them to token ids and back, as published tokenizers do it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from glm2.batch_encoding import (
    BatchEncoding,
    BatchOptions,
    as_tensors,
    check_padding_side,
    pad_rows,
    truncate,
)
from glm2.config import ChatFormat
from glm2.pieces import Pieces
from glm2.prompt import Prompt
from glm2.text_input import is_one_text, plain_ids, split_batch, token_ids
from glm2.tokenizer import ChatGLMTokenizer, Tokenizer

# Names that encode_special_tokens turns into tokens. ChatGLM2 has no role tokens.
_ROLES: Mapping[ChatFormat, tuple[str, ...]] = {
    "chatglm2": (),
    "chatglm3": ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    "chatml": ("<|im_start|>", "<|im_end|>"),
}


class TextTokenizer:
    """Encodes and decodes texts; `glm2.chat_tokenizer.ChatTokenizer` adds conversations.

    Parameters
    ----------
    tokenizer : Tokenizer
    chat_format : "chatglm2", "chatglm3" or "chatml"
    padding_side : "left" or "right"
        Left as Hugging Face's, right as MindFormers'.
    encode_special_tokens : bool
        Whether names of roles in a text, ``<|user|>`` say, become role tokens. Text from users must
        not: they could forge a role.

    Raises
    ------
    ValueError
        If an option is unknown, or the tokenizer lacks what the format needs.

    Notes
    -----
    Equal to the published tokenizers on transformers 4.40, except that

    - ``padding_side`` and right padding work, which they refuse with an AssertionError;
    - ``truncation`` and ``padding="max_length"`` without a ``max_length`` are errors, where they
      leave rows as they are, and so is a ``max_length`` that cannot be kept, where they exceed it;
    - tensors are int32, as MindSpore's embedding takes them, and rows of different lengths are an
      error, where numpy gets an array of objects;
    - ``skip_special_tokens`` hides special tokens, where it does nothing;
    - ids of padding rows (from 64794 on in ChatGLM2, 64798 in ChatGLM3) have no text, where
      ChatGLM2's raise IndexError, and negative ids are errors, where they have no text;
    - a character keeps its bytes together where a token without text stands between them.

    References
    ----------
    ChatGLM2-6B and ChatGLM3-6B ``tokenization_chatglm.ChatGLMTokenizer``; MindFormers
    ``ChatGLM2Tokenizer`` and ``ChatGLM3Tokenizer``.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_format: ChatFormat,
        *,
        padding_side: str = "left",
        encode_special_tokens: bool = False,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat_format = chat_format
        if chat_format not in _ROLES:
            msg = f"chat_format is {chat_format!r}; expected one of {', '.join(_ROLES)}"
            raise ValueError(msg)
        self._pieces = Pieces(tokenizer, chat_format)
        prefix = () if chat_format == "chatml" else ("[gMASK]", "sop")
        self._prefix = [tokenizer.special_id(name) for name in prefix]
        self._role_ids = {name: tokenizer.special_id(name) for name in _ROLES[chat_format]}
        self.padding_side = padding_side
        self.encode_special_tokens = self._special(bool(encode_special_tokens))

    @property
    def padding_side(self) -> str:
        """Where rows are padded unless a call says otherwise."""
        return self._padding_side

    @padding_side.setter
    def padding_side(self, side: str) -> None:
        check_padding_side(side)
        self._padding_side = side

    @property
    def pad_token_id(self) -> int:
        """Id that rows are padded with: 0, which no text contains."""
        return 0

    unk_token_id = pad_token_id  # the same piece

    @property
    def bos_token_id(self) -> int:
        """Id of ``<s>``, 1 in ChatGLM, which no prompt uses; ``<|im_start|>`` in ChatML."""
        return self._pieces.bos_id()

    @property
    def eos_token_id(self) -> int | None:
        """Id that ends a text: 2 in ChatGLM, ``<|im_end|>`` in ChatML."""
        if self.chat_format == "chatml":
            return self._role_ids["<|im_end|>"]
        return self.tokenizer.eos_id

    @property
    def vocab_size(self) -> int:
        """Ids with a meaning: 64794 in ChatGLM2-6B, 64798 in ChatGLM3-6B."""
        roles = len(_ROLES["chatglm3"]) if self.chat_format == "chatglm2" else 0  # padding there
        sentencepiece = isinstance(self.tokenizer, ChatGLMTokenizer)
        return self.tokenizer.vocab_size - (roles if sentencepiece else 0)

    def get_command(self, name: str) -> int:
        """Return the id of ``[gMASK]``, ``sop``, ``<|user|>``, ``<eos>``, ``<bos>`` or ``<pad>``.

        Raises
        ------
        ValueError
            If there is no such token.
        """
        own = {"<eos>": "eos_token_id", "<bos>": "bos_token_id", "<pad>": "pad_token_id"}
        if name in own:
            return int(getattr(self, own[name]))
        if name not in self._pieces.special_names:
            known = ", ".join((*self._pieces.special_names, *own))
            msg = f"{name!r} is no special token of {self.chat_format}; it has {known}"
            raise ValueError(msg)
        return self.tokenizer.special_id(name)

    def __call__(
        self,
        text: Any,
        text_pair: str | Sequence[str] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        padding_side: str | None = None,
        pad_to_multiple_of: int | None = None,
        return_tensors: str | None = None,
        is_split_into_words: bool = False,
        encode_special_tokens: bool | None = None,
    ) -> BatchEncoding:
        """Encode a text, or a batch of them.

        Parameters
        ----------
        text : str, or sequence of str or of (text, pair)
            A `Prompt` among them becomes its ids.
        text_pair : str or sequence of str, optional
            A second text behind each; the end token follows it.
        add_special_tokens : bool
            Whether the prefix (``[gMASK] sop``), and the end token after a pair, are added.
        padding, truncation, max_length, padding_side, pad_to_multiple_of, return_tensors
            See `glm2.batch_encoding.BatchOptions`.
        is_split_into_words : bool
            A text is a list: of token ids, or of words that are encoded one by one.
        encode_special_tokens : bool, optional
            Overrides the attribute.

        Returns
        -------
        encoding : BatchEncoding
            ``input_ids``, ``attention_mask`` and ``position_ids`` (both 0 at padding): lists of int
            for one text, lists of lists for a batch, or tensors (B, T).

        Raises
        ------
        ValueError, TypeError
            If a text or an option is not one.
        """
        options = BatchOptions(
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            padding_side=self.padding_side if padding_side is None else padding_side,
            pad_to_multiple_of=pad_to_multiple_of,
            return_tensors=return_tensors,
        )
        special = self._special(encode_special_tokens)
        items = split_batch(text, text_pair, is_split_into_words)
        front = self._prefix if add_special_tokens else []
        rows = []
        for first, second in items:
            ids = self._ids(first, special, is_split_into_words)
            pair = None if second is None else self._ids(second, special, is_split_into_words)
            back = [self.get_command("<eos>")] if front and pair is not None else []
            ids, pair = truncate(ids, pair, len(front) + len(back), options)
            rows.append([*front, *ids, *(pair or []), *back])
        encoding = pad_rows(rows, options, pad_id=self.pad_token_id)
        if is_one_text(text, is_split_into_words) and return_tensors is None:
            return BatchEncoding({name: values[0] for name, values in encoding.items()})
        return as_tensors(encoding, options)

    def encode(
        self,
        text: Any,
        text_pair: str | None = None,
        add_special_tokens: bool = True,
        **options: Any,
    ) -> list[int]:
        """Return the ids of one text or pair; the rest as a call takes it."""
        encoding = self(text, text_pair, add_special_tokens=add_special_tokens, **options)
        ids: list[int] = encoding["input_ids"]
        return ids

    def tokenize(self, text: str, *, encode_special_tokens: bool | None = None) -> list[str]:
        """Return the pieces of a text, without a prefix."""
        special = self._special(encode_special_tokens)
        return self.convert_ids_to_tokens(self._ids(text, special, False))

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """Return the piece of an id, or the pieces of several; "" where there is none."""
        values = plain_ids(ids)
        if isinstance(values, int):
            return self._pieces.token(values)
        return [self.convert_ids_to_tokens(value) for value in values]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Return the id of a piece, or the ids of several; 0 for what is none."""
        if isinstance(tokens, str):
            return self._pieces.token_id(tokens)
        return [self._pieces.token_id(token) for token in tokens]

    def decode(self, ids: Any, *, skip_special_tokens: bool = False) -> Any:
        """Return the text of ids.

        Parameters
        ----------
        ids : int, integers (T,), or (B, T)
            Lists, a numpy array or a MindSpore tensor.
        skip_special_tokens : bool
            Hide all special tokens. Otherwise ChatGLM3 shows their names, start, end and padding
            excepted, and the others hide them anyway.

        Returns
        -------
        text : str, or list of str for (B, T)

        Raises
        ------
        ValueError, TypeError
            If an id is negative, or ``ids`` are none.
        """
        values = plain_ids(ids)
        row = [values] if isinstance(values, int) else values
        if any(isinstance(value, list) for value in row):
            return [self.decode(part, skip_special_tokens=skip_special_tokens) for part in row]
        show = self.chat_format == "chatglm3" and not skip_special_tokens
        if show and isinstance(self.tokenizer, ChatGLMTokenizer):
            return self.tokenizer.decode_with_specials(row)
        return self.tokenizer.decode(row)

    def batch_decode(self, rows: Any, *, skip_special_tokens: bool = False) -> list[str]:
        """Return the text of each row; see `decode`."""
        values = plain_ids(rows)
        if isinstance(values, int):
            values = [values]
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in values]

    def _ids(self, text: Any, special: bool, is_split: bool) -> list[int]:
        """Encode one text of a call, without a prefix."""
        if isinstance(text, Prompt) and text.token_ids:
            if text.made_for != (self.chat_format, self.vocab_size):
                msg = (
                    f"the prompt was built for a {text.made_for[0]} tokenizer of {text.made_for[1]} ids "
                    f"and this is a {self.chat_format} one of {self.vocab_size}; build it with this one"
                )
                raise ValueError(msg)
            return list(text.token_ids[len(self._prefix) :])
        if isinstance(text, str):
            return self._encode_split(text, self._role_ids if special else {})
        if is_split and all(isinstance(word, str) for word in text):
            return [token for word in text for token in self._ids(word, special, False)]
        return token_ids(text)

    def _encode_split(self, text: str, specials: Mapping[str, int]) -> list[int]:
        """Encode a text in which the names in ``specials`` are tokens."""
        if not specials:
            return self.tokenizer.encode(text)
        ids: list[int] = []
        for part in re.split(f"({'|'.join(map(re.escape, specials))})", text):
            ids += [specials[part]] if part in specials else self.tokenizer.encode(part)
        return ids

    def _special(self, value: bool | None) -> bool:
        """Let a call override the attribute; refuse role tokens where there are none."""
        special = self.encode_special_tokens if value is None else value
        if special and not self._role_ids:
            msg = "encode_special_tokens is True, and ChatGLM2 has no role tokens; leave it False"
            raise ValueError(msg)
        return bool(special)
