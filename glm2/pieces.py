"""Single tokens as text, named as the published tokenizers name them."""

from __future__ import annotations

import dataclasses

from glm2.config import ChatFormat
from glm2.tokenizer import SPECIAL_TOKENS, BpeTokenizer, ChatGLMTokenizer, Tokenizer

_UNKNOWN_ID = 0  # in ChatGLM's tokenizer.model and in the demo's tokenizer.json


@dataclasses.dataclass(frozen=True)
class Pieces:
    """The vocabulary of a tokenizer, piece by piece.

    Parameters
    ----------
    tokenizer : Tokenizer
        A `ChatGLMTokenizer` or a `BpeTokenizer`; others have no pieces.
    chat_format : "chatglm2", "chatglm3" or "chatml"
        ChatGLM2 has no role tokens, and gives special tokens no text.
    """

    tokenizer: Tokenizer
    chat_format: ChatFormat

    @property
    def special_names(self) -> tuple[str, ...]:
        """Names of the special tokens that the chat format uses."""
        if self.chat_format == "chatml":
            return ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
        return SPECIAL_TOKENS[:5] if self.chat_format == "chatglm2" else SPECIAL_TOKENS

    def bos_id(self) -> int:
        """Return the id of ``<s>``, or of what opens a turn of ChatML."""
        if self.chat_format == "chatml":
            return self.tokenizer.special_id("<|im_start|>")
        if isinstance(self.tokenizer, ChatGLMTokenizer):
            return int(self.tokenizer._pieces.bos_id())
        raise self._no_pieces()

    def token(self, token_id: int) -> str:
        """Return the piece of an id; "" where the published tokenizers have none.

        Raises
        ------
        ValueError
            If ``token_id`` is negative.
        TypeError
            If the tokenizer has no pieces.
        """
        has_text = bool(self.tokenizer.token_bytes(token_id))
        if isinstance(self.tokenizer, BpeTokenizer):
            return self.tokenizer._bpe.id_to_token(token_id) or ""
        if not isinstance(self.tokenizer, ChatGLMTokenizer):
            raise self._no_pieces()
        if has_text:
            return str(self.tokenizer._pieces.id_to_piece(token_id))
        names = {} if self.chat_format == "chatglm2" else self.tokenizer._special_ids
        return next((name for name, special in names.items() if special == token_id), "")

    def token_id(self, token: str) -> int:
        """Return the id of a piece or of a special token's name, 0 if there is none.

        Raises
        ------
        TypeError
            If the tokenizer has no pieces.
        """
        if token in self.special_names:
            return self.tokenizer.special_id(token)
        try:
            token.encode()
        except UnicodeEncodeError:  # SentencePiece would fail on it
            return _UNKNOWN_ID
        if isinstance(self.tokenizer, ChatGLMTokenizer):
            return int(self.tokenizer._pieces.piece_to_id(token))
        if isinstance(self.tokenizer, BpeTokenizer):
            found = self.tokenizer._bpe.token_to_id(token)
            return _UNKNOWN_ID if found is None else int(found)
        raise self._no_pieces()

    def _no_pieces(self) -> TypeError:
        """Say that the tokenizer has none."""
        name = type(self.tokenizer).__name__
        return TypeError(f"a {name} has no pieces; use a ChatGLMTokenizer or a BpeTokenizer")
