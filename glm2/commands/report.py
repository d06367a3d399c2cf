"""``glm2 report``: the reference's reports on what attention moves, needs and sees."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from glm2_reference.report.__main__ import main

# The reference reads the options itself, so that both ways to call it take the same ones.
context_settings = {
    "ignore_unknown_options": True,
    "allow_extra_args": True,
    "help_option_names": [],
}


def command(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="REPORT [OPTIONS]", help="steps, hbm, mqa, kv or masks, and its options."
        ),
    ] = None,
) -> None:
    """Print what attention moves, needs and sees: steps, hbm, mqa, kv, masks."""
    status = main(arguments or ["--help"], program="glm2 report")
    sys.stdout.flush()
    raise typer.Exit(status)
