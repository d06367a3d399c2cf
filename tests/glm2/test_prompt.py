import pytest

from glm2.prompt import Message, build_prompt, stop_ids
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
