"""`kv`: which context fits in a memory, by format of the weights and number of K/V heads."""

from __future__ import annotations

import argparse
from typing import Any

from glm2_reference.config import CHATGLM2_6B
from glm2_reference.report.arguments import gigabytes, positive
from glm2_reference.report.chatglm2 import (
    WEIGHT_FORMATS,
    head_name,
    kv_bytes_per_token,
    weight_bytes,
    with_kv_heads,
)
from glm2_reference.report.document import Chart, Report, Table
from glm2_reference.report.svg import Axis, Line, line_chart

_KV_HEADS = (32, 8, 2, 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``kv``."""
    parser.add_argument(
        "--memory-gb",
        type=gigabytes,
        nargs="+",
        default=[8, 16, 24, 32, 64],
        help="1e9 bytes",
    )
    parser.add_argument(
        "--reserve-gb", type=gigabytes, default=1.0, help="for activations and the rest"
    )
    parser.add_argument("--batch", type=positive, default=1, help="sequences at once")


def build(args: argparse.Namespace) -> Report:
    """Divide what the weights leave by what a token takes."""
    rows = [
        _fit(memory, weight_format, kv_heads, args)
        for memory in args.memory_gb
        for weight_format in WEIGHT_FORMATS
        for kv_heads in _KV_HEADS
    ]
    return Report(
        title="What context fits",
        question="How many tokens of ChatGLM2-6B fit in a memory, and what do MQA and INT4 change?",
        tables=[cache_table(), _weights(), _contexts(rows, args)],
        charts=[_cache_chart()],
        data={
            "report": "kv",
            "batch": args.batch,
            "reserve_gb": args.reserve_gb,
            "kv_bytes_per_token": {
                head_name(heads): kv_bytes_per_token(with_kv_heads(heads)) for heads in _KV_HEADS
            },
            "weight_bytes": {
                weight_format: weight_bytes(CHATGLM2_6B, weight_format)
                for weight_format in WEIGHT_FORMATS
            },
            "rows": rows,
        },
    )


def _fit(
    memory_gb: float, weight_format: str, kv_heads: int, args: argparse.Namespace
) -> dict[str, Any]:
    weights = weight_bytes(CHATGLM2_6B, weight_format)
    left = round((memory_gb - args.reserve_gb) * 1e9) - weights
    tokens = max(0, left // kv_bytes_per_token(with_kv_heads(kv_heads)))
    return {
        "memory_gb": memory_gb,
        "weights": weight_format,
        "heads": head_name(kv_heads),
        "weight_bytes": weights,
        "fits": left >= 0,
        "tokens": tokens,
        "tokens_a_sequence": tokens // args.batch,
    }


def cache_table() -> Table:
    """Return what one token takes in the cache, by number of K/V heads."""
    return Table(
        "The cache of one token, FP16, all 28 layers",
        ("heads", "K/V heads", "bytes a token", "8,192 tokens, MiB", "32,768 tokens, MiB"),
        [
            (
                head_name(heads), heads, each, each * 8192 / 2**20, each * 32768 / 2**20,
            )
            for heads in _KV_HEADS
            for each in [kv_bytes_per_token(with_kv_heads(heads))]
        ],
        "2 tensors x 28 layers x K/V heads x 128 dims x 2 bytes. ChatGLM2-6B has 2 K/V heads and calls "
        "that multi-query attention.",
    )  # fmt: skip


def _weights() -> Table:
    return Table(
        "Weights of ChatGLM2-6B, GB",
        ("format", "GB"),
        [(name, weight_bytes(CHATGLM2_6B, name) / 1e9) for name in WEIGHT_FORMATS],
        "INT8 and INT4 as published: the four projections of a layer, one FP16 scale a row; "
        "embedding, output layer and norms stay FP16.",
    )


def _contexts(rows: list[dict[str, Any]], args: argparse.Namespace) -> Table:
    memories = list(args.memory_gb)
    by_key = {(row["memory_gb"], row["weights"], row["heads"]): row for row in rows}
    each = f" in each of {args.batch} sequences" if args.batch > 1 else ""
    return Table(
        f"Tokens that fit{each} beside the weights, {args.reserve_gb:g} GB kept free",
        ("weights", "heads", *(f"{memory:g} GB" for memory in memories)),
        [
            (
                weight_format,
                head_name(heads),
                *(
                    row["tokens_a_sequence"] if row["fits"] else None
                    for memory in memories
                    for row in [by_key[memory, weight_format, head_name(heads)]]
                ),
            )
            for weight_format in WEIGHT_FORMATS
            for heads in _KV_HEADS
        ],
        "FP16 cache. The weights are those of ChatGLM2-6B in every row, so that only the cache differs. "
        "A dash: the weights and what is kept free do not fit. The model was trained for 32,768 tokens "
        "at most.",
    )


def _cache_chart() -> Chart:
    lengths = (1024, 2048, 4096, 8192, 16384, 32768)
    lines = [
        Line(
            head_name(heads),
            lengths,
            [kv_bytes_per_token(with_kv_heads(heads)) * n / 1e9 for n in lengths],
        )
        for heads in _KV_HEADS
    ]
    return Chart(
        "K/V cache of one sequence",
        line_chart(lines, Axis("tokens", log=True, ticks=lengths), Axis("GB", log=True)),
        "ChatGLM2-6B's shapes, FP16; ChatGLM2 is the line of GQA-2.",
    )
