"""From the text of an answer to what the published chat code returns."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

_DATE_MARKER, _DATE = "[[训练时间]]", "2023年"
_TURN_MARKER = "<|assistant|>"
_CALL = "tool_call"


class ToolCallError(ValueError):
    """ChatGLM3 calls a tool in a way that cannot be read; ``output`` is the whole answer."""

    def __init__(self, message: str, output: str) -> None:
        super().__init__(message)
        self.output = output


def clean_response(output: str) -> str:
    """Return ChatGLM2's answer without white space around it, the training date filled in.

    References
    ----------
    ChatGLM2-6B ``modeling_chatglm.process_response``.
    """
    return output.strip().replace(_DATE_MARKER, _DATE)


def process_response(
    output: str, history: Sequence[Mapping[str, Any]]
) -> tuple[str | dict[str, Any], list[dict[str, Any]]]:
    """Split ChatGLM3's answer into turns, and return what its last one says.

    Parameters
    ----------
    output : str
        What followed ``<|assistant|>``; further turns stand behind further markers. A turn's first
        line is its metadata: empty, or the tool that it calls.
    history : sequence of mapping
        The conversation, the question included; not changed. Where its first entry is a system
        message with ``tools``, a call is parsed.

    Returns
    -------
    response : str or dict
        The text; or ``{"name", "parameters"}`` of a tool call, ``{"name", "content"}`` where the
        conversation has no tools.
    history : list of dict
        With one entry a turn: ``role``, ``metadata``, ``content``.

    Raises
    ------
    ToolCallError
        If the last turn calls a tool and is not ``tool_call(name=literal, ...)`` between fences.

    Notes
    -----
    The published code runs ``eval`` on every call. Here the last one is read as Python literals,
    the earlier ones are left alone, and nothing that a model writes is ever run. The history keeps
    the date marker, as the published one does.

    References
    ----------
    ChatGLM3-6B ``modeling_chatglm.process_response``.
    """
    return process_turns(output.split(_TURN_MARKER), history)


def process_turns(
    turns: Sequence[str], history: Sequence[Mapping[str, Any]]
) -> tuple[str | dict[str, Any], list[dict[str, Any]]]:
    """Do as `process_response`, with the turns of an answer apart already.

    Where they were split at the role's token, text that only looks like it is text.
    """
    output = _TURN_MARKER.join(turns)
    new_history = [dict(entry) for entry in history]
    metadata = content = ""
    for turn in turns:
        metadata, content = turn.split("\n", maxsplit=1) if "\n" in turn else ("", turn)
        if not metadata.strip():
            content = content.strip()
        new_history.append({"role": "assistant", "metadata": metadata, "content": content})
    name = metadata.strip()
    if not name:
        return content.replace(_DATE_MARKER, _DATE), new_history
    if new_history[0].get("role") == "system" and "tools" in new_history[0]:
        return {"name": name, "parameters": _parameters(name, content, output)}, new_history
    return {"name": name, "content": content}, new_history


def _parameters(name: str, content: str, output: str) -> dict[str, Any]:
    """Read ``tool_call(a=1, b='x')``; its fences are the first and the last line."""
    body = "\n".join(content.rstrip().split("\n")[1:-1]).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in the model's strings
            return _arguments(ast.parse(body, mode="eval").body)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        msg = (
            f"the answer calls the tool {name!r} in a way that cannot be read "
            f"({type(error).__name__}: {error}); expected {_CALL}(name=value, ...) with Python "
            f"literals between two lines of ```, got {content[:200]!r}. Ask again"
        )
        raise ToolCallError(msg, output) from error


def _arguments(call: ast.expr) -> dict[str, Any]:
    """Return the named arguments of a call, refusing anything but literals."""
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        msg = f"no call of {_CALL}"
        raise ValueError(msg)
    if call.func.id != _CALL:
        msg = f"a call of {call.func.id}"
        raise ValueError(msg)
    arguments: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None or keyword.arg in arguments:
            msg = "an argument that is given twice or spread"
            raise ValueError(msg)
        arguments[keyword.arg] = ast.literal_eval(keyword.value)
    if call.args:
        msg = "an argument without a name"
        raise ValueError(msg)
    return arguments
