"""Text to token ids and back: ChatGLM's SentencePiece, the demo's BPE, and streaming decoding."""

from __future__ import annotations

import codecs
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import sentencepiece

# In this order they follow the pieces of tokenizer.model. ChatGLM2 has the first five alone; the
# rows of the others are padding there.
SPECIAL_TOKENS = (
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "sop",
    "eop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)


def _replace_one_byte(error: UnicodeError) -> tuple[str, int]:
    """Decode each byte that belongs to no character to one U+FFFD, as SentencePiece does."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd", error.start + 1


codecs.register_error("glm2.replace_one_byte", _replace_one_byte)


class Tokenizer(Protocol):
    """What prompts, chat and streaming need of a tokenizer."""

    decode_errors: str  # the codec error handler for bytes that are not UTF-8
    eos_id: int | None  # ends a text, where the tokenizer itself has such a token

    @property
    def vocab_size(self) -> int:
        """Ids that have a meaning: 0 to ``vocab_size - 1``."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text, with no prefix; names of special tokens stay text."""

    def special_id(self, name: str) -> int:
        """Return the id of a special token such as ``[gMASK]``."""

    def token_bytes(self, token_id: int, *, first: bool = False) -> bytes:
        """Return a token's share of the UTF-8 text; ``first``: it opens the text."""

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of ids; special tokens have none."""


class ChatGLMTokenizer:
    """The tokenizer of ChatGLM2 and ChatGLM3, on sentencepiece alone.

    Parameters
    ----------
    model_file : str or Path
        The published ``tokenizer.model``. Special tokens are numbered from its last piece on.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a SentencePiece model.

    References
    ----------
    ChatGLM3-6B ``tokenization_chatglm.SPTokenizer``.
    """

    decode_errors = "glm2.replace_one_byte"

    def __init__(self, model_file: str | Path) -> None:
        model = Path(model_file).read_bytes()
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._num_pieces: int = self._pieces.get_piece_size()
            self._pieces.id_to_piece(list(range(self._num_pieces)))  # all of them are UTF-8
            if self._num_pieces == 0:
                msg = "it has no pieces"
                raise ValueError(msg)
        except (RuntimeError, OSError, ValueError) as error:
            msg = (
                f"{model_file} is not a SentencePiece model ({error}); fetch tokenizer.model again"
            )
            raise ValueError(msg) from error
        self._special_ids = {
            name: self._num_pieces + index for index, name in enumerate(SPECIAL_TOKENS)
        }
        self.eos_id: int | None = self._pieces.eos_id()

    @property
    def vocab_size(self) -> int:
        """Pieces and special tokens: 64798 in ChatGLM3-6B."""
        return self._num_pieces + len(SPECIAL_TOKENS)

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text, with no prefix.

        Names of special tokens in ``text`` are encoded as text, so a user cannot forge a role.
        Every text that is not empty starts with the piece of a space.
        """
        return list(self._pieces.encode(_valid_text(text)))

    def special_id(self, name: str) -> int:
        """Return the id of a special token; ValueError if there is none of that name."""
        return _lookup(self._special_ids, name)

    def token_bytes(self, token_id: int, *, first: bool = False) -> bytes:
        """Return a token's share of the UTF-8 text.

        Parameters
        ----------
        token_id : int
            Special tokens, control tokens, padding and padding rows have no text.
        first : bool
            The token opens the text: the space that encoding puts in front is taken off.

        Raises
        ------
        ValueError
            If ``token_id`` is negative.
        """
        _check_id(token_id)
        hidden = token_id >= self._num_pieces or self._pieces.is_control(token_id)
        if hidden or self._pieces.is_unknown(token_id):  # the unknown piece is the padding as well
            return b""
        piece: str = self._pieces.id_to_piece(token_id)
        if self._pieces.is_byte(token_id):
            return bytes([int(piece[3:5], 16)])  # <0xE4>
        if first:
            piece = piece.removeprefix("\u2581")
        return piece.replace("\u2581", " ").encode()

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of ids; special tokens have none, bytes that make no character U+FFFD."""
        return _decode(self, token_ids)

    def decode_with_specials(self, token_ids: Iterable[int]) -> str:
        """Return the text of ids with special tokens as their names, as ChatGLM3's tokenizer does.

        Start, end and padding have no name.
        """
        names = {token_id: name for name, token_id in self._special_ids.items()}
        pieces = []
        for token_id in token_ids:
            _check_id(token_id)
            hidden = token_id >= self._num_pieces or self._pieces.is_control(token_id)
            if hidden or self._pieces.is_unknown(token_id):
                pieces.append(names.get(token_id, ""))
            else:
                pieces.append(self._pieces.id_to_piece(token_id))
        return str(self._pieces.decode_pieces(pieces))


class BpeTokenizer:
    """A byte-level BPE tokenizer read from a ``tokenizer.json``: the demo weights have one.

    Parameters
    ----------
    tokenizer_file : str or Path
        As the ``tokenizers`` package writes it.

    Raises
    ------
    ImportError
        If the ``tokenizers`` package is not installed.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a tokenizer.
    """

    decode_errors = "replace"
    eos_id: int | None = None

    def __init__(self, tokenizer_file: str | Path) -> None:
        try:
            import tokenizers
        except ImportError as error:
            msg = 'tokenizer.json needs the tokenizers package; run pip install "glm2[demo]"'
            raise ImportError(msg) from error
        raw = Path(tokenizer_file).read_bytes()
        try:
            self._bpe = tokenizers.Tokenizer.from_str(raw.decode())
        except Exception as error:  # the package raises plain Exception
            msg = f"{tokenizer_file} is not a tokenizer ({error}); build or fetch it again"
            raise ValueError(msg) from error
        self._bpe.encode_special_tokens = True  # names of special tokens in a text stay text
        self._special_ids = {
            token.content: token_id
            for token_id, token in self._bpe.get_added_tokens_decoder().items()
        }
        self._no_text = frozenset(self._special_ids.values())

    @property
    def vocab_size(self) -> int:
        """Ids that have a meaning."""
        return self._bpe.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; names of special tokens in it stay text."""
        return list(self._bpe.encode(_valid_text(text), add_special_tokens=False).ids)

    def special_id(self, name: str) -> int:
        """Return the id of a special token; ValueError if there is none of that name."""
        return _lookup(self._special_ids, name)

    def token_bytes(self, token_id: int, *, first: bool = False) -> bytes:
        """Return a token's share of the UTF-8 text; ``first`` makes no difference."""
        del first
        _check_id(token_id)
        token = None if token_id in self._no_text else self._bpe.id_to_token(token_id)
        table = _byte_of_character()
        return b"" if token is None else bytes(table[character] for character in token)

    def decode(self, token_ids: Iterable[int]) -> str:
        """Return the text of ids; special tokens have none, bytes that make no character U+FFFD."""
        return _decode(self, token_ids)


class StreamDecoder:
    """Turns ids into text as they come, each character once it is whole.

    Parameters
    ----------
    tokenizer : Tokenizer
        Whose ids are pushed.

    Notes
    -----
    The pieces that `push` returns, joined, are ``tokenizer.decode`` of all ids, except that a
    character whose last bytes never came is left out. Bytes that no later byte can complete
    decode to U+FFFD. The time a token takes does not depend on how many came before.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors=tokenizer.decode_errors)
        self._at_start = True

    def push(self, token_id: int) -> str:
        """Take one id and return the text that it completes, often empty."""
        data = self._tokenizer.token_bytes(token_id)
        if self._at_start and data:
            self._at_start = False
            data = self._tokenizer.token_bytes(token_id, first=True)
        return self._decoder.decode(data)

    def flush(self) -> str:
        """End the text and make ready for another: drops a character that was never completed."""
        self._decoder.reset()
        self._at_start = True
        return ""


def load_tokenizer(folder: str | Path) -> ChatGLMTokenizer | BpeTokenizer:
    """Load the tokenizer of a checkpoint folder.

    Parameters
    ----------
    folder : str or Path
        Holds ``tokenizer.model`` (ChatGLM2, ChatGLM3) or ``tokenizer.json`` (the demo weights);
        the first goes before the second.

    Raises
    ------
    FileNotFoundError
        If the folder holds neither.
    """
    folder = Path(folder)
    if (folder / "tokenizer.model").is_file():
        return ChatGLMTokenizer(folder / "tokenizer.model")
    if (folder / "tokenizer.json").is_file():
        return BpeTokenizer(folder / "tokenizer.json")
    msg = (
        f"{folder} has no tokenizer.model and no tokenizer.json; "
        "fetch tokenizer.model from where the checkpoint came from"
    )
    raise FileNotFoundError(msg)


@functools.cache
def _byte_of_character() -> Mapping[str, int]:
    """Map the characters that byte-level BPE writes bytes with to those bytes.

    Printable Latin-1 stands for itself; the other bytes, in order, for U+0100 and following
    (GPT-2 ``bytes_to_unicode``).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + index): byte for index, byte in enumerate(others)}


def _decode(tokenizer: Tokenizer, token_ids: Iterable[int]) -> str:
    """Join the bytes of all tokens, then decode them."""
    parts = []
    at_start = True
    for token_id in token_ids:
        data = tokenizer.token_bytes(token_id)
        if at_start and data:
            at_start = False
            data = tokenizer.token_bytes(token_id, first=True)
        parts.append(data)
    return b"".join(parts).decode("utf-8", errors=tokenizer.decode_errors)


def _lookup(special_ids: Mapping[str, int], name: str) -> int:
    """Find a special token, or say which there are."""
    if name not in special_ids:
        msg = (
            f"the tokenizer has no special token {name!r}; it has {', '.join(special_ids)}. Use the "
            "chat format that the checkpoint was trained with"
        )
        raise ValueError(msg)
    return special_ids[name]


def _check_id(token_id: int) -> None:
    """Refuse negative ids, which would index from the end."""
    if token_id < 0:
        msg = f"token id is {token_id}; ids start at 0"
        raise ValueError(msg)


def _valid_text(text: str) -> str:
    """Refuse halves of surrogate pairs: they come from input that was not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = f"text is not valid Unicode at character {error.start} ({text[error.start]!r}); pass UTF-8"
        raise ValueError(msg) from error
    return text
