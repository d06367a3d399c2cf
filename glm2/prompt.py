"""Conversations to token ids, as ChatGLM2, ChatGLM3 and ChatML write them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

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
        for name in ("content", "metadata"):
            if not isinstance(getattr(self, name), str):
                msg = f"{name} of a message is {getattr(self, name)!r}; expected a string"
                raise TypeError(msg)

    @classmethod
    def from_dict(cls, entry: Any) -> Message:
        """Read an entry of a history as the published ChatGLM3 code has them.

        Parameters
        ----------
        entry : mapping
            ``role`` and ``content``; for the assistant also ``metadata``; for the system also
            ``tools``, anything that JSON can hold, which is written out below the content.

        Raises
        ------
        ValueError
            If it is no mapping, or a key is missing, unknown or of another type.
        """
        fields = dict(entry) if isinstance(entry, Mapping) else {}
        strings = [fields.get("role"), fields.get("content"), fields.get("metadata", "")]
        unknown = set(fields) - {"role", "content", "metadata", "tools"}
        if unknown or not all(isinstance(value, str) for value in strings):
            msg = f"a message is {entry!r}; expected a dict with role and content, metadata, tools"
            raise ValueError(msg)
        message = cls(fields["role"], fields["content"], fields.get("metadata", ""))
        if "tools" not in fields:
            return message
        if message.role != "system":
            msg = f"the {message.role} message has tools; they belong to the system message"
            raise ValueError(msg)
        try:
            tools = json.dumps(fields["tools"], indent=4, ensure_ascii=False)
        except (TypeError, ValueError, RecursionError) as error:
            msg = f"the system message has tools that JSON cannot hold ({error}); pass plain data"
            raise ValueError(msg) from error
        return dataclasses.replace(message, content=f"{message.content}\n{tools}")


class Prompt(str):
    """A conversation as text to read, with the token ids that it really stands for.

    `glm2.chat_tokenizer.ChatTokenizer` encodes it to them. What is cut out of it or joined to it is
    plain text, in which names of roles are text as well.
    """

    token_ids: tuple[int, ...] = ()
    made_for: tuple[str, int] = ("", 0)

    @classmethod
    def of(cls, text: str, token_ids: Sequence[int], made_for: tuple[str, int]) -> Prompt:
        """Join a text and what it stands for; ``made_for`` is a chat format and a vocabulary's size."""
        prompt = cls(text)
        prompt.token_ids, prompt.made_for = tuple(token_ids), made_for
        return prompt


def read_history(history: Sequence[Any]) -> list[Message]:
    """Turn a history into messages.

    Parameters
    ----------
    history : sequence
        Each entry a pair (question, answer) as ChatGLM2's, or a dict as ChatGLM3's.

    Raises
    ------
    ValueError
        If an entry is neither.
    """
    messages = []
    for entry in history:
        match entry:
            case (str(question), str(answer)):
                messages += [Message("user", question), Message("assistant", answer)]
            case Mapping():
                messages.append(Message.from_dict(entry))
            case _:
                msg = (
                    f"the history has an entry {entry!r}; expected (question, answer), or a dict "
                    "with role and content"
                )
                raise ValueError(msg)
    return messages


def build_prompt(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    chat_format: ChatFormat,
    *,
    add_generation_prompt: bool = True,
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
    add_generation_prompt : bool
        False stops behind the last message, which may then be anyone's.

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
    _check_messages(messages, chat_format, add_generation_prompt)
    if chat_format == "chatglm2":
        return [*_prefix(tokenizer), *tokenizer.encode(_rounds(messages, add_generation_prompt))]
    if chat_format == "chatglm3":
        token_ids = _chatglm3(tokenizer, messages)
        return token_ids if add_generation_prompt else token_ids[:-1]
    token_ids = _chatml(tokenizer, messages)
    opening = 1 + len(tokenizer.encode("assistant\n"))
    return token_ids if add_generation_prompt else token_ids[:-opening]


def render_prompt(
    messages: Sequence[Message], chat_format: ChatFormat, *, add_generation_prompt: bool = True
) -> str:
    """Write a conversation as text to read; parameters and errors as `build_prompt` has them.

    Only in ChatGLM2 does the text say it all. In the others, role tokens look like their names.
    """
    _check_messages(messages, chat_format, add_generation_prompt)
    if chat_format == "chatglm2":
        return _rounds(messages, add_generation_prompt)
    chatml = chat_format == "chatml"
    text = "".join(
        f"<|im_start|>{message.role}\n{message.content}<|im_end|>\n"
        if chatml
        else f"<|{message.role}|>{message.metadata}\n{message.content}"
        for message in messages
    )
    opening = "<|im_start|>assistant\n" if chatml else "<|assistant|>"
    return text + opening if add_generation_prompt else text


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


def build_continuation(
    tokenizer: Tokenizer, message: Message, chat_format: ChatFormat, round_number: int
) -> list[int]:
    """Encode a question that follows a cached conversation, whose last answer is in the cache.

    Parameters
    ----------
    tokenizer, message, chat_format
        As `build_prompt` takes them.
    round_number : int
        Number of this round in ChatGLM2, from 1.

    Returns
    -------
    token_ids : list of int
        What is to be fed after the answer's last token, its stop token left out.

    Notes
    -----
    The published ChatGLM3 code repeats the opening ``[gMASK] sop`` here, in the middle of the
    conversation; this does not.

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.build_stream_inputs``.
    """
    if chat_format == "chatglm2":
        text = f"\n\n[Round {round_number}]\n\n问：{message.content}\n\n答："  # noqa: RUF001
        token_ids = tokenizer.encode(text)
        space = tokenizer.encode("\n")[:-1]  # the piece that opens every separately encoded text
        return token_ids[len(space) :] if token_ids[: len(space)] == space else token_ids
    if chat_format == "chatglm3":
        return _chatglm3(tokenizer, [message])[2:]
    end = [tokenizer.special_id("<|im_end|>"), *tokenizer.encode("\n")]
    return [*end, *_chatml(tokenizer, [message])]


def _check_messages(
    messages: Sequence[Message], chat_format: ChatFormat, add_generation_prompt: bool
) -> None:
    """Refuse what no format can encode."""
    if not messages:
        msg = "there are no messages; a prompt needs at least one from the user"
        raise ValueError(msg)
    if add_generation_prompt and messages[-1].role in ("assistant", "system"):
        msg = f"the last message is from the {messages[-1].role}; there is nothing to answer"
        raise ValueError(msg)
    if chat_format not in CHAT_FORMATS:
        msg = f"chat_format is {chat_format!r}; expected one of {', '.join(CHAT_FORMATS)}"
        raise ValueError(msg)


def _rounds(messages: Sequence[Message], add_generation_prompt: bool) -> str:
    """Write ChatGLM2's one text of numbered rounds."""
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
            text += f"[Round {index // 2 + 1}]\n\n问：{message.content}\n\n"  # noqa: RUF001
            if add_generation_prompt or index + 1 < len(messages):
                text += "答："  # noqa: RUF001
        else:
            text += f"{message.content}\n\n"
    return text


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
