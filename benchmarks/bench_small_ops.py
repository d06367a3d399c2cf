"""Time glm2_ops.rms_norm and glm2_ops.swiglu on this CPU, beside a copy of the same bytes.

    python benchmarks/bench_small_ops.py            # some seconds on two cores
    python benchmarks/bench_small_ops.py --quick    # few rows, few runs

ChatGLM2's shapes: rows of 4096 for rms_norm, of 2 x 13696 for swiglu. Every shape is checked against
the reference before it is timed. These are timings of the CPU twin: they say nothing about an NPU.

Both operators read and write each byte once, so the bound is a copy. The peer reads half of the bytes
that the operator moves and writes the other half, on one thread or on as many as the operator,
whichever is faster. Both write to memory that is mapped already: the operators allocate their results,
so the C library is told to keep what is freed, as MindSpore's memory pool does in a graph. Shapes whose
bytes fit a cache stay in it, for the operator and for the peer. With one row the time is mostly that of
Python's checks and the launch.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from common import Timing, measure_in_turns, print_cases, print_table, processor_name

import glm2_ops
import glm2_reference
from glm2_reference.testing import assert_accurate, upcast

HIDDEN_SIZE, FFN_HIDDEN_SIZE, EPS = 4096, 13696, 1e-5
CHECKED_ROWS = 64  # the accuracy rule is statistical: it wants many rows
OPERATORS = ("rms_norm", "rms_norm + residual", "swiglu")

Array = np.ndarray[Any, Any]


def keep_freed_memory() -> None:
    """Have glibc reuse large blocks instead of unmapping them; page faults would be timed."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            libc.mallopt(option, 1 << 30)


def operands_of(name: str, rows: int, dtype: str) -> tuple[Array, ...]:
    """Draw what `call` takes."""
    rng = np.random.default_rng(0)
    width = 2 * FFN_HIDDEN_SIZE if name == "swiglu" else HIDDEN_SIZE
    count = 2 if name == "rms_norm + residual" else 1
    inputs = [rng.standard_normal((rows, width), np.float32).astype(dtype) for _ in range(count)]
    if name == "swiglu":
        return tuple(inputs)
    weight = rng.standard_normal(width, np.float32).astype(dtype)
    return (inputs[0], weight, *inputs[1:])


def call(package: Any, name: str, operands: tuple[Array, ...]) -> tuple[Array, ...]:
    """Run the operator of ``package``, glm2_ops or glm2_reference; a tuple of its outputs."""
    if name == "swiglu":
        return (package.swiglu(*operands),)
    x, weight, *residual = operands
    if residual:
        return tuple(package.rms_norm(x, weight, eps=EPS, residual=residual[0]))
    return (package.rms_norm(x, weight, eps=EPS),)


def check(name: str, dtype: str) -> None:
    """Hold the operator against the reference in float64, at level L2."""
    operands = operands_of(name, CHECKED_ROWS, dtype)
    got, plain = (call(package, name, operands) for package in (glm2_ops, glm2_reference))
    if name == "rms_norm + residual":
        assert np.array_equal(got[1], plain[1])
        golden = call(glm2_reference, "rms_norm", upcast(got[1], operands[1]))
    else:
        golden = call(glm2_reference, name, upcast(*operands))
    assert_accurate(got[0], plain[0], golden[0], "L2")


def measure_copy(num_bytes: int, pool: ThreadPoolExecutor, threads: int, runs: int) -> Timing:
    """Time a copy of ``num_bytes``: the faster of one thread and ``threads``."""
    source = np.ones(num_bytes, np.uint8)
    target = np.zeros_like(source)
    splits = (np.array_split(array, threads) for array in (target, source))
    parts = list(zip(*splits, strict=True))
    copies = [
        lambda: np.copyto(target, source),
        lambda: list(pool.map(lambda part: np.copyto(*part), parts)),
    ]
    return min(measure_in_turns(copies, runs=runs), key=lambda timing: timing.median_s)


def run_case(
    name: str, rows: int, dtype: str, runs: int, pool: ThreadPoolExecutor
) -> tuple[list[str], dict[str, Any]]:
    """Time one shape."""
    operands = operands_of(name, rows, dtype)
    outputs = call(glm2_ops, name, operands)
    moved_bytes = sum(array.nbytes for array in (*operands, *outputs))
    del outputs
    (ours,) = measure_in_turns([lambda: call(glm2_ops, name, operands)], runs=runs)
    peer = measure_copy(moved_bytes // 2, pool, glm2_ops.build_info()["threads"], runs)
    gbps, peer_gbps = (moved_bytes / timing.median_s / 1e9 for timing in (ours, peer))
    width = operands[0].shape[1]
    row = [
        name,
        dtype,
        f"{rows} x {width}",
        f"{moved_bytes / 1e6:.2f}",
        f"{ours.median_s * 1e6:.1f}",
        f"{ours.lower_s * 1e6:.1f}-{ours.upper_s * 1e6:.1f}",
        f"{gbps:.1f}",
        f"{peer_gbps:.1f}",
        f"{gbps / peer_gbps:.2f}",
    ]
    case = {
        "phase": name,
        "dtype": dtype,
        "rows": rows,
        "width": width,
        "ours": gbps,
        "unit": "GB/s",
        "peer": f"numpy {np.__version__} copy",
        "peer_value": peer_gbps,
        "ratio": gbps / peer_gbps,
    }
    return row, case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few rows, few runs")
    quick = parser.parse_args().quick
    runs = 5 if quick else 20
    keep_freed_memory()
    build = glm2_ops.build_info()
    print(f"{processor_name()}; {build['simd']}, {build['threads']} threads, {build['compiler']}")
    results = []
    with ThreadPoolExecutor(build["threads"]) as pool:
        for name in OPERATORS:
            for dtype in ("float16", "float32"):
                check(name, dtype)
                for rows in (1, 16) if quick else (1, 64, 512):
                    results.append(run_case(name, rows, dtype, runs, pool))
    header = ["operator", "dtype", "x", "MB", "us", "quartiles", "GB/s", "copy GB/s", "ratio"]
    print_table(header, [row for row, _ in results])
    print_cases([case for _, case in results])


if __name__ == "__main__":
    main()
