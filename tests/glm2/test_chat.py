import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2.chat import ChatSession, _AnswerCleaner
from glm2.generate import ContextLengthError
from glm2.prompt import Message, build_prompt


def test_chat_turns_make_history(answering_model, byte_tokenizer, checkpoint):
    model = answering_model(["\n first ", "\n 第二"])
    session = ChatSession(model, byte_tokenizer, checkpoint(), system="be brief")
    assert "".join(session.stream("q1")) == "first"
    assert "".join(session.stream("q2")) == "第二"
    assert session.messages == (
        Message("system", "be brief"),
        Message("user", "q1"),
        Message("assistant", "first"),
        Message("user", "q2"),
        Message("assistant", "第二"),
    )
    assert session.last_turn.finish_reason == "stop"


@pytest.mark.parametrize(
    ("chat_format", "answer", "stop"),
    [("chatglm2", "ok", "sop"), ("chatglm3", "\nok", "<|user|>"), ("chatml", "ok", "<|im_end|>")],
)
def test_chat_feeds_only_what_the_cache_lacks(
    fake_model, byte_tokenizer, checkpoint, chat_format, answer, stop
):
    stop_id = byte_tokenizer.special_id(stop)
    script = [*answer.encode(), stop_id]
    model = fake_model(lambda ids: script[len(ids) - num_prompt])
    session = ChatSession(model, byte_tokenizer, checkpoint(chat_format, eos_token_ids=(stop_id,)))
    cached = []
    for text in ("one", "two", "three"):
        messages = [*session.messages, Message("user", text)]
        prompt = build_prompt(byte_tokenizer, messages, chat_format)
        num_prompt = len(prompt)
        model.fed.clear()
        assert "".join(session.stream(text)) == "ok"
        assert model.fed[0] == prompt[len(cached) :]
        assert session.last_turn.cached_tokens == len(cached)
        cached = [*prompt, *answer.encode()]
        assert session._cache.ids == cached  # what a model without a cache would have been fed


def test_chat_reencodes_an_answer_that_was_cleaned(answering_model, byte_tokenizer, checkpoint):
    model = answering_model(["  padded  ", "x"])
    session = ChatSession(model, byte_tokenizer, checkpoint())
    assert "".join(session.stream("q")) == "padded"
    assert "".join(session.stream("q")) == "x"
    special = byte_tokenizer.special_id
    assert session._cache.ids == [
        *(256, 257, special("<|user|>"), *b"\nq"),
        *(special("<|assistant|>"), *b"\npadded"),
        *(special("<|user|>"), *b"\nq", special("<|assistant|>"), *b"x"),
    ]


def test_chat_interrupted_keeps_what_was_said(answering_model, byte_tokenizer, checkpoint):
    session = ChatSession(answering_model(["abcdef", "next"]), byte_tokenizer, checkpoint())
    with contextlib.closing(session.stream("q")) as pieces:
        assert [next(pieces), next(pieces)] == ["a", "b"]
    assert session.messages[-1] == Message("assistant", "ab")
    assert session.last_turn.finish_reason == "interrupted"
    assert "".join(session.stream("q")) == "next"


def test_chat_ctrl_c_inside_the_model_keeps_what_was_said(fake_model, byte_tokenizer, checkpoint):
    opening = byte_tokenizer.special_id("<|assistant|>")

    def reply(ids):
        if ids[-2:] == [*b"ab"]:
            raise KeyboardInterrupt
        return b"ab"[len(ids) - 1 - ids.index(opening)]

    session = ChatSession(fake_model(reply), byte_tokenizer, checkpoint())
    pieces = session.stream("q")
    assert [next(pieces), next(pieces)] == ["a", "b"]
    with pytest.raises(KeyboardInterrupt):
        next(pieces)
    assert session.messages[-1] == Message("assistant", "ab")


def test_chat_failed_or_silent_turn_leaves_history(fake_model, byte_tokenizer, checkpoint):
    session = ChatSession(
        fake_model(lambda _: np.full(9, np.nan, np.float32)), byte_tokenizer, checkpoint()
    )
    with pytest.raises(FloatingPointError, match="logits are NaN"):
        list(session.stream("q"))
    assert session.messages == ()

    def interrupt(_):
        raise KeyboardInterrupt

    session = ChatSession(fake_model(interrupt), byte_tokenizer, checkpoint())
    with pytest.raises(KeyboardInterrupt):
        list(session.stream("q"))
    assert session.messages == ()


def test_chat_too_long_conversation_names_both_numbers(answering_model, byte_tokenizer, checkpoint):
    session = ChatSession(answering_model(["a"]), byte_tokenizer, checkpoint(max_length=50))
    message = r"conversation has 65 tokens and the context holds 50 \(the model's seq_length is 400"
    with pytest.raises(ContextLengthError, match=message):
        list(session.stream("x" * 60))
    assert session.messages == ()
    assert "".join(session.stream("short")) == "a"


def test_chat_max_new_tokens_ends_an_answer(answering_model, byte_tokenizer, checkpoint):
    model = answering_model(["a" * 30])
    session = ChatSession(model, byte_tokenizer, checkpoint(), max_new_tokens=4)
    assert "".join(session.stream("q")) == "aaaa"
    assert (session.last_turn.new_tokens, session.last_turn.finish_reason) == (4, "max_new_tokens")


def test_chat_clear_keeps_the_system_message(answering_model, byte_tokenizer, checkpoint):
    model = answering_model(["a"], opening="<|im_start|>", stop="<|im_end|>")
    model.reply = lambda _: byte_tokenizer.special_id("<|im_end|>")
    session = ChatSession(model, byte_tokenizer, checkpoint("chatml", default_system="default"))
    assert "".join(session.stream("q")) == ""
    assert len(session.messages) == 3
    session.clear()
    assert session.messages == (Message("system", "default"),)


def test_chat_chatglm2_has_no_system_message(fake_model, byte_tokenizer, checkpoint):
    with pytest.raises(ValueError, match="ChatGLM2 has no system message"):
        ChatSession(fake_model(lambda _: 1), byte_tokenizer, checkpoint("chatglm2"), system="s")


def test_chat_never_streams_half_a_character(answering_model, byte_tokenizer, checkpoint):
    session = ChatSession(answering_model(["你好😀"]), byte_tokenizer, checkpoint())
    assert list(session.stream("q")) == ["你", "好", "😀"]


TEXT = st.lists(st.sampled_from(["[", "[[训", "[[训练时间]]", "时间]]", " ", "\n", "a", "年"]))


@settings(deadline=None)
@given(TEXT)
def test_answer_cleaner_streams_what_the_published_code_returns(parts):
    cleaner = _AnswerCleaner(fill_in_date=True)
    streamed = [cleaner.push(part) for part in parts]
    got = "".join(streamed) + cleaner.flush()
    assert got == "".join(parts).strip().replace("[[训练时间]]", "2023年")


@settings(deadline=None)
@given(TEXT)
def test_answer_cleaner_without_date_only_strips(parts):
    cleaner = _AnswerCleaner(fill_in_date=False)
    got = "".join([cleaner.push(part) for part in parts]) + cleaner.flush()
    assert got == "".join(parts).strip()
