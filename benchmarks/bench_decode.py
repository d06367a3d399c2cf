"""Time decoding of the whole model beside llama.cpp's, in turns, and the memory that it reads.

    python benchmarks/bench_decode.py                          # int4, context 128 and 2048
    python benchmarks/bench_decode.py --format int4 --format int8 --context 128 --seconds 8
    python benchmarks/bench_decode.py --like tiny --context 16 --seconds 0.2   # does it run at all

Random weights of ChatGLM2-6B's shapes on both sides, greedy, one sequence; ours with --batch more. The
first run makes the checkpoints, which takes minutes and the space that --help names. llama.cpp comes
with llama-cpp-python (``pip install llama-cpp-python``, built for this processor); without it, ours alone
is timed. It runs in a process of its own, Q4_0, Q8_0 or F16 for every matrix, flash attention off, laid
out anew in memory unless --no-repack. Our cache is filled with noise; llama.cpp's with a prompt, which at
2048 tokens takes it minutes. `tests/glm2/test_packed_model.py` holds the model against the reference.

``of_bandwidth`` is what a step's weights and cache would take at the bandwidth that the processor reads
with, measured in the same run, over what the step took. These are timings of the CPU twin: they say
nothing about an NPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("GLOG_v", "3")

from common import print_cases, print_table, processor_name
from llama_peer import LlamaPeer
from models_of_6b import FORMATS, add_arguments, gguf_file, packed_folder

import glm2_ops
from glm2.memory_needs import packed_bytes
from glm2.model import GLM2Model
from glm2.speed import decode_step_s, filled_cache


def main() -> None:
    """Time every format at every context."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--context", action="append", type=int, help="repeatable")
    parser.add_argument("--batch", type=int, default=1, help="sequences of ours; the peer has one")
    options = parser.parse_args()
    contexts = options.context or [128, 2048]
    glm2_ops.set_num_threads(options.threads)
    read_gbps = glm2_ops.machine_peaks()["read_gbps"]
    print(f"{processor_name()}, {options.threads} threads, reads {read_gbps:.1f} GB/s")
    cases = []
    for name in options.format or ["int4"]:
        cases += run_format(options, name, contexts, read_gbps)
    header = ["format", "head", "context", "batch", "tokens/s", "of bandwidth", "peer", "tokens/s",
              "ratio"]  # fmt: skip
    rows = [
        [
            case["format"], case["head"], str(case["context"]), str(case["batch"]),
            f"{case['ours']:.2f}", f"{100 * case['of_bandwidth']:.0f}%", str(case["peer"]),
            "" if case["peer_value"] is None else f"{case['peer_value']:.2f}",
            "" if case["ratio"] is None else f"{case['ratio']:.2f}",
        ]
        for case in cases
    ]  # fmt: skip
    print_table(header, rows)
    print_cases(cases, threads=options.threads, read_gbps=read_gbps)


def run_format(
    options: argparse.Namespace, name: str, contexts: list[int], read_gbps: float
) -> list[dict[str, Any]]:
    """Open both sides of a format and time them at each context."""
    weights, head, _ = FORMATS[name]
    folder, gguf = packed_folder(options, name), gguf_file(options, name)
    model = GLM2Model.from_pretrained(folder, activation_bits=options.activation_bits)
    assert model.packed is not None
    peer = None
    if gguf is not None:
        peer = LlamaPeer(
            options.llama_python, gguf, threads=options.threads, context=max(contexts) + 64,
            repack=not options.no_repack,
        )  # fmt: skip
    cases = []
    for context in contexts:
        cache = filled_cache(model, context, batch=options.batch)
        calls: list[Callable[[], float]] = [lambda cache=cache: decode_step_s(model, cache)]
        if peer is not None:
            peer.ask("prefill", count=context)
            calls.append(lambda: peer.ask("decode"))
        ours_s, *peers_s = in_turns(calls, rounds=options.rounds, block_s=options.seconds)
        ours = options.batch / ours_s
        read_bytes = packed_bytes(model.config, model.packed) + options.batch * context * 4 * (
            model.config.num_layers * model.config.num_kv_heads * model.config.head_dim
        )
        theirs = 1 / peers_s[0] if peers_s else None
        cases.append({
            "phase": "decode", "format": weights, "head": head,
            "activation_bits": 16 if weights == "fp16" else options.activation_bits,
            "context": context, "batch": options.batch, "ours": ours, "unit": "tokens/s",
            "of_bandwidth": read_bytes / 1e9 / read_gbps / ours_s,
            "peer": peer.name if peer is not None else None, "peer_value": theirs,
            "ratio": None if theirs is None else ours / theirs,
            "peer_resident_bytes": None if peer is None else peer.ask("resident"),
        })  # fmt: skip
    if peer is not None:
        peer.close()
    return cases


def in_turns(
    calls: list[Callable[[], float]], *, rounds: int, block_s: float, warm: bool = True
) -> list[float]:
    """Return the median seconds that each call reports, a block of each at a time.

    ``warm`` calls each once before its block, untimed.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for times, call in zip(seconds, calls, strict=True):
            time.sleep(0.3)  # the other side's threads fall asleep
            if warm:
                call()
            began_s = time.perf_counter()
            while True:
                times.append(call())
                if time.perf_counter() - began_s > block_s:
                    break
    return [statistics.median(times) for times in seconds]


if __name__ == "__main__":
    main()
