"""Wrong calls of ChatGLM: a clear error each, and the next call works."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")


import glm2
from glm2.conversation import PastKeyValues
from glm2.generate import ContextLengthError
from glm2.streaming import TextStreamer

pytestmark = pytest.mark.mindspore


def emptied(model):
    """A cache whose ids are lost."""
    cache = model.model.new_cache(9)
    model.model.forward(np.array([1, 2, 3], np.int32), cache)
    return PastKeyValues(cache, [])


WRONG = {
    "empty": (lambda m, _: m.generate([]), ValueError, "the prompt is empty"),
    "empty row": (lambda m, _: m.generate([[1], []]), ValueError, "prompt 1: the prompt is empty"),
    "text": (
        lambda m, _: m.generate("hello"),
        TypeError,
        "input_ids is 'hello'; expected token ids",
    ),
    "one number": (lambda m, _: m.generate(5), TypeError, "input_ids is 5; expected token ids"),
    "nothing": (lambda m, _: m.generate(None), TypeError, "input_ids is None; expected"),
    "chat temperature": (
        lambda m, t: m.chat(t, "hi", temperature=None),
        TypeError,
        "temperature is None; expected a number",
    ),
    "chat max_length": (
        lambda m, t: m.chat(t, "hi", max_length=0),
        ValueError,
        "max_length is 0; the model's seq_length allows 1 to 512",
    ),
    "chat max_new_tokens": (
        lambda m, t: m.chat(t, "hi", max_new_tokens=0),
        ValueError,
        "max_new_tokens is 0",
    ),
    "chat far too long": (
        lambda m, t: m.chat(t, "hi", max_length=10**9),
        ValueError,
        "max_length is 1000000000; the model's seq_length allows",
    ),
    "stream far too long": (
        lambda m, _: m.stream_generate([1], max_length=10**9),
        ValueError,
        "max_length is 1000000000",
    ),
    "logits too long": (
        lambda m, _: m.logits([1] * 513),
        ValueError,
        "would have 513 tokens, but the model's seq_length is 512",
    ),
    "another tokenizer": (
        lambda m, t: m.chat(glm2.ChatTokenizer(t.tokenizer, "chatglm3"), "hi"),
        ValueError,
        "the tokenizer writes chatglm3 prompts and the model reads chatglm2",
    ),
    "half a token": (
        lambda m, _: m.generate([1], max_new_tokens=2.5),
        TypeError,
        r"max_new_tokens is 2\.5; expected an integer",
    ),
    "half a beam": (
        lambda m, _: m.generate([1], num_beams=2.5),
        TypeError,
        r"num_beams is 2\.5; expected an integer",
    ),
    "length penalty": (
        lambda m, _: m.generate([1], num_beams=2, length_penalty=float("nan")),
        ValueError,
        "length_penalty is nan; expected -10 to 10",
    ),
    "stop token": (
        lambda m, _: m.generate([1], eos_token_id="</s>"),
        TypeError,
        "eos_token_id is '</s>'; expected a token id, or several",
    ),
    "no cache": (
        lambda m, t: list(m.stream_chat(t, "hi", past_key_values="x")),
        TypeError,
        "past_key_values is a str; pass what stream_chat yielded",
    ),
    "huge length penalty": (
        lambda m, _: m.generate([1], num_beams=2, length_penalty=1e308),
        ValueError,
        r"length_penalty is 1e\+308; expected -10 to 10",
    ),
    "cold beams": (
        lambda m, _: m.generate([1], num_beams=2, do_sample=True, temperature=1e-310),
        ValueError,
        r"temperature is 1e-310; sampled beams need 0\.001 or more",
    ),
    "infinite temperature": (
        lambda m, _: m.generate([1], do_sample=True, temperature=np.float32("inf")),
        ValueError,
        "temperature is inf",
    ),
    "huge id": (lambda m, _: m.generate([10**30]), ValueError, "which no vocabulary has"),
    "mixed rows": (lambda m, _: m.generate([[1], 2]), TypeError, "input_ids holds 2 beside rows"),
    "half a prefix": (
        lambda m, _: m.generate([1], prefix_len=1.5),
        TypeError,
        r"prefix_len is 1\.5; expected an integer",
    ),
    "huge prefix": (
        lambda m, _: m.logits([1], prefix_len=10**30),
        ValueError,
        "the model's seq_length allows 0 to 512",
    ),
    "no question": (
        lambda m, t: m.chat(t, None),
        TypeError,
        "content of a message is None; expected a string",
    ),
    "no beams": (
        lambda m, t: m.chat(t, "hi", num_beams=0),
        ValueError,
        "num_beams is 0; it must be at least 1",
    ),
    "emptied past": (
        lambda m, t: list(m.stream_chat(t, "hi", past_key_values=emptied(m))),
        ValueError,
        "past_key_values has 0 ids and a cache of 3 tokens",
    ),
    "beams on a cache": (
        lambda m, t: list(
            m.stream_chat(
                t, "hi", num_beams=2, past_key_values=PastKeyValues(m.model.new_cache(9), [])
            )
        ),
        ValueError,
        "num_beams is 2; a beam search cannot go on from past_key_values",
    ),
    "floats": (lambda m, _: m.generate(np.ones(3)), TypeError, r"input_ids holds 1\.0; expected"),
    "too deep": (lambda m, _: m.generate([[[1]]]), TypeError, r"input_ids holds \[1\]; expected"),
    "unknown id": (
        lambda m, _: m.generate([1, 400]),
        ValueError,
        "ids holds 400; the vocabulary has ids 0 to 399",
    ),
    "too long": (
        lambda m, _: m.generate([1] * 600),
        ContextLengthError,
        r"the prompt has 600 tokens and the context holds 512 \(the model's seq_length is 512\)",
    ),
    "longer than max_length": (
        lambda m, _: m.generate([1] * 30, max_length=20),
        ContextLengthError,
        "the prompt has 30 tokens and the context holds 20",
    ),
    "max_length": (
        lambda m, _: m.generate([1], max_length=513),
        ValueError,
        "max_length is 513; the model's seq_length allows 1 to 512",
    ),
    "max_new_tokens": (
        lambda m, _: m.generate([1], max_new_tokens=0),
        ValueError,
        "max_new_tokens is 0",
    ),
    "mask": (
        lambda m, _: m.generate([[1, 2]], attention_mask=[[1]]),
        ValueError,
        "attention_mask is not shaped as input_ids",
    ),
    "temperature": (
        lambda m, _: m.generate([1], do_sample=True, temperature=-1.0),
        ValueError,
        r"temperature is -1\.0",
    ),
    "stop strings": (
        lambda m, _: m.generate([1], stop_strings=["x"]),
        ValueError,
        "stop_strings need the tokenizer",
    ),
    "streamer of a batch": (
        lambda m, t: m.generate([[1], [2]], streamer=TextStreamer(t.tokenizer)),
        ValueError,
        "input_ids holds 2 texts; a streamer takes one",
    ),
    "streamer of beams": (
        lambda m, t: m.generate([1], num_beams=2, streamer=TextStreamer(t.tokenizer)),
        ValueError,
        "num_beams is 2; a streamer and stop_strings need one beam",
    ),
    "logits of a batch": (lambda m, _: m.logits([[1], [2]]), ValueError, "ids holds 2 texts"),
    "stream of a batch": (lambda m, _: m.stream_generate([[1], [2]]), ValueError, "holds 2 texts"),
    "chat option": (
        lambda m, t: m.chat(t, "hi", temprature=1),
        TypeError,
        "unknown options temprature; there are max_length",
    ),
    "history": (
        lambda m, t: m.chat(t, "hi", ["hi"]),
        ValueError,
        r"an entry 'hi'; expected \(question, answer\), or a dict",
    ),
    "chat too long": (
        lambda m, t: m.chat(t, "fox " * 600),
        ContextLengthError,
        r"the prompt has \d+ tokens and the context holds 512",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_are_clear_errors_and_the_next_call_works(chatglm2, name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call(*chatglm2)
    assert len(chatglm2[0].generate([1, 2], max_new_tokens=1)) == 3
