"""Time glm2_ops.flash_attention_grad on this CPU, beside plain numpy in the same run.

    python benchmarks/bench_attention_grad.py            # about a minute on two cores
    python benchmarks/bench_attention_grad.py --quick    # a few seconds, one shape

One causal sequence, 16 heads of 64 dims with K/V heads of their own, float32. Every shape is checked
against the reference before it is timed. These are timings of the CPU twin: they say nothing about
an NPU.

The peer is the dense gradient in numpy: it is handed contiguous float32 arrays, and computes the
masked half too, as numpy must. GFLOP/s count the visible half of the five products only, 10 * D
operations a head and visible key; MB are the bytes that any implementation has to move: do, q, k, v,
o, dq, dk, dv and lse once.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import measure_in_turns, print_cases, print_table, processor_name

import glm2_ops
from glm2_reference import flash_attention_grad, flash_attention_varlen
from glm2_reference.testing import assert_accurate, bnsd_from_tnd, random_ragged, upcast

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, DTYPE = 16, 16, 64, "float32"


def numpy_gradients(
    do: np.ndarray[Any, Any],
    q: np.ndarray[Any, Any],
    k: np.ndarray[Any, Any],
    v: np.ndarray[Any, Any],
    o: np.ndarray[Any, Any],
    lse: np.ndarray[Any, Any],
) -> tuple[np.ndarray[Any, Any], ...]:
    """Dense causal gradient of (1, N, S, D) arrays, float32."""
    length = q.shape[2]
    probs = q @ k.swapaxes(-1, -2)
    probs *= HEAD_DIM**-0.5
    probs -= lse[..., None]
    np.exp(probs, out=probs)
    probs[..., np.triu(np.ones((length, length), np.bool_), k=1)] = 0
    dscores = do @ v.swapaxes(-1, -2)
    dscores -= np.sum(do * o, axis=-1, keepdims=True)
    dscores *= probs
    dscores *= HEAD_DIM**-0.5
    return dscores @ k, dscores.swapaxes(-1, -2) @ q, probs.swapaxes(-1, -2) @ do


def run_case(length: int, runs: int, peak_gflops: float) -> tuple[list[str], dict[str, Any]]:
    """Check and time one length."""
    rng = np.random.default_rng(0)
    problem = random_ragged(
        rng,
        seq_lens_q=[length],
        seq_lens_kv=[length],
        num_heads=NUM_HEADS,
        num_kv_heads=NUM_KV_HEADS,
        head_dim=HEAD_DIM,
        dtype=np.dtype(DTYPE),
    )
    offsets = (problem.cu_seqlens_q, problem.cu_seqlens_kv)
    o, lse = flash_attention_varlen(problem.q, problem.k, problem.v, *offsets, return_lse=True)
    do = rng.standard_normal(problem.q.shape).astype(DTYPE)
    operands = (do, problem.q, problem.k, problem.v, o, lse)
    got = glm2_ops.flash_attention_grad(*operands, *offsets)
    plain = flash_attention_grad(*operands, *offsets)
    golden = flash_attention_grad(*upcast(*operands), *offsets)
    for ours_x, plain_x, golden_x in zip(got, plain, golden, strict=True):
        assert_accurate(ours_x, plain_x, golden_x, "L1")

    dense = [np.ascontiguousarray(bnsd_from_tnd(x, offsets[0])[0]) for x in operands[:5]]
    lse_dense = np.ascontiguousarray(lse.T)[None]
    ours, peer = measure_in_turns(
        [
            lambda: glm2_ops.flash_attention_grad(*operands, *offsets),
            lambda: numpy_gradients(*dense, lse_dense),
        ],
        runs=runs,
    )

    gflops = 10 * HEAD_DIM * NUM_HEADS * length * (length + 1) / 2 / ours.median_s / 1e9
    moved_bytes = 4 * do.nbytes + 4 * problem.k.nbytes + lse.nbytes
    ratio = peer.median_s / ours.median_s
    row = [
        str(length),
        f"{ours.median_s * 1e3:.2f}",
        f"{ours.lower_s * 1e3:.2f}-{ours.upper_s * 1e3:.2f}",
        f"{gflops:.1f}",
        f"{gflops / peak_gflops:.0%}",
        f"{moved_bytes / 1e6:.2f}",
        f"{moved_bytes / ours.median_s / 1e9:.2f}",
        f"{peer.median_s * 1e3:.1f}",
        f"{ratio:.2f}",
    ]
    case = {
        "phase": "grad",
        "dtype": DTYPE,
        "seq_len": length,
        "ours": ours.median_s * 1e3,
        "unit": "ms",
        "gflops": gflops,
        "of_peak": gflops / peak_gflops,
        "peer": f"numpy {np.__version__} dense float32",
        "peer_value": peer.median_s * 1e3,
        "ratio": ratio,
    }
    return row, case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one shape, few runs")
    quick = parser.parse_args().quick
    build = glm2_ops.build_info()
    print(f"{processor_name()}; {build['simd']}, {build['threads']} threads, {build['compiler']}")
    peaks = glm2_ops.machine_peaks()
    print(f"peak {peaks['fma_gflops']:.0f} GFLOP/s, reads {peaks['read_gbps']:.1f} GB/s")
    lengths = [512] if quick else [1024, 2048]
    results = [run_case(length, 4 if quick else 20, peaks["fma_gflops"]) for length in lengths]
    header = ["length", "ms", "quartiles", "GFLOP/s", "of peak", "MB", "GB/s", "numpy ms", "ratio"]
    print_table(header, [row for row, _ in results])
    print_cases([case for _, case in results], peaks=peaks)


if __name__ == "__main__":
    main()
