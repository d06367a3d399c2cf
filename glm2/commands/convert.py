"""``glm2 convert``: quantise a checkpoint and pack it for the operators, or write the published form."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from glm2.convert import Target

_QUANTIZE = ("int4", "int8", "int4-g128", "int4-g64", "int4-g32", "none")


def command(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Checkpoint folder.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to make.")],
    quantize: Annotated[
        str | None,
        typer.Option(
            help="int4 or int8, with a scale a row as published; int4-g128, -g64 or -g32, with a "
            "scale a group; none [default: int4; of a quantised source, what it is]."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="Output layer: fp16, int8 or int4 [default: int8; fp16 with --quantize none]."
        ),
    ] = None,
    activation_bits: Annotated[
        int, typer.Option(help="Activations of quantised products: 8 or 16 bits.")
    ] = 8,
    to: Annotated[
        str, typer.Option(help="packed, for glm2; or hf, the published form.")
    ] = "packed",
) -> None:
    """Convert a checkpoint, a few rows at a time.

    An interrupted run goes on where it stopped. What was written is read back and compared.
    """
    from glm2.commands._options import note
    from glm2.config import read_checkpoint_config
    from glm2.convert import convert_checkpoint
    from glm2.hub import find_checkpoint
    from glm2.progress import stage_progress

    folder = find_checkpoint(source)
    checkpoint = read_checkpoint_config(folder)
    if quantize is None:
        bits = checkpoint.quantization_bit
        quantize = "int4" if bits is None else f"int{bits}"
        if checkpoint.packed is not None:
            quantize = checkpoint.packed.weights.replace("fp16", "none")
    wanted = _target(quantize, head, activation_bits, to)
    if to == "hf" and checkpoint.packed is not None and checkpoint.packed.head != "fp16":
        note(
            f"{folder}: its output layer is {checkpoint.packed.head}: the published one gets what these "
            "integers stand for, not the floats that they were made from"
        )
    started_s = time.perf_counter()
    with stage_progress() as report:
        convert_checkpoint(folder, target, wanted, report=report)
    num_bytes = sum(path.stat().st_size for path in target.glob("*.safetensors"))
    took_s = time.perf_counter() - started_s
    typer.echo(f"{target}: {quantize}, {num_bytes / 1e9:.2f} GB, checked, in {took_s:.0f} s")


def _target(quantize: str, head: str | None, activation_bits: int, to: str) -> Target:
    """Turn the options into what is to be written; wrong ones are exit code 2."""
    from glm2.convert import PublishedFormat
    from glm2.packed_format import HEAD_FORMATS, PackedFormat

    for option, value, known in (
        ("--quantize", quantize, _QUANTIZE),
        ("--head", head, (None, *HEAD_FORMATS)),
        ("--to", to, ("packed", "hf")),
        ("--activation-bits", activation_bits, (8, 16)),
    ):
        if value not in known:
            names = ", ".join(str(name) for name in known if name is not None)
            msg = f"{option} is {value!r}; expected one of {names}"
            raise typer.BadParameter(msg)
    if to == "hf":
        if "-g" in quantize or head not in (None, "fp16"):
            msg = (
                "--to hf writes the published form, which has int8, int4 or none with a scale a row, "
                "and an output layer of floats"
            )
            raise typer.BadParameter(msg)
        return PublishedFormat({"none": None, "int8": 8, "int4": 4}[quantize])
    weights = "fp16" if quantize == "none" else quantize
    default_head = "fp16" if quantize == "none" else "int8"
    return PackedFormat(
        weights=weights,  # type: ignore[arg-type]
        head=head or default_head,  # type: ignore[arg-type]
        activation_bits=activation_bits,
    )
