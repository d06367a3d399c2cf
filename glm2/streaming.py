"""Token ids to text as they come: whole characters only, cut at stop strings, given to streamers."""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from glm2.tokenizer import StreamDecoder, Tokenizer


class StopStrings:
    """Cuts a stream of text at the first of several strings.

    Parameters
    ----------
    strings : iterable of str
        None of them empty.

    Raises
    ------
    ValueError
        If a string is empty.
    TypeError
        If one is no string.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        self._strings = (strings,) if isinstance(strings, str) else tuple(strings)
        for string in self._strings:
            if not isinstance(string, str):
                msg = f"stop_strings holds a {type(string).__name__}; expected strings"
                raise TypeError(msg)
            if not string:
                msg = "stop_strings holds an empty string, which is everywhere; leave it out"
                raise ValueError(msg)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Take more text and return what no stop string can claim any more."""
        if self.found:
            return ""
        self._held += text
        places = [place for s in self._strings if (place := self._held.find(s)) >= 0]
        if places:
            self.found = True
            ready, self._held = self._held[: min(places)], ""
            return ready
        keep = max((_overlap(self._held, string) for string in self._strings), default=0)
        ready = self._held[: len(self._held) - keep]
        self._held = self._held[len(ready) :]
        return ready

    def flush(self) -> str:
        """End the text and return what was held back."""
        rest, self._held = self._held, ""
        return rest


def _overlap(text: str, string: str) -> int:
    """Return the length of the longest end of ``text`` that starts ``string`` and is not all of it."""
    for length in range(min(len(text), len(string) - 1), 0, -1):
        if text.endswith(string[:length]):
            return length
    return 0


class TextStream:
    """A `StreamDecoder` with stop strings behind it; collects the text.

    Parameters
    ----------
    tokenizer : Tokenizer
    stop_strings : sequence of str
        The text ends before the first of them.
    """

    def __init__(self, tokenizer: Tokenizer, stop_strings: Sequence[str] = ()) -> None:
        self._decoder = StreamDecoder(tokenizer)
        self._stops = StopStrings(stop_strings)
        self.text = ""

    @property
    def stopped(self) -> bool:
        """Whether a stop string has come."""
        return self._stops.found

    def push(self, token_id: int) -> str:
        """Take one id and return the text that is now certain, often empty."""
        return self._add(self._stops.push(self._decoder.push(token_id)))

    def flush(self) -> str:
        """End the text: return what was held back, without a character that is not whole."""
        self._decoder.flush()
        return self._add(self._stops.flush())

    def _add(self, piece: str) -> str:
        self.text += piece
        return piece


class Streamer(Protocol):
    """What ``generate`` calls with new tokens; any object with these two methods will do."""

    def put(self, token_ids: Sequence[int]) -> None:
        """Take new tokens of the answer."""

    def end(self) -> None:
        """Learn that the answer is over."""


class TextStreamer:
    """A streamer that hands on text.

    Parameters
    ----------
    tokenizer : Tokenizer
    on_text : callable, optional
        Called with each piece of text, of whole characters; prints to stdout unless given.
    """

    def __init__(self, tokenizer: Tokenizer, on_text: Callable[[str], None] | None = None) -> None:
        self._stream = TextStream(tokenizer)
        self._on_text = _write if on_text is None else on_text

    def put(self, token_ids: Sequence[int]) -> None:
        """Decode new tokens and hand on what they complete."""
        for token_id in token_ids:
            piece = self._stream.push(token_id)
            if piece:
                self._on_text(piece)

    def end(self) -> None:
        """Hand on what was held back."""
        rest = self._stream.flush()
        if rest:
            self._on_text(rest)


class TextIteratorStreamer(TextStreamer):
    """A streamer to iterate over in one thread while another generates.

    Parameters
    ----------
    tokenizer : Tokenizer
    timeout_s : float, optional
        Longest wait for the next piece; forever unless given.

    Raises
    ------
    TimeoutError
        While iterating, if no piece came in time.
    """

    def __init__(self, tokenizer: Tokenizer, *, timeout_s: float | None = None) -> None:
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._timeout_s = timeout_s
        super().__init__(tokenizer, self._pieces.put)

    def end(self) -> None:
        """Hand on what was held back, and end the iteration."""
        super().end()
        self._pieces.put(None)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            piece = self._pieces.get(timeout=self._timeout_s)
        except queue.Empty:
            msg = f"no text came for {self._timeout_s} s; the generation has failed or is slow"
            raise TimeoutError(msg) from None
        if piece is None:
            raise StopIteration
        return piece


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
