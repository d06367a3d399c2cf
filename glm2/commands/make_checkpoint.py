"""``glm2 make-checkpoint``: random weights of true shapes, for benchmarks and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    target: Annotated[Path, typer.Argument(metavar="DST", help="Folder to make.")],
    like: Annotated[
        str,
        typer.Option(help="chatglm2-6b, chatglm3-6b, tiny, or a folder whose config.json to copy."),
    ] = "chatglm2-6b",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same weights.")] = 0,
    dtype: Annotated[str, typer.Option(help="float16, float32 or bfloat16.")] = "float16",
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.model to copy into the folder.")
    ] = None,
) -> None:
    """Write a checkpoint of random weights under the published names.

    Activations stay near unit size, as in a trained model; what it says means nothing. An
    interrupted run goes on where it stopped.
    """
    from glm2.progress import stage_progress
    from glm2.synthetic_checkpoint import config_like, make_checkpoint

    if dtype not in ("float16", "float32", "bfloat16"):
        msg = f"--dtype is {dtype!r}; expected float16, float32 or bfloat16"
        raise typer.BadParameter(msg)
    if tokenizer is not None and (tokenizer.name != "tokenizer.model" or not tokenizer.is_file()):
        msg = f"--tokenizer {tokenizer} is not a file named tokenizer.model"
        raise typer.BadParameter(msg)
    config, fields = config_like(like)
    with stage_progress() as report:
        make_checkpoint(
            target,
            config,
            seed=seed,
            report=report,
            dtype=dtype,
            fields=fields,
            copied_files=[] if tokenizer is None else [tokenizer],
        )
    typer.echo(f"{target}: random weights like {like}, {dtype}, seed {seed}")
