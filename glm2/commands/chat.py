"""``glm2 chat``: a conversation in the terminal, or one answer with ``-p``."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from glm2.commands._options import (
    CacheDtype,
    ChatFormat,
    DemoWheel,
    ModelName,
    PrefixEncoder,
    RepetitionPenalty,
    Seed,
    Temperature,
    TopK,
    TopP,
    given_sampling,
    note,
    open_checkpoint,
)

if TYPE_CHECKING:
    from glm2.chat import ChatSession, TurnStats

_HELP = 'Type a question. "clear" starts a new conversation, "exit" or Ctrl-D leaves, Ctrl-C stops an answer.'


def command(
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="Ask this, print the answer, leave.")
    ] = None,
    model: ModelName = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 2048,
    demo_wheel: DemoWheel = None,
    chat_format: ChatFormat = None,
    prefix_encoder: PrefixEncoder = None,
    cache_dtype: CacheDtype = "float16",
) -> None:
    """Chat with ChatGLM2, ChatGLM3 or the demo weights.

    The answer goes to stdout, everything else to stderr.
    """
    sampling = given_sampling(temperature, top_p, top_k, repetition_penalty, seed)
    if prompt is not None and not prompt.strip():
        msg = "-p is empty; give it a question, or leave it out to chat"
        raise typer.BadParameter(msg)
    opened = open_checkpoint(
        model,
        chat_format,
        demo_wheel=demo_wheel,
        prefix_encoder=prefix_encoder,
        cache_dtype=cache_dtype,
    )
    from glm2.chat import ChatSession

    checkpoint = opened.model.checkpoint
    session = ChatSession(
        opened.model.model,
        opened.tokenizer.tokenizer,
        checkpoint,
        system=system,
        sampling=dataclasses.replace(checkpoint.sampling, **sampling),
        max_new_tokens=max_new_tokens,
    )
    if prompt is None:
        _converse(session)
    else:
        _print_answer(session, prompt)


def _converse(session: ChatSession) -> None:
    """Ask and answer until the input ends; an error ends a turn, not the conversation."""
    if sys.stdin.isatty():
        note(_HELP)
    for text in _questions():
        if text == "exit":
            return
        if text == "clear":
            session.clear()
            note("New conversation.")
            continue
        try:
            _print_answer(session, text)
        except KeyboardInterrupt:
            note("[stopped]")
        except (ValueError, FloatingPointError) as error:
            note(f"glm2: {error}")


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
            note("")
            return
        except KeyboardInterrupt:
            note('\n"exit" or Ctrl-D leaves.')
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
        note(_summary(session.last_turn))


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
