"""What every benchmark shares: timing, the machine, the table, the last line."""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WARM_UP_S = 0.1


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and quartiles over the timed runs."""

    median_s: float
    lower_s: float
    upper_s: float


def measure_in_turns(
    functions: Sequence[Callable[[], Any]], *, runs: int, rounds: int = 2, block_s: float = 3.0
) -> list[Timing]:
    """Time several functions, a block of calls of each at a time, so that all see the same machine.

    A pause before each block lets the threads of the one before fall asleep: pools spin for a while.
    A processor that has paused is slow at first, so untimed calls follow, WARM_UP_S of them or one.
    A block ends early after ``block_s``.
    """
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for times, function in zip(seconds, functions, strict=True):
            time.sleep(0.3)
            warm = time.perf_counter() + WARM_UP_S
            function()
            while time.perf_counter() < warm:
                function()
            block_start = time.perf_counter()
            for _ in range(max(1, runs // rounds)):
                started = time.perf_counter()
                function()
                times.append(time.perf_counter() - started)
                if time.perf_counter() - block_start > block_s:
                    break
    quartiles = [statistics.quantiles(times, n=4, method="inclusive") for times in seconds]
    return [Timing(median, lower, upper) for lower, median, upper in quartiles]


def processor_name() -> str:
    """Return what the system calls its processor."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(errors="replace") if cpuinfo.is_file() else ""
    match = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return match[1] if match else "unknown processor"


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns as wide as their widest cell, numbers to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def print_cases(cases: Sequence[dict[str, Any]], **facts: Any) -> None:
    """Print the last line: one JSON object; ``ratio`` above 1 means ours is faster."""
    print(json.dumps({"cases": list(cases), **facts}))
