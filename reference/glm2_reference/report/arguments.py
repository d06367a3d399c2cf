"""Argument types that the reports share."""

from __future__ import annotations

import argparse
import math


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default is None or action.default is False:
            return action.help
        return super()._get_help_string(action)


def check_tiles(rows: int, keys: int, block_m: int, block_n: int, *, most: int) -> None:
    """Require a walk of at most ``most`` tiles, which take about 25 microseconds each.

    Raises
    ------
    ValueError
        If there are more.
    """
    tiles = -(-rows // block_m) * -(-keys // block_n)
    if tiles > most:
        msg = (
            f"{rows:,} x {keys:,} in tiles of {block_m} x {block_n} are {tiles:,} tiles; at most "
            f"{most:,} are walked; raise --block-m or --block-n, or lower --seq-len"
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


def positive_number(text: str) -> float:
    """Read a finite number above 0.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is something else.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        msg = f"{text!r} is not a number above 0"
        raise argparse.ArgumentTypeError(msg)
    return value
