import pytest

from glm2.prompt import (
    Message,
    build_continuation,
    build_prompt,
    read_history,
    render_prompt,
    stop_ids,
)
from glm2.tokenizer import ChatGLMTokenizer

ROUNDS = [Message("user", "q1"), Message("assistant", "a1"), Message("user", "q2")]


def test_chatglm2_rounds_are_one_text(byte_tokenizer):
    ids = build_prompt(byte_tokenizer, ROUNDS, "chatglm2")
    assert ids[:2] == [256, 257]
    wanted = "[Round 1]\n\n问：q1\n\n答：a1\n\n[Round 2]\n\n问：q2\n\n答："  # noqa: RUF001
    assert bytes(ids[2:]).decode() == wanted


def test_chatglm3_roles_are_tokens(byte_tokenizer):
    messages = [
        Message("system", "s"),
        Message("user", "<|user|>"),
        Message("assistant", "a", metadata="tool"),
        Message("observation", "o"),
    ]
    special = byte_tokenizer.special_id
    assert build_prompt(byte_tokenizer, messages, "chatglm3") == [
        *(256, 257),
        *(special("<|system|>"), *b"\ns"),
        *(special("<|user|>"), *b"\n<|user|>"),
        *(special("<|assistant|>"), *b"tool\na"),
        *(special("<|observation|>"), *b"\no"),
        special("<|assistant|>"),
    ]


def test_chatml_turns_are_closed(byte_tokenizer):
    start, end = byte_tokenizer.special_id("<|im_start|>"), byte_tokenizer.special_id("<|im_end|>")
    assert build_prompt(byte_tokenizer, [Message("system", "s"), *ROUNDS[:1]], "chatml") == [
        *(start, *b"system\ns", end, *b"\n"),
        *(start, *b"user\nq1", end, *b"\n"),
        *(start, *b"assistant\n"),
    ]


@pytest.mark.parametrize(
    ("messages", "chat_format", "message"),
    [
        ([], "chatglm3", "no messages"),
        (ROUNDS[:2], "chatglm3", "the last message is from the assistant"),
        ([Message("system", "s")], "chatml", "the last message is from the system"),
        ([Message("system", "s"), *ROUNDS], "chatglm2", "ChatGLM2 has no system message"),
        ([ROUNDS[0], ROUNDS[0]], "chatglm2", r"message 1 is from the user.*expected assistant"),
        ([Message("observation", "o")], "chatml", "ChatML has no observation"),
        (ROUNDS, "llama", "chat_format is 'llama'; expected one of chatglm2, chatglm3, chatml"),
    ],
)
def test_build_prompt_refuses_what_the_format_cannot_say(
    byte_tokenizer, messages, chat_format, message
):
    with pytest.raises(ValueError, match=message):
        build_prompt(byte_tokenizer, messages, chat_format)


def test_message_refuses_unknown_role():
    with pytest.raises(ValueError, match="role is 'tool'; expected one of system, user"):
        Message("tool", "x")


def test_stop_ids_of_each_format(byte_tokenizer):
    names = {
        "chatglm2": [],
        "chatglm3": ["<|user|>", "<|observation|>"],
        "chatml": ["<|im_end|>", "<|endoftext|>"],
    }
    for chat_format, stops in names.items():
        assert stop_ids(byte_tokenizer, chat_format) == {*map(byte_tokenizer.special_id, stops)}


def test_chatglm3_prompt_of_the_real_tokenizer(real_tokenizer_file):
    tokenizer = ChatGLMTokenizer(real_tokenizer_file)
    ids = build_prompt(tokenizer, [Message("user", "你好")], "chatglm3")
    assert ids == [64790, 64792, 64795, 30910, 13, 36474, 54591, 64796]
    assert stop_ids(tokenizer, "chatglm3") == {64795, 64797}


