"""Requests of ``glm2 generate``: a JSON object a line, to the ids of a prompt."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from glm2.chat_tokenizer import ChatTokenizer

_FORMS = ("prompt", "messages", "text", "ids")


@dataclasses.dataclass(frozen=True)
class Request:
    """What one line asks for.

    Parameters
    ----------
    ids : list of int
        The prompt.
    label : object
        The line's ``id``, returned with the answer; None where it has none.
    is_chat : bool
        Whether the answer is a turn of a conversation, and not the rest of a text.
    """

    ids: list[int]
    label: Any
    is_chat: bool


def parse_request(
    line: str, tokenizer: ChatTokenizer, default_system: str | None = None
) -> Request:
    """Read one line.

    Parameters
    ----------
    line : str
        A JSON object with one of: ``prompt``, a question in the chat format; ``messages``, a
        conversation of objects with ``role`` and ``content``; ``text``, to be continued as it is;
        ``ids``, token ids. ``id`` may be anything.
    tokenizer : ChatTokenizer
    default_system : str, optional
        System message in front of a ``prompt``.

    Raises
    ------
    ValueError
        If the line is no such object; the message says what is wrong.
    """
    try:
        line.encode()  # halves of surrogate pairs come from input that was not UTF-8
        fields = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        msg = f"the line is not valid JSON in UTF-8 ({error})"
        raise ValueError(msg) from error
    if not isinstance(fields, dict):
        msg = f"the line holds a JSON {type(fields).__name__}; expected an object"
        raise ValueError(msg)
    forms = [form for form in _FORMS if form in fields]
    unknown = sorted(set(fields) - {*_FORMS, "id"})
    if len(forms) != 1 or unknown:
        extra = f"; unknown: {', '.join(unknown)}" if unknown else ""
        msg = (
            f"the object has {', '.join(forms) or 'none'} of {', '.join(_FORMS)}; expected one of "
            f"them, and id if you like{extra}"
        )
        raise ValueError(msg)
    form = forms[0]
    ids = _prompt_ids(form, fields[form], tokenizer, default_system)
    return Request(ids, fields.get("id"), form in ("prompt", "messages"))


def _refuse_constant(name: str) -> Any:
    """Refuse NaN and Infinity, which Python reads and JSON does not have."""
    msg = f"it holds {name}"
    raise ValueError(msg)


def _prompt_ids(
    form: str, value: Any, tokenizer: ChatTokenizer, default_system: str | None
) -> list[int]:
    """Encode one of the forms."""
    if form == "ids":
        if not isinstance(value, list) or not all(type(token) is int for token in value):
            msg = f"ids is {value!r}; expected a list of integers"
            raise ValueError(msg)
        return value
    if form == "messages":
        if not isinstance(value, list):
            msg = f"messages is a {type(value).__name__}; expected a list of objects"
            raise ValueError(msg)
        return list(tokenizer.apply_chat_template(value))
    if not isinstance(value, str) or not value.strip():
        msg = f"{form} is {value!r}; expected a text that is not empty"
        raise ValueError(msg)
    if form == "prompt":
        system = [{"role": "system", "content": default_system}] if default_system else []
        return list(tokenizer.apply_chat_template([*system, {"role": "user", "content": value}]))
    return tokenizer.encode(value)
