"""`steps`: standard attention's nine steps and FlashAttention's tile loop, byte by byte."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import numpy as np

from glm2_reference.attention import attention
from glm2_reference.memory import Memory
from glm2_reference.memory_systems import A100, Level, MemorySystem
from glm2_reference.report.arguments import check_steps, positive, whole
from glm2_reference.report.document import Chart, Report, Table
from glm2_reference.report.svg import Axis, Line, bar_chart, line_chart
from glm2_reference.schedules.heads import FORWARD, run_forward
from glm2_reference.schedules.problem import Convention

_MOST_TILES = 256  # more cannot be read
_MOST_NUMBERS = 2**20  # of a matrix
_NAMES = {
    "standard": "standard attention",
    "flash1": "FlashAttention, keys outside",
    "flash2": "FlashAttention-2, queries outside",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``steps``."""
    parser.add_argument("--seq-len", type=positive, default=8, help="N: queries, and keys")
    parser.add_argument("--head-dim", type=positive, default=4, help="d")
    parser.add_argument("--block-m", type=positive, default=4, help="Q tile rows")
    parser.add_argument("--block-n", type=positive, default=4, help="K/V tile rows")
    parser.add_argument("--element-bytes", type=positive, default=2, help="width of everything")
    parser.add_argument("--causal", action="store_true", help="skip tiles above the diagonal")
    parser.add_argument("--sram-bytes", type=positive, default=1024, help="fast memory to fit in")
    parser.add_argument("--seed", type=whole, default=0, help="of the random q, k and v")


def build(args: argparse.Namespace) -> Report:
    """Walk the schedules on random numbers, and check what they give."""
    check_steps(
        -(-args.seq_len // args.block_m) * -(-args.seq_len // args.block_n), most=_MOST_TILES
    )
    if args.seq_len * max(args.seq_len, args.head_dim) > _MOST_NUMBERS:
        msg = f"seq_len {args.seq_len} and head_dim {args.head_dim} are more than an example; lower them"
        raise ValueError(msg)
    runs = {name: _walk(name, args) for name in FORWARD}
    error = max(run.error for run in runs.values())
    return Report(
        title="Step by step",
        question="What does each step of attention read and write, and what does fast memory hold?",
        tables=[
            _nine_steps(runs["standard"]),
            *(_loop(name, runs[name]) for name in ("flash1", "flash2")),
            _summary(runs, error),
        ],
        charts=[_bytes_chart(runs), *(_occupancy(name, run) for name, run in runs.items())],
        data={
            "report": "steps",
            "options": {
                key: value for key, value in vars(args).items()
                if key not in ("json", "html", "plot", "name")
            },
            "largest_difference_from_dense": error,
            "schedules": {name: run.data() for name, run in runs.items()},
        },
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Run:
    """One schedule's walk: its memory, and its largest difference from dense attention."""

    memory: Memory
    error: float

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Moves and computations, with what fast memory holds after each."""
        return [
            {
                "kind": event.kind,
                "what": event.label,
                "bytes": event.bytes,
                "sram_bytes": event.used_bytes["sram"],
            }
            for event in self.memory.events
            if event.kind in ("load", "store", "compute")
        ]

    def data(self) -> dict[str, Any]:
        return {
            "hbm_bytes": self.memory.moved_bytes("hbm"),
            "flops": self.memory.flops,
            "peak_sram_bytes": self.memory.peak_bytes["sram"],
            "counters": self.memory.counters()["hbm"],
            "steps": self.steps,
        }


def _walk(name: str, args: argparse.Namespace) -> _Run:
    rng = np.random.default_rng(args.seed)
    q, k, v = rng.standard_normal((3, 1, 1, args.seq_len, args.head_dim))
    width = args.element_bytes
    memory = Memory(_system(args.sram_bytes), record=True)
    got = run_forward(
        FORWARD[name], q, k, v, memory, block_m=args.block_m, block_n=args.block_n,
        causal=args.causal,
        convention=Convention(element_bytes=width, stat_bytes=width, score_bytes=width),
    )  # fmt: skip
    want, _ = attention(q, k, v, causal=args.causal)
    o = got["o"]
    assert o is not None  # a computing memory gives arrays
    return _Run(memory, float(np.abs(o - want).max()))


def _system(sram_bytes: int) -> MemorySystem:
    """Make a machine of two levels whose fast one is small enough to watch."""
    hbm, sram = A100.levels
    small = Level(
        name="sram",
        capacity_bytes=sram_bytes,
        bandwidth_gbps=sram.bandwidth_gbps,
        computes=True,
    )
    return dataclasses.replace(A100, name="example", levels=(hbm, small))


def _nine_steps(run: _Run) -> Table:
    def moved(kind: str, *names: str) -> int:
        count = run.memory.read_bytes if kind == "read" else run.memory.write_bytes
        return sum(count("hbm", name) for name in names)

    half = run.memory.flops // 2
    rows: list[tuple[int, str, int | None, int | None, int | None]] = [
        (1, "read Q and K", moved("read", "q", "k"), None, None),
        (2, "S = scale Q K^T", None, None, half),
        (3, "write S", None, moved("write", "scores"), None),
        (4, "read S", moved("read", "scores"), None, None),
        (5, "P = softmax(S)", None, None, None),
        (6, "write P", None, moved("write", "probs"), None),
        (7, "read P and V", moved("read", "probs", "v"), None, None),
        (8, "O = P V", None, None, half),
        (9, "write O", None, moved("write", "o"), None),
    ]
    return Table(
        "Standard attention, nine steps",
        ("step", "what", "bytes read", "bytes written", "FLOPs"),
        rows,
        "Algorithm 0 of Dao et al. 2022; FLOPs are those of the matrix products. No row statistics are "
        "kept, and there are no initial writes.",
    )


def _loop(name: str, run: _Run) -> Table:
    return Table(
        f"{_NAMES[name]}: every move and computation",
        ("step", "kind", "what", "bytes", "SRAM holds, bytes"),
        [
            (number, step["kind"], step["what"], step["bytes"] or None, step["sram_bytes"])
            for number, step in enumerate(run.steps, start=1)
        ],
        "Row statistics as wide as elements, initial writes not counted.",
    )


def _summary(runs: dict[str, _Run], error: float) -> Table:
    return Table(
        "In all",
        ("schedule", "HBM bytes", "FLOPs", "SRAM peak, bytes", "steps"),
        [
            (
                name,
                run.memory.moved_bytes("hbm"),
                run.memory.flops,
                run.memory.peak_bytes["sram"],
                len(run.steps),
            )
            for name, run in runs.items()
        ],
        f"Largest difference of any output from dense attention in float64: {error:.1e}. Row "
        "statistics are counted at the width of elements, initial writes are not.",
    )


def _bytes_chart(runs: dict[str, _Run]) -> Chart:
    return Chart(
        "Bytes to and from HBM",
        bar_chart(
            [_NAMES[name] for name in runs],
            [run.memory.moved_bytes("hbm") for run in runs.values()],
            Axis("bytes"),
        ),
    )


def _occupancy(name: str, run: _Run) -> Chart:
    steps = run.steps
    line = Line(
        _NAMES[name],
        list(range(1, len(steps) + 1)),
        [step["sram_bytes"] for step in steps],
    )
    return Chart(
        f"Fast memory over time: {_NAMES[name]}",
        line_chart([line], Axis("step"), Axis("SRAM, bytes"), filled=True),
        f"After each move and computation; its peak is {run.memory.peak_bytes['sram']:,} bytes.",
    )
