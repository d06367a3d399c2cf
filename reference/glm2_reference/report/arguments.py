"""Argument types that the reports share."""

from __future__ import annotations

import argparse


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def check_steps(steps: int, *, most: int) -> None:
    """Require a walk of at most ``most`` tiles, which take about 25 microseconds each.

    Raises
    ------
    ValueError
        If there are more.
    """
    if steps > most:
        msg = (
            f"this shape takes {steps:,} tiles to walk, and at most {most:,} are; raise --block-m or "
            "--block-n, or lower --seq-len"
        )
        raise ValueError(msg)


def positive(text: str) -> int:
    """Read a whole number of 1 or more.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is something else.
    """
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 2**40:
        msg = f"{text!r} is not a whole number of 1 to 2^40"
        raise argparse.ArgumentTypeError(msg)
    return value


def whole(text: str) -> int:
    """Read a whole number of 0 or more.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is something else.
    """
    return 0 if text.strip() == "0" else positive(text)


def gigabytes(text: str) -> float:
    """Read a size of 0 to 1e9 GB.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is something else.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e9:
        msg = f"{text!r} is not a number of gigabytes, 0 to 1e9"
        raise argparse.ArgumentTypeError(msg)
    return value
