"""Conversations to token ids, as ChatGLM2, ChatGLM3 and ChatML write them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

from glm2.config import CHAT_FORMATS, ChatFormat
from glm2.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant", "observation"]


@dataclasses.dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Parameters
    ----------
    role : "system", "user", "assistant" or "observation"
        Only ChatGLM3 knows observations (results of tools); ChatGLM2 knows no system message.
    content : str
        The text.
    metadata : str
        ChatGLM3 only, for the assistant: name of the tool that it calls.
    """

    role: Role
    content: str
    metadata: str = ""

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            msg = f"role is {self.role!r}; expected one of {', '.join(get_args(Role))}"
            raise ValueError(msg)


def build_prompt(
    tokenizer: Tokenizer, messages: Sequence[Message], chat_format: ChatFormat
) -> list[int]:
    """Encode a conversation up to where the assistant's next answer starts.

    Parameters
    ----------
    tokenizer : Tokenizer
        Role names and other special tokens inside a message's content stay plain text.
    messages : sequence of Message
        The conversation, ending with what is to be answered.
    chat_format : "chatglm2", "chatglm3" or "chatml"
        ChatGLM2 numbers rounds from 1, ChatGLM3 and ChatML mark roles with special tokens.

    Returns
    -------
    token_ids : list of int

    Raises
    ------
    ValueError
        If the format is unknown, or cannot express the messages: the error says which one.

    References
    ----------
    ChatGLM2-6B ``tokenization_chatglm.build_prompt``; ChatGLM3-6B
    ``tokenization_chatglm.build_chat_input``; the chat template of SmolLM2.
    """
    if not messages:
        msg = "there are no messages; a prompt needs at least one from the user"
        raise ValueError(msg)
    if messages[-1].role in ("assistant", "system"):
        msg = f"the last message is from the {messages[-1].role}; there is nothing to answer"
        raise ValueError(msg)
    if chat_format == "chatglm2":
        return _chatglm2(tokenizer, messages)
    if chat_format == "chatglm3":
        return _chatglm3(tokenizer, messages)
    if chat_format == "chatml":
        return _chatml(tokenizer, messages)
    msg = f"chat_format is {chat_format!r}; expected one of {', '.join(CHAT_FORMATS)}"
    raise ValueError(msg)


def stop_ids(tokenizer: Tokenizer, chat_format: ChatFormat) -> frozenset[int]:
    """Return the ids at which an answer ends, besides those that config.json names.

    ChatGLM3 may start another role's turn, which ends its own; ChatML closes each turn.
    """
    names = {
        "chatglm2": (),
        "chatglm3": ("<|user|>", "<|observation|>"),
        "chatml": ("<|im_end|>", "<|endoftext|>"),
    }[chat_format]
    return frozenset(tokenizer.special_id(name) for name in names)


def _chatglm2(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """One text of numbered rounds, encoded at once."""
    text = ""
    for index, message in enumerate(messages):
        wanted = "assistant" if index % 2 else "user"
        if message.role != wanted:
            msg = (
                f"message {index} is from the {message.role}, but a ChatGLM2 conversation "
                f"alternates user and assistant (expected {wanted})"
            )
            if message.role == "system":
                msg += "; ChatGLM2 has no system message: put the text into the first question"
            raise ValueError(msg)
        if message.role == "user":
            text += f"[Round {index // 2 + 1}]\n\n问：{message.content}\n\n答："  # noqa: RUF001
        else:
            text += f"{message.content}\n\n"
    return [*_prefix(tokenizer), *tokenizer.encode(text)]


def _chatglm3(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """For each message its role token, then metadata and content encoded apart."""
    token_ids = _prefix(tokenizer)
    for message in messages:
        token_ids.append(tokenizer.special_id(f"<|{message.role}|>"))
        token_ids += tokenizer.encode(f"{message.metadata}\n")
        token_ids += tokenizer.encode(message.content)
    return [*token_ids, tokenizer.special_id("<|assistant|>")]


def _chatml(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Each turn between ``<|im_start|>`` and ``<|im_end|>``."""
    start, end = tokenizer.special_id("<|im_start|>"), tokenizer.special_id("<|im_end|>")
    newline = tokenizer.encode("\n")
    token_ids: list[int] = []
    for message in messages:
        if message.role == "observation":
            msg = "ChatML has no observation messages; pass the text as the user's"
            raise ValueError(msg)
        turn = tokenizer.encode(f"{message.role}\n{message.content}")
        token_ids += [start, *turn, end, *newline]
    return [*token_ids, start, *tokenizer.encode("assistant\n")]


def _prefix(tokenizer: Tokenizer) -> list[int]:
    """Return the ids that open every ChatGLM prompt."""
    return [tokenizer.special_id("[gMASK]"), tokenizer.special_id("sop")]