@pytest.mark.parametrize("chat_format", ["chatglm2", "chatglm3", "chatml"])
def test_prompt_may_stop_behind_the_last_message(byte_tokenizer, chat_format):
    whole = build_prompt(byte_tokenizer, ROUNDS, chat_format)
    for count in (1, 2, 3):
        messages = ROUNDS[:count]
        ids = build_prompt(byte_tokenizer, messages, chat_format, add_generation_prompt=False)
        assert whole[: len(ids)] == ids
        text = render_prompt(messages, chat_format, add_generation_prompt=False)
        content = messages[-1].content + ("" if chat_format == "chatglm3" else "<|im_end|>\n")
        assert text.endswith(f"{content[:2]}\n\n" if chat_format == "chatglm2" else content)
    system = [Message("system", "s")]
    if chat_format == "chatglm2":
        with pytest.raises(ValueError, match="ChatGLM2 has no system message"):
            build_prompt(byte_tokenizer, system, chat_format, add_generation_prompt=False)
    else:
        assert build_prompt(byte_tokenizer, system, chat_format, add_generation_prompt=False)


def test_rendered_prompts_name_their_roles():
    messages = [Message("user", "q"), Message("assistant", "a", "tool"), Message("user", "x")]
    assert render_prompt(messages, "chatglm3") == (
        "<|user|>\nq<|assistant|>tool\na<|user|>\nx<|assistant|>"
    )
    turn = "<|im_start|>{}\n{}<|im_end|>\n".format
    assert render_prompt(messages, "chatml") == (
        turn("user", "q") + turn("assistant", "a") + turn("user", "x") + "<|im_start|>assistant\n"
    )
    with pytest.raises(ValueError, match="chat_format is 'llama'"):
        render_prompt(messages, "llama")
    with pytest.raises(ValueError, match="no messages"):
        render_prompt([], "chatml")


def test_history_is_pairs_or_dicts():
    wanted = [Message("user", "q"), Message("assistant", "a", "tool")]
    assert read_history([("q", "a")]) == read_history([["q", "a"]])
    dicts = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "metadata": "tool"},
    ]
    assert read_history(dicts) == wanted
    system = {"role": "system", "content": "s", "tools": {"名": None}}
    assert read_history([system]) == [Message("system", 's\n{\n    "名": null\n}')]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("q", r"the history has an entry 'q'; expected \(question, answer\), or a dict"),
        (("q",), r"the history has an entry \('q',\)"),
        (("q", None), r"the history has an entry \('q', None\)"),
        ({"role": "user"}, r"a message is \{'role': 'user'\}; expected a dict with role and cont"),
        ({"content": "q"}, "expected a dict with role and content"),
        ({"role": "user", "content": None}, "expected a dict with role and content"),
        ({"role": "user", "content": "q", "metadata": 1}, "expected a dict with role and content"),
        ({"role": "user", "content": "q", "name": "x"}, "expected a dict with role and content"),
        ({"role": "tool", "content": "q"}, "role is 'tool'; expected one of system, user"),
        ({"role": "user", "content": "q", "tools": []}, "the user message has tools; they belong"),
        (
            {"role": "system", "content": "s", "tools": [object()]},
            "the system message has tools that JSON cannot hold .*; pass plain data",
        ),
    ],
)
def test_history_of_something_else_is_an_error(entry, message):
    with pytest.raises(ValueError, match=message):
        read_history([entry])


def test_message_is_a_dict():
    with pytest.raises(ValueError, match="a message is 'q'; expected a dict"):
        Message.from_dict("q")


@pytest.mark.parametrize("chat_format", ["chatglm2", "chatglm3", "chatml"])
def test_continuation_is_what_a_longer_prompt_adds(byte_tokenizer, chat_format):
    answered = build_prompt(byte_tokenizer, ROUNDS[:2], chat_format, add_generation_prompt=False)
    ending = {"chatglm2": b"\n\n", "chatglm3": b"", "chatml": b"x\n"}[chat_format]  # x: <|im_end|>
    answered = answered[: len(answered) - len(ending)]
    new = build_continuation(byte_tokenizer, ROUNDS[2], chat_format, round_number=2)
    assert [*answered, *new] == build_prompt(byte_tokenizer, ROUNDS, chat_format)


def test_continuation_of_the_real_tokenizer_has_no_space_in_front(real_tokenizer_file):
    tokenizer = ChatGLMTokenizer(real_tokenizer_file)
    ids = build_continuation(tokenizer, Message("user", "你好"), "chatglm2", round_number=2)
    assert ids == [
        *(13, 13, 30995, 30951, 517, 30910, 30943, 30996, 13, 13, 54761, 31211),
        *(39701, 13, 13, 55437, 31211),
    ]
