"""Time glm2_ops.flash_attention on this CPU, beside torch (or numpy) in the same run.

    python benchmarks/bench_attention.py            # prefill 512 to 8192, decode 1k to 32k; minutes
    python benchmarks/bench_attention.py --quick    # within a minute

ChatGLM2's shape: 32 query heads on 2 KV heads of 128 dims, pages of 128 tokens, one causal sequence.
Every shape is checked against the reference before it is timed. These are timings of the CPU twin:
they say nothing about an NPU.

Where torch is installed its fused attention is the peer, in its quickest dtype; in decoding with the
heads of a group packed as rows by hand, and as torch offers groups. Beside it, up to 4096 tokens, torch
and MindSpore with the scores in memory (these in float32). Without torch: dense numpy. Blocks of calls
of ours and of the peers take turns.
GFLOP/s count the visible half only, 4 * D operations a query head and visible key; the share of peak is
of float32 multiply-adds in registers, measured in the same run; MB are what any implementation has to
move: q, k, v and o once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from common import measure_in_turns, print_cases, print_table, processor_name
from peers import attention_peers

import glm2_ops
from glm2_reference import attention
from glm2_reference.testing import (
    RaggedProblem,
    assert_accurate,
    bnsd_from_tnd,
    cu_seqlens,
    paged_from_tnd,
    random_block_table,
    random_ragged,
    tnd_from_bnsd,
    upcast,
)

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, PAGE_SIZE = 32, 2, 128, 128
DTYPES = (("float16", "float16"), ("float32", "float16"), ("float32", "float32"))  # q, cache
CHECKED_QUERIES = 32  # the accuracy rule is statistical: it wants many elements


def check(problem: RaggedProblem, attend: Callable[[np.ndarray[Any, Any]], Any]) -> None:
    """Hold some queries of ``attend(q)`` against dense attention in float64.

    In prefill these are the last ones; in decode, calls with other queries on the same keys.
    """
    decodes = len(problem.q) == 1
    if decodes:
        rng = np.random.default_rng(1)
        shape = (CHECKED_QUERIES, *problem.q.shape[1:])
        q = rng.standard_normal(shape).astype(problem.q.dtype)
        got = np.concatenate([attend(row[None]) for row in q])
    else:
        q = problem.q[-CHECKED_QUERIES:]
        got = attend(problem.q)[-CHECKED_QUERIES:]
    k, v = (bnsd_from_tnd(x, problem.cu_seqlens_kv)[0] for x in (problem.k, problem.v))
    dense = bnsd_from_tnd(q, cu_seqlens([len(q)]))[0]
    golden = attention(*upcast(dense, k, v), causal=not decodes)[0]
    plain = attention(dense, k, v, round_dtype=k.dtype, causal=not decodes)[0]
    assert_accurate(got, tnd_from_bnsd([plain]), tnd_from_bnsd([golden]), "L1")


def run_case(
    phase: str,
    len_q: int,
    len_kv: int,
    dtypes: tuple[str, str],
    *,
    runs: int,
    peak_gflops: float,
    longest_naive: int,
    block_s: float,
) -> tuple[list[str], dict[str, Any]]:
    """Check and time one shape."""
    problem = random_ragged(
        np.random.default_rng(0),
        seq_lens_q=[len_q],
        seq_lens_kv=[len_kv],
        num_heads=NUM_HEADS,
        num_kv_heads=NUM_KV_HEADS,
        head_dim=HEAD_DIM,
        dtype=np.dtype(dtypes[0]),
        kv_dtype=np.dtype(dtypes[1]),
    )
    table, num_pages = random_block_table(
        np.random.default_rng(0), problem.seq_len_kv, page_size=PAGE_SIZE
    )
    k_cache, v_cache = (
        paged_from_tnd(
            x, problem.cu_seqlens_kv, table, num_pages=num_pages, page_size=PAGE_SIZE, fill=0.0
        )
        for x in (problem.k, problem.v)
    )
    pages = (k_cache, v_cache, table, problem.cu_seqlens_q, problem.seq_len_kv)
    check(problem, lambda q: glm2_ops.flash_attention(q, *pages))
    threads = glm2_ops.build_info()["threads"]
    naive = dtypes == DTYPES[-1] and len_kv <= longest_naive
    peers = attention_peers(problem.q, problem.k, problem.v, threads=threads, naive=naive)
    calls = [lambda: glm2_ops.flash_attention(problem.q, *pages), *(peer.call for peer in peers)]
    ours, *theirs = measure_in_turns(calls, runs=runs, block_s=block_s)
    times = {peer.name: timing.median_s for peer, timing in zip(peers, theirs, strict=True)}
    fused = [name for name in times if "softmax" not in name and "enable_gqa" not in name]
    best = min(fused, key=times.__getitem__)

    visible = len_q * (len_kv - len_q) + len_q * (len_q + 1) // 2  # query, key pairs of one head
    gflops = 4 * HEAD_DIM * NUM_HEADS * visible / ours.median_s / 1e9
    moved_bytes = 2 * problem.q.nbytes + problem.k.nbytes + problem.v.nbytes
    ratio = times[best] / ours.median_s
    row = [
        phase,
        "/".join(dtypes),
        str(len_kv),
        f"{ours.median_s * 1e3:.3f}",
        f"{ours.lower_s * 1e3:.3f}-{ours.upper_s * 1e3:.3f}",
        f"{gflops:.1f}",
        f"{gflops / peak_gflops:.0%}",
        f"{moved_bytes / 1e6:.2f}",
        f"{moved_bytes / ours.median_s / 1e9:.2f}",
        f"{times[best] * 1e3:.3f}",
        f"{ratio:.2f}",
        best,
    ]
    case = {
        "phase": phase,
        "dtype": "/".join(dtypes),
        "seq_len" if phase == "prefill" else "context": len_kv,
        "ours": ours.median_s * 1e3,
        "unit": "ms",
        "gflops": gflops,
        "of_peak": gflops / peak_gflops,
        "peer": best,
        "peer_value": times[best] * 1e3,
        "ratio": ratio,
        "peers": {name: seconds * 1e3 for name, seconds in times.items()},
    }
    return row, case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer shapes and runs")
    quick = parser.parse_args().quick
    prefills = [512, 2048, 4096] if quick else [512, 1024, 2048, 4096, 8192]
    contexts = [1024, 16384] if quick else [1024, 4096, 16384, 32768]
    dtypes = (DTYPES[0], DTYPES[2]) if quick else DTYPES
    long_dtypes = DTYPES[:1] if quick else (DTYPES[0], DTYPES[2])
    build = glm2_ops.build_info()
    peaks = glm2_ops.machine_peaks()
    print(f"{processor_name()}; {build['simd']}, {build['threads']} threads, {build['compiler']}")
    print(f"peak {peaks['fma_gflops']:.0f} GFLOP/s, reads {peaks['read_gbps']:.1f} GB/s")
    shapes = [("prefill", n, n, _runs(n, quick)) for n in prefills]
    shapes += [("decode", 1, n, 100 if quick else 200) for n in contexts]
    results = [
        run_case(
            phase,
            len_q,
            len_kv,
            pair,
            runs=runs,
            peak_gflops=peaks["fma_gflops"],
            longest_naive=512 if quick else 4096,
            block_s=0.2 if quick else 3.0,
        )
        for phase, len_q, len_kv, runs in shapes
        for pair in (dtypes if len_q <= 2048 else long_dtypes)
    ]
    header = ["phase", "q/cache", "length", "ms", "quartiles", "GFLOP/s", "of peak", "MB", "GB/s"]
    print_table([*header, "peer ms", "ratio", "best peer"], [row for row, _ in results])
    print("\nAll peers, ms, and how many times longer than ours they take:")
    for _, case in results:
        for name, ms in case["peers"].items():
            length = case.get("seq_len", case.get("context"))
            print(
                f"{case['phase']:>7} {case['dtype']:>15} {length:>6}  {ms:10.3f}  "
                f"{ms / case['ours']:7.2f}  {name}"
            )
    print_cases([case for _, case in results], peaks=peaks)


def _runs(length: int, quick: bool) -> int:
    """Fewer of what takes seconds."""
    runs = 20 if length <= 1024 else 10 if length <= 2048 else 4 if length <= 4096 else 2
    return max(2, runs // 2) if quick else runs


if __name__ == "__main__":
    main()
