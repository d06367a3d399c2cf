"""Stop strings, text streams and streamers."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm2.streaming import StopStrings, TextIteratorStreamer, TextStream, TextStreamer

PIECES = st.lists(st.text(alphabet="abc\n", max_size=4), max_size=12)
STOPS = st.lists(st.text(alphabet="abc\n", min_size=1, max_size=4), max_size=3)


@given(pieces=PIECES, strings=STOPS)
def test_stop_strings_cut_at_the_first_however_the_text_is_split(pieces, strings):
    text = "".join(pieces)
    stops = StopStrings(strings)
    got = "".join([*map(stops.push, pieces), stops.flush()])
    # The stream ends as soon as a string is complete, so of two that overlap the first to end wins.
    ends = [text.find(s) + len(s) for s in strings if s in text]
    first = (
        min((text[: min(ends)].find(s) for s in strings if s in text[: min(ends)]), default=None)
        if ends
        else None
    )
    assert stops.found == bool(ends)
    if len(pieces) == len(text):  # a character a piece: the definition itself
        assert got == (text if first is None else text[:first])
    else:
        assert text.startswith(got)
        assert not any(s in got for s in strings)


def test_stop_strings_give_what_no_string_can_claim():
    stops = StopStrings(["\nUser:"])
    assert [stops.push(piece) for piece in ("Hello", "\nUs", "ers ", "\nUser", ":x")] == [
        "Hello",
        "",
        "\nUsers ",
        "",
        "",
    ]
    assert stops.found
    assert stops.push("more") == ""
    assert stops.flush() == ""


def test_a_single_stop_string_may_be_given_as_a_str():
    assert StopStrings("ab").push("xaby") == "x"


@pytest.mark.parametrize(
    ("strings", "error", "message"),
    [([""], ValueError, "empty string"), ([3], TypeError, "holds a int; expected strings")],
)
def test_stop_strings_refuse(strings, error, message):
    with pytest.raises(error, match=message):
        StopStrings(strings)


def test_text_stream_holds_back_half_characters(byte_tokenizer):
    stream = TextStream(byte_tokenizer, ["终"])
    pieces = [stream.push(byte) for byte in "好终了".encode()]
    assert "".join(pieces) == stream.text == "好"
    assert stream.stopped
    cut = TextStream(byte_tokenizer)
    assert [cut.push(byte) for byte in "a好".encode()[:3]] == ["a", "", ""]
    assert cut.flush() == ""  # a character that never came is no U+FFFD
    assert cut.text == "a"


def test_text_streamer_calls_back_with_whole_characters(byte_tokenizer):
    pieces = []
    streamer = TextStreamer(byte_tokenizer, pieces.append)
    for byte in "a好b".encode():
        streamer.put([byte])
    streamer.end()
    assert pieces == ["a", "好", "b"]


def test_text_streamer_prints_to_stdout(byte_tokenizer, capsys):
    streamer = TextStreamer(byte_tokenizer)
    streamer.put(b"hi")
    streamer.end()
    assert capsys.readouterr().out == "hi"


def test_iterator_streamer_crosses_threads(byte_tokenizer):
    streamer = TextIteratorStreamer(byte_tokenizer, timeout_s=10)

    def work():
        for byte in "你好".encode():
            streamer.put([byte])
        streamer.end()

    thread = threading.Thread(target=work)
    thread.start()
    assert list(streamer) == ["你", "好"]
    thread.join()


def test_iterator_streamer_times_out(byte_tokenizer):
    with pytest.raises(TimeoutError, match=r"no text came for 0\.01 s"):
        next(TextIteratorStreamer(byte_tokenizer, timeout_s=0.01))
