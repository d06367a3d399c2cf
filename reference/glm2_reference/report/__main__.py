"""``python -m glm2_reference.report NAME``: one report, as text, JSON, a page or a drawing."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from glm2_reference.report import hbm, kv, masks, mqa, steps
from glm2_reference.report.arguments import HelpFormatter
from glm2_reference.report.document import to_json, to_text
from glm2_reference.report.page import to_html, to_svg, write_whole

REPORTS: dict[str, ModuleType] = {
    "steps": steps, "hbm": hbm, "mqa": mqa, "kv": kv, "masks": masks
}  # fmt: skip


_BROKEN_PIPE = 141  # 128 + SIGPIPE, as shells report it


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of all reports."""
    parser = argparse.ArgumentParser(
        prog=program, description="What attention moves, needs and sees."
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="REPORT")
    for name, module in REPORTS.items():
        summary = (module.__doc__ or "").partition(": ")[2].splitlines()[0]
        summary = summary[:1].upper() + summary[1:]
        one = names.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=HelpFormatter,
        )
        one.add_argument("--json", action="store_true", help="print one JSON object instead")
        one.add_argument("--html", type=Path, metavar="FILE", help="also write a page")
        one.add_argument("--plot", type=Path, metavar="FILE", help="also write its charts, as SVG")
        module.add_arguments(one)
    return parser


def main(arguments: Sequence[str] | None = None, *, program: str | None = None) -> int:
    """Print a report, and write what was asked for.

    Parameters
    ----------
    arguments : sequence of str or None
        None means the process's.
    program : str or None
        How the program is called, for its help.

    Returns
    -------
    status : int
        0; 2 where the arguments are wrong or something cannot be written (and the reason on stderr);
        141 where the reader of stdout has left.
    """
    parser = make_parser(program or "python -m glm2_reference.report")
    args = parser.parse_args(arguments)
    try:
        if args.html is not None and args.html == args.plot:
            msg = f"--html and --plot both name {args.html}; name two files"
            raise ValueError(msg)
        report = REPORTS[args.name].build(args)
        if args.html is not None:
            _write(args.html, to_html(report))
        if args.plot is not None:
            _write(args.plot, to_svg(report))
        return _print(json.dumps(to_json(report)) if args.json else to_text(report))
    except (ValueError, OSError) as error:
        print(f"{parser.prog} {args.name}: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _write(path: Path, text: str) -> None:
    write_whole(path, text)
    print(f"wrote {path}", file=sys.stderr)  # noqa: T201


def _print(text: str) -> int:
    """Print what a reader may stop reading."""
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        # What is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    return 0


if __name__ == "__main__":
    sys.exit(main())
