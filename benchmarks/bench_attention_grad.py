"""Time attention forward and backward on this CPU, beside torch (or numpy) in the same run.

    python benchmarks/bench_attention_grad.py            # 512 to 4096, about two minutes
    python benchmarks/bench_attention_grad.py --quick    # half a minute

One causal sequence, 16 heads of 64 dims with K/V heads of their own. Every shape is checked against the
reference before it is timed. These are timings of the CPU twin: they say nothing about an NPU.

Where torch is installed the peer is its fused attention in float32 with autograd, forward and backward.
Otherwise it is the dense gradient alone in numpy, and ours is timed without its forward too. GFLOP/s
count the visible half only, 4 * D operations a head and visible key forward and 10 * D backward; MB are
the most that resident memory grows during one call, results included, in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from common import measure_in_turns, print_cases, print_table, processor_name
from memory import peak_growth
from peers import Peer, gradient_peer, numpy_gradient_peer

import glm2_ops
from glm2_reference import flash_attention_grad, flash_attention_varlen
from glm2_reference.testing import RaggedProblem, assert_accurate, random_ragged, upcast

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM = 16, 16, 64
HAS_TORCH = importlib.util.find_spec("torch") is not None
Operands = tuple[np.ndarray[Any, Any], RaggedProblem]


def draw(length: int, dtype: str) -> Operands:
    """Draw dO and one sequence."""
    rng = np.random.default_rng(0)
    problem = random_ragged(
        rng,
        seq_lens_q=[length],
        seq_lens_kv=[length],
        num_heads=NUM_HEADS,
        num_kv_heads=NUM_KV_HEADS,
        head_dim=HEAD_DIM,
        dtype=np.dtype(dtype),
    )
    return rng.standard_normal(problem.q.shape).astype(dtype), problem


def train_step(do: np.ndarray[Any, Any], problem: RaggedProblem) -> tuple[Any, ...]:
    """Forward, then backward, with ours."""
    operands = (problem.q, problem.k, problem.v)
    offsets = (problem.cu_seqlens_q, problem.cu_seqlens_kv)
    o, lse = glm2_ops.flash_attention_varlen(*operands, *offsets, return_lse=True)
    return glm2_ops.flash_attention_grad(do, *operands, o, lse, *offsets)


def prepare_ours(length: int, dtype: str) -> Callable[[], Any]:
    """Return ours as a call without arguments."""
    do, problem = draw(length, dtype)
    return lambda: train_step(do, problem)


def prepare_torch(length: int) -> Callable[[], Any]:
    """Return torch's forward and backward as a call without arguments."""
    do, problem = draw(length, "float32")
    threads = glm2_ops.build_info()["threads"]
    return gradient_peer(do, problem.q, problem.k, problem.v, threads=threads).call


def check(do: np.ndarray[Any, Any], problem: RaggedProblem) -> None:
    """Hold our gradients against the reference in float64."""
    operands = (problem.q, problem.k, problem.v)
    offsets = (problem.cu_seqlens_q, problem.cu_seqlens_kv)
    o, lse = flash_attention_varlen(*operands, *offsets, return_lse=True)
    got = glm2_ops.flash_attention_grad(do, *operands, o, lse, *offsets)
    plain = flash_attention_grad(do, *operands, o, lse, *offsets)
    exact = upcast(do, *operands)
    exact_o = flash_attention_varlen(*exact[1:], *offsets, return_lse=True)
    golden = flash_attention_grad(*exact, *exact_o, *offsets)
    for ours_x, plain_x, golden_x in zip(got, plain, golden, strict=True):
        assert_accurate(ours_x, plain_x, golden_x, "L1")


def peer_and_ours(do: np.ndarray[Any, Any], problem: RaggedProblem) -> tuple[Peer, Peer]:
    """Pair the peer with that part of ours that it does too."""
    operands = (problem.q, problem.k, problem.v)
    offsets = (problem.cu_seqlens_q, problem.cu_seqlens_kv)
    if HAS_TORCH:
        threads = glm2_ops.build_info()["threads"]
        ours = Peer("forward + backward", lambda: train_step(do, problem))
        return gradient_peer(do, *operands, threads=threads), ours
    o, lse = glm2_ops.flash_attention_varlen(*operands, *offsets, return_lse=True)
    return numpy_gradient_peer(do, *operands, o, lse), Peer(
        "backward", lambda: glm2_ops.flash_attention_grad(do, *operands, o, lse, *offsets)
    )


def run_case(
    length: int, dtype: str, runs: int, peak_gflops: float
) -> tuple[list[str], dict[str, Any]]:
    """Check and time one length."""
    do, problem = draw(length, dtype)
    if length <= 2048:
        check(do, problem)
    peer, what = peer_and_ours(do, problem)
    ours, theirs = measure_in_turns([what.call, peer.call], runs=runs)
    grown = peak_growth(prepare_ours, (128, dtype), (length, dtype))
    peer_grown = peak_growth(prepare_torch, (128,), (length,)) if HAS_TORCH else None

    operations = (14 if HAS_TORCH else 10) * HEAD_DIM * NUM_HEADS
    gflops = operations * length * (length + 1) / 2 / ours.median_s / 1e9
    ratio = theirs.median_s / ours.median_s
    row = [
        what.name,
        dtype,
        str(length),
        f"{ours.median_s * 1e3:.2f}",
        f"{ours.lower_s * 1e3:.2f}-{ours.upper_s * 1e3:.2f}",
        f"{gflops:.1f}",
        f"{gflops / peak_gflops:.0%}",
        f"{theirs.median_s * 1e3:.1f}",
        f"{ratio:.2f}",
        "-" if grown is None else f"{grown / 1e6:.1f}",
        "-" if peer_grown is None else f"{peer_grown / 1e6:.1f}",
        peer.name,
    ]
    case = {
        "phase": "grad",
        "dtype": dtype,
        "seq_len": length,
        "ours": ours.median_s * 1e3,
        "unit": "ms",
        "gflops": gflops,
        "of_peak": gflops / peak_gflops,
        "peer": peer.name,
        "peer_value": theirs.median_s * 1e3,
        "ratio": ratio,
        "peak_bytes": grown,
        "peer_peak_bytes": peer_grown,
    }
    return row, case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two lengths, few runs")
    quick = parser.parse_args().quick
    build = glm2_ops.build_info()
    print(f"{processor_name()}; {build['simd']}, {build['threads']} threads, {build['compiler']}")
    peaks = glm2_ops.machine_peaks()
    print(f"peak {peaks['fma_gflops']:.0f} GFLOP/s, reads {peaks['read_gbps']:.1f} GB/s")
    lengths = [1024, 2048] if quick else [512, 1024, 2048, 4096]
    results = [
        run_case(length, dtype, 4 if quick or length > 2048 else 12, peaks["fma_gflops"])
        for length in lengths
        for dtype in (("float32",) if quick else ("float32", "float16"))
    ]
    header = [
        "what",
        "dtype",
        "length",
        "ms",
        "quartiles",
        "GFLOP/s",
        "of peak",
        "peer ms",
        "ratio",
    ]
    print_table([*header, "MB", "peer MB", "peer"], [row for row, _ in results])
    print_cases([case for _, case in results], peaks=peaks)


if __name__ == "__main__":
    main()
