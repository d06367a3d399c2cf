"""Time glm2_ops.flash_attention on this CPU, beside plain numpy in the same run.

    python benchmarks/bench_attention.py            # about two minutes on two cores
    python benchmarks/bench_attention.py --quick    # a few seconds, smallest shapes only

ChatGLM2's shape: 32 query heads on 2 KV heads of 128 dims, pages of 128 tokens, one causal sequence.
Every shape is checked against the reference before it is timed. These are timings of the CPU twin:
they say nothing about an NPU.

The peer is dense attention in numpy. It is handed float32 arrays that are already contiguous, so
paging and widening cost it nothing; in prefill it computes the masked half too, as numpy must.
GFLOP/s count the visible half only, 4 * D operations a query head and visible key; MB are the bytes
that any implementation has to move: q, k, v and o once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
from common import measure, print_cases, print_table, processor_name

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
    if len(problem.q) == 1:
        rng = np.random.default_rng(1)
        shape = (CHECKED_QUERIES, *problem.q.shape)
        parts = list(rng.standard_normal(shape).astype(problem.q.dtype))
        got = np.concatenate([attend(q) for q in parts])
    else:
        parts = [problem.q[-CHECKED_QUERIES:]]
        got = attend(problem.q)[-CHECKED_QUERIES:]
    k, v = (bnsd_from_tnd(x, problem.cu_seqlens_kv)[0] for x in (problem.k, problem.v))
    goldens, plains = [], []
    for part in parts:
        q = bnsd_from_tnd(part, cu_seqlens([len(part)]))[0]
        goldens.append(attention(*upcast(q, k, v))[0])
        plains.append(attention(q, k, v, round_dtype=k.dtype)[0])
    assert_accurate(got, tnd_from_bnsd(plains), tnd_from_bnsd(goldens), "L1")


def numpy_attention(
    q: np.ndarray[Any, Any], k: np.ndarray[Any, Any], v: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Dense causal attention of q (G, N / G, S, D) over k and v (G, 1, L, D), float32."""
    scores = q @ k.swapaxes(-1, -2)
    scores *= HEAD_DIM**-0.5
    len_q, len_kv = scores.shape[-2:]
    if len_q > 1:
        hidden = np.triu(np.ones((len_q, len_kv), np.bool_), k=len_kv - len_q + 1)
        scores[..., hidden] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores @ v


def run_case(
    phase: str, len_q: int, len_kv: int, dtypes: tuple[str, str], runs: int
) -> tuple[list[str], dict[str, Any]]:
    """Check and time one shape."""
    rng = np.random.default_rng(0)
    problem = random_ragged(
        rng,
        seq_lens_q=[len_q],
        seq_lens_kv=[len_kv],
        num_heads=NUM_HEADS,
        num_kv_heads=NUM_KV_HEADS,
        head_dim=HEAD_DIM,
        dtype=np.dtype(dtypes[0]),
        kv_dtype=np.dtype(dtypes[1]),
    )
    table, num_pages = random_block_table(rng, problem.seq_len_kv, page_size=PAGE_SIZE)
    k_cache, v_cache = (
        paged_from_tnd(
            x, problem.cu_seqlens_kv, table, num_pages=num_pages, page_size=PAGE_SIZE, fill=0.0
        )
        for x in (problem.k, problem.v)
    )
    pages = (k_cache, v_cache, table, problem.cu_seqlens_q, problem.seq_len_kv)
    check(problem, lambda q: glm2_ops.flash_attention(q, *pages))
    ours = measure(lambda: glm2_ops.flash_attention(problem.q, *pages), runs=runs)

    grouped = (len_q, NUM_KV_HEADS, NUM_HEADS // NUM_KV_HEADS, HEAD_DIM)
    q = np.ascontiguousarray(problem.q.reshape(grouped).transpose(1, 2, 0, 3), np.float32)
    k, v = (
        np.ascontiguousarray(x.swapaxes(0, 1)[:, None], np.float32) for x in (problem.k, problem.v)
    )
    peer = measure(lambda: numpy_attention(q, k, v), runs=min(runs, 5), warm_up=1)

    visible = len_q * (len_kv - len_q) + len_q * (len_q + 1) // 2  # query, key pairs of one head
    flops = 4 * HEAD_DIM * NUM_HEADS * visible
    moved_bytes = 2 * problem.q.nbytes + problem.k.nbytes + problem.v.nbytes
    ratio = peer.median_s / ours.median_s
    row = [
        phase,
        "/".join(dtypes),
        str(len_kv),
        f"{ours.median_s * 1e3:.3f}",
        f"{ours.lower_s * 1e3:.3f}-{ours.upper_s * 1e3:.3f}",
        f"{flops / ours.median_s / 1e9:.1f}",
        f"{moved_bytes / 1e6:.2f}",
        f"{moved_bytes / ours.median_s / 1e9:.2f}",
        f"{peer.median_s * 1e3:.3f}",
        f"{ratio:.2f}",
    ]
    case = {
        "phase": phase,
        "dtype": "/".join(dtypes),
        "seq_len" if phase == "prefill" else "context": len_kv,
        "ours": ours.median_s * 1e3,
        "unit": "ms",
        "gflops": flops / ours.median_s / 1e9,
        "peer": f"numpy {np.__version__} dense float32",
        "peer_value": peer.median_s * 1e3,
        "ratio": ratio,
    }
    return row, case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smallest shapes, few runs")
    quick = parser.parse_args().quick
    runs = 5 if quick else 20
    shapes = [("prefill", n, n) for n in ([512] if quick else [512, 1024, 2048])]
    shapes += [("decode", 1, n) for n in ([1024] if quick else [1024, 4096])]
    build = glm2_ops.build_info()
    print(f"{processor_name()}; {build['simd']}, {build['threads']} threads, {build['compiler']}")
    results = [run_case(*shape, dtypes, runs) for shape in shapes for dtypes in DTYPES]
    header = ["phase", "q/cache", "length", "ms", "quartiles", "GFLOP/s", "MB", "GB/s", "numpy ms"]
    print_table([*header, "ratio"], [row for row, _ in results])
    print_cases([case for _, case in results])


if __name__ == "__main__":
    main()
