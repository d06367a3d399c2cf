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


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one call: median and quartiles over the timed runs."""

    median_s: float
    lower_s: float
    upper_s: float


def measure(function: Callable[[], Any], *, runs: int, warm_up: int = 3) -> Timing:
    """Time ``runs`` calls of ``function`` one by one, after ``warm_up`` untimed ones."""
    for _ in range(warm_up):
        function()
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - started)
    lower, median, upper = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(median, lower, upper)


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


def print_cases(cases: Sequence[dict[str, Any]]) -> None:
    """Print the last line: one JSON object; ``ratio`` above 1 means ours is faster."""
    print(json.dumps({"cases": list(cases)}))
