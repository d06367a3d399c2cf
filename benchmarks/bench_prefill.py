"""Time prefill of the whole model beside llama.cpp's, in turns.

    python benchmarks/bench_prefill.py                          # int4, prompts of 128 and 512
    python benchmarks/bench_prefill.py --format int8 --tokens 512 --tokens 2048 --rounds 1
    python benchmarks/bench_prefill.py --like tiny --tokens 64 --seconds 0.2   # does it run at all

Sides and options are those of bench_decode.py. A prompt goes in chunks of 1024 tokens in ours, 512 in
llama.cpp; the output layer is computed for the last token alone on both sides. At least one prompt a
round and side, whatever --seconds says: 2048 tokens take llama.cpp two and a half minutes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("GLOG_v", "3")

from bench_decode import in_turns
from common import print_cases, print_table, processor_name
from llama_peer import LlamaPeer
from models_of_6b import FORMATS, add_arguments, gguf_file, packed_folder

import glm2_ops
from glm2.model import GLM2Model
from glm2.speed import prefill_s


def main() -> None:
    """Time every format at every length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--tokens", action="append", type=int, help="of the prompt; repeatable")
    options = parser.parse_args()
    lengths = options.tokens or [128, 512]
    glm2_ops.set_num_threads(options.threads)
    print(f"{processor_name()}, {options.threads} threads")
    cases = []
    for name in options.format or ["int4"]:
        cases += run_format(options, name, lengths)
    rows = [
        [
            case["format"], case["head"], str(case["seq_len"]), f"{case['ours']:.2f}",
            str(case["peer"]), "" if case["peer_value"] is None else f"{case['peer_value']:.2f}",
            "" if case["ratio"] is None else f"{case['ratio']:.2f}",
        ]
        for case in cases
    ]  # fmt: skip
    print_table(["format", "head", "tokens", "tokens/s", "peer", "tokens/s", "ratio"], rows)
    print_cases(cases, threads=options.threads)


def run_format(options: argparse.Namespace, name: str, lengths: list[int]) -> list[dict[str, Any]]:
    """Open both sides of a format and time them at each length."""
    weights, head, _ = FORMATS[name]
    folder, gguf = packed_folder(options, name), gguf_file(options, name)
    model = GLM2Model.from_pretrained(folder, activation_bits=options.activation_bits)
    peer = None
    if gguf is not None:
        peer = LlamaPeer(
            options.llama_python, gguf, threads=options.threads, context=max(lengths),
            repack=not options.no_repack,
        )  # fmt: skip
    cache = model.new_cache(max(lengths))
    prefill_s(model, cache, min(16, *lengths))  # compiles
    if peer is not None:
        peer.ask("prefill", count=min(16, *lengths))
    cases = []
    for length in lengths:
        calls: list[Callable[[], float]] = [lambda length=length: prefill_s(model, cache, length)]
        if peer is not None:
            calls.append(lambda length=length: peer.ask("prefill", count=length))
        ours_s, *peers_s = in_turns(
            calls, rounds=options.rounds, block_s=options.seconds, warm=False
        )
        theirs = length / peers_s[0] if peers_s else None
        cases.append({
            "phase": "prefill", "format": weights, "head": head,
            "activation_bits": 16 if weights == "fp16" else options.activation_bits,
            "seq_len": length, "ours": length / ours_s, "unit": "tokens/s",
            "peer": peer.name if peer is not None else None, "peer_value": theirs,
            "ratio": None if theirs is None else length / ours_s / theirs,
        })  # fmt: skip
    if peer is not None:
        peer.close()
    return cases


if __name__ == "__main__":
    main()
