"""``glm2 report``: the reference's reports on what attention moves, needs and sees.

``glm2 report kernel`` is about a real kernel, on the twin's check mode.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Annotated, Any

import typer

from glm2.commands._kernel_calls import CALLS
from glm2_reference.report.__main__ import main
from glm2_reference.report.arguments import HelpFormatter, positive
from glm2_reference.report.document import Report, Table, to_json, to_text

_LEVELS = ("gm", "workspace", "l1", "l0a", "l0b", "l0c", "ub")

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
            metavar="REPORT [OPTIONS]",
            help="steps, hbm, mqa, kv, masks or kernel, and its options.",
        ),
    ] = None,
) -> None:
    """Print what attention moves, needs and sees: steps, hbm, mqa, kv, masks, kernel."""
    if arguments and arguments[0] == "kernel":
        status = _kernel(arguments[1:])
    else:
        status = main(arguments or ["--help"], program="glm2 report")
    sys.stdout.flush()
    raise typer.Exit(status)


def _kernel(arguments: list[str]) -> int:
    """Print what a kernel moves; 2 where the operator refuses the shape."""
    args = _kernel_parser().parse_args(arguments)
    try:
        report = _kernel_report(args)
    except (ValueError, ImportError) as error:
        print(f"glm2 report kernel: {error}", file=sys.stderr)
        return 2
    print(json.dumps(to_json(report)) if args.json else to_text(report))
    return 0


def _kernel_parser() -> argparse.ArgumentParser:
    """Make the parser of ``glm2 report kernel``; the defaults are those of ChatGLM2-6B."""
    parser = argparse.ArgumentParser(
        prog="glm2 report kernel",
        description="What a kernel moves on the twin's check mode, by tensor and memory.",
        formatter_class=HelpFormatter,
    )
    parser.add_argument("operator", choices=sorted(CALLS))
    parser.add_argument("--batch", type=positive, default=1, help="sequences")
    parser.add_argument("--seq-len-q", type=positive, default=1, help="query tokens of each")
    parser.add_argument("--seq-len-kv", type=positive, default=1024, help="keys of each")
    parser.add_argument("--heads", type=positive, default=32)
    parser.add_argument("--kv-heads", type=positive, default=2)
    parser.add_argument("--head-dim", type=positive, default=128)
    parser.add_argument("--hidden-size", type=positive, default=4096)
    parser.add_argument("--ffn-hidden-size", type=positive, default=13696)
    parser.add_argument("--dtype", choices=["float16", "float32"], default="float16")
    parser.add_argument("--cores", type=positive, default=2, help="logical cores")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    return parser


def _kernel_report(args: argparse.Namespace) -> Report:
    """Run the kernel once under all checks, and tabulate its counters.

    Raises
    ------
    ValueError
        If the operator does not serve the shape.
    """
    import glm2_ops

    operands, options = CALLS[args.operator](args)
    report = glm2_ops.check(args.operator, *operands, schedules=0, cores=args.cores, **options)
    tables: list[Table] = []
    for counters in report.counters:
        rows = [
            (level, tensor, counts["read_bytes"], counts["write_bytes"], counts["bursts"])
            for level in _LEVELS
            for tensor, counts in counters[level].items()
        ]
        tables.append(
            Table(
                f"{counters['kernel']}: moves",
                ("memory", "tensor", "bytes read", "bytes written", "bursts"),
                rows,
                note="A move counts in both of its memories. Bursts are contiguous runs in GM, and "
                "fractals between L1 and L0.",
            )
        )
        tables.append(
            Table(
                f"{counters['kernel']}: instructions",
                ("pipe", "instructions"),
                sorted(counters["instructions"].items()),
                note="Of all cores together.",
            )
        )
        tables.append(_model_table(counters))
    tables.append(
        Table(
            "Findings", ("severity", "rule", "place", "times"),
            [(f.severity, f.rule, f"{f.file}:{f.line}", f.count) for f in report.findings],
        )
    )  # fmt: skip
    return Report(
        title="A kernel on the twin",
        question="What does this kernel move, and would hardware punish it?",
        tables=tables,
        charts=[],
        data={
            "report": "kernel",
            "counters": report.counters,
            "findings": [str(finding) for finding in report.findings],
        },
    )


def _model_table(counters: dict[str, Any]) -> Table:
    model = counters["model"]
    rows = [(pipe, round(100 * busy, 1)) for pipe, busy in sorted(model["busy"].items())]
    return Table(
        f"{counters['kernel']}: pipe-time model of dav-2201",
        ("pipe", "% busy"),
        rows,
        note=f"A model, not a measurement: {model['cycles']:,.0f} cycles at 1.8 GHz are "
        f"{model['microseconds']:,.1f} microseconds, bound by {model['bound_by']}. Every pipe runs at "
        "its peak, and starting a call costs nothing.",
    )
