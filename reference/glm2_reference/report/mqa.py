"""`mqa`: what sharing keys and values saves in decoding, beside what was measured."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from glm2_reference.config import CHATGLM2_6B
from glm2_reference.memory_systems import SYSTEMS, MemorySystem
from glm2_reference.report.arguments import positive
from glm2_reference.report.chatglm2 import (
    decode_flops,
    decode_weight_bytes,
    head_name,
    kv_bytes_per_token,
    weight_bytes,
    with_kv_heads,
)
from glm2_reference.report.document import Chart, Report, Table
from glm2_reference.report.kv import cache_table
from glm2_reference.report.svg import Axis, Line, line_chart
from glm2_reference.schedules.heads import BACKWARD, FORWARD, HeadShape, Schedule, trace

_KV_HEADS = (32, 8, 2, 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``mqa``."""
    parser.add_argument(
        "--context", type=positive, nargs="+", default=[2048, 8192, 32768], help="tokens"
    )
    parser.add_argument("--batch", type=positive, nargs="+", default=[1, 16], help="sequences")


@dataclasses.dataclass(frozen=True)
class Translator:
    """The decoder that Shazeer measured: six layers, self-attention and cross-attention each."""

    layers: int = 6
    model_dim: int = 1024
    heads: int = 8
    head_dim: int = 128
    source: int = 128
    target: int = 128
    batch: int = 1024
    ffn_multi_head: int = 4096
    ffn_multi_query: int = 5440  # widened, so that both models have the same number of weights


def build(args: argparse.Namespace) -> Report:
    """Count bytes and FLOPs of decoding, and predict times from them."""
    if len(args.batch) > 3:
        msg = f"{len(args.batch)} batches make more lines than can be told apart; pass 3 at most"
        raise ValueError(msg)
    rows = [
        _predict(system, kv_heads, batch, context)
        for system in SYSTEMS.values()
        for batch in args.batch
        for context in args.context
        for kv_heads in _KV_HEADS
    ]
    published = _published()
    return Report(
        title="Multi-query attention in decoding",
        question="How much does decoding gain when heads share keys and values?",
        tables=[cache_table(), _theta(), _loops(), _decoding(rows), published],
        charts=[_ratio_chart(args.batch)],
        data={
            "report": "mqa",
            "kv_bytes_per_token": {
                head_name(heads): kv_bytes_per_token(with_kv_heads(heads)) for heads in _KV_HEADS
            },
            "theta": _theta_rows(),
            "rows": rows,
            "published": [
                dict(zip(published.headings, row, strict=True)) for row in published.rows
            ],
        },
    )


def attention_step(
    *,
    context: int,
    model_dim: int,
    heads: int,
    kv_heads: int,
    batch: int,
    grows: bool = True,
) -> tuple[int, int]:
    """Count one layer's decoding step: elements moved, and multiply-adds.

    Weights of q, k, v and o, the cache, and the token's own q, k, v and o; scores stay inside.

    Parameters
    ----------
    context, model_dim, heads, kv_heads, batch : int
    grows : bool
        Whether the token adds a key and a value; false in attention to another text.

    Returns
    -------
    elements, multiply_adds : int
    """
    kv_dim = kv_heads * (model_dim // heads)
    weights = 2 * model_dim * model_dim + (2 * model_dim * kv_dim if grows else 0)
    cache = 2 * batch * context * kv_dim
    activations = batch * (4 * model_dim + (2 * kv_dim if grows else 0))
    return weights + cache + activations, batch * (weights + 2 * context * model_dim)


def _theta_rows() -> list[dict[str, Any]]:
    context, dim, heads, batch = 128, 1024, 8, 1024
    rows = []
    for kv_heads in (8, 2, 1):
        elements, work = attention_step(
            context=context, model_dim=dim, heads=heads, kv_heads=kv_heads, batch=batch
        )
        name = {8: "MHA", 1: "MQA"}.get(kv_heads, f"GQA-{kv_heads}")
        shared = context * kv_heads / (dim * heads)
        rows.append({
            "heads": name,
            "theta": {"MHA": "n/d + 1/b", "MQA": "1/d + n/(d h) + 1/b"}.get(
                name, "1/d + n g/(d h) + 1/b"
            ),
            "terms": shared + 1 / batch + (0 if name == "MHA" else 1 / dim),
            "counted": elements / work,
        })  # fmt: skip
    return rows


def _theta() -> Table:
    return Table(
        "Memory over arithmetic in incremental decoding",
        ("heads", "Theta", "its terms", "counted elements a multiply-add"),
        [(row["heads"], row["theta"], row["terms"], row["counted"]) for row in _theta_rows()],
        "n 128, d 1024, h 8, b 1024, as in Shazeer 2019 (arXiv 1911.02150). The terms leave out "
        "constant factors, and the counts do not: they agree in their order, not in their values.",
    )


def _loops() -> Table:
    """Both loop orders, counted: sharing in the model saves nothing without sharing in the loop."""
    cases = [
        ("decoding at 8,192", "forward", "flash2", 1, 8192),
        ("decoding at 8,192", "forward", "flash1", 1, 8192),
        ("prefill of 1,024", "forward", "flash2", 1024, 1024),
        ("prefill of 1,024", "forward", "flash1", 1024, 1024),
        ("training on 1,024", "backward", "flash2", 1024, 1024),
    ]
    rows: list[tuple[str, str, str, int, int, float]] = []
    for what, which, schedule, tokens, keys in cases:
        shape = HeadShape(
            batch=1, num_heads=32, num_kv_heads=2, seq_len_q=tokens, seq_len_kv=keys, head_dim=128
        )
        walk = (FORWARD if which == "forward" else BACKWARD)[schedule]
        alone, shared = (_kv_bytes(walk, shape, share_kv=share) for share in (False, True))
        rows.append((what, which, schedule, alone, shared, alone / shared))
    return Table(
        "K and V read by one layer with 32 query heads on 2, in both loop orders, bytes",
        ("what", "pass", "schedule", "each head by itself", "group together", "ratio"),
        rows,
        "d 128, tiles of 128 x 128, elements 2 B, no mask. Each head by itself moves what multi-head "
        "attention moves: sharing in the model saves traffic only where the loop shares the tile. With "
        "queries outside (flash2) a prefill gains nothing, for a tile of 128 rows is full either way.",
    )


def _kv_bytes(walk: Schedule, shape: HeadShape, *, share_kv: bool) -> int:
    memory = trace(walk, shape, block_m=128, block_n=128, share_kv=share_kv, limited=False)
    return memory.read_bytes("hbm", "k") + memory.read_bytes("hbm", "v")


def _predict(system: MemorySystem, kv_heads: int, batch: int, context: int) -> dict[str, Any]:
    """Bound one decoding step of ChatGLM2-6B by bytes over bandwidth and FLOPs over peak."""
    cache_bytes = batch * context * kv_bytes_per_token(with_kv_heads(kv_heads))
    nbytes = decode_weight_bytes(CHATGLM2_6B, "fp16") + cache_bytes
    flops = batch * decode_flops(CHATGLM2_6B, context)
    memory_ms = nbytes / system.outermost.bandwidth_gbps / 1e6
    compute_ms = flops / system.matmul_gflops / 1e6
    return {
        "system": system.name,
        "batch": batch,
        "context": context,
        "heads": head_name(kv_heads),
        "bytes": nbytes,
        "flops": flops,
        "memory_ms": memory_ms,
        "compute_ms": compute_ms,
        "step_ms": max(memory_ms, compute_ms),
        "fits": weight_bytes(CHATGLM2_6B, "fp16") + cache_bytes <= system.outermost.capacity_bytes,
    }


def _decoding(rows: list[dict[str, Any]]) -> Table:
    by_key = {(row["system"], row["batch"], row["context"], row["heads"]): row for row in rows}
    names = [head_name(heads) for heads in _KV_HEADS]
    lines: list[list[str | int | float | None]] = []
    for system, batch, context in dict.fromkeys(key[:3] for key in by_key):
        found = [by_key[system, batch, context, name] for name in names]
        steps = [row["step_ms"] if row["fits"] else None for row in found]
        ratio = found[0]["step_ms"] / found[2]["step_ms"]
        lines.append([system, batch, context, *steps, found[2]["bytes"] / 1e9, ratio])
    return Table(
        "Predicted decoding step of ChatGLM2-6B with other numbers of K/V heads, FP16",
        (
            "machine", "batch", "context", *(f"{name}, ms" for name in names), "GQA-2, GB",
            "MHA / GQA-2",
        ),
        lines,
        "A bound: the larger of bytes over bandwidth and FLOPs over peak (memory_systems.py: public "
        "figures, the CPU's measured on one machine). The weights are those of ChatGLM2-6B, which has "
        "GQA-2, in every column; only the cache differs. A dash: weights and cache exceed the machine's "
        "memory; the ratio is what they would give.",
    )  # fmt: skip


def _published() -> Table:
    """Set the two published gains beside the bound's, on every machine."""
    shazeer = [_translator_us(x, shared=False) / _translator_us(x, shared=True)
               for x in SYSTEMS.values()]  # fmt: skip
    at_2000 = [
        _predict(x, 32, 1, 2000)["step_ms"] / _predict(x, 2, 1, 2000)["step_ms"]
        for x in SYSTEMS.values()
    ]
    measured = (
        "Shazeer 2019: decoder, microseconds a token, TPUv2",
        "ChatGLM2's README: characters a second, A100, batch 1",
    )
    return Table(
        "Beside what was published",
        ("measured", "published", "ratio", *(f"bound on {name}" for name in SYSTEMS)),
        [
            (measured[0], "46 -> 3.8", 46 / 3.8, *shazeer),
            (measured[1], "31.49 -> 44.62", 44.62 / 31.49, *at_2000),
        ],
        "Both publishers measured; the bounds only count bytes and FLOPs, and match neither. Shazeer's "
        "decoder (six layers, d 1024, h 8, batch 1024, source 128, target 64 on average, 2-byte "
        "elements) gained more than its traffic shrank; its multi-query form has a wider MLP, which is "
        "why a machine that FLOPs bound (cpu) would lose. ChatGLM2's figures are of ChatGLM-6B against "
        "ChatGLM2-6B at 2,000 characters: architecture and code changed too, and at batch 1 the "
        "weights, the same in our bound, are nearly all of the traffic.",
    )


def _translator_us(system: MemorySystem, *, shared: bool) -> float:
    """Bound one token of Shazeer's decoder at the middle of the target, in microseconds."""
    t = Translator()
    kv_heads = 1 if shared else t.heads
    ffn = t.ffn_multi_query if shared else t.ffn_multi_head
    parts = [
        attention_step(
            context=context,
            model_dim=t.model_dim,
            heads=t.heads,
            kv_heads=kv_heads,
            batch=t.batch,
            grows=grows,
        )
        for context, grows in ((t.target // 2, True), (t.source, False))
    ]
    mlp = t.model_dim * ffn
    parts.append((2 * mlp + 2 * t.batch * (t.model_dim + ffn), 2 * t.batch * mlp))
    nbytes = 2 * t.layers * sum(elements for elements, _ in parts)
    flops = 2 * t.layers * sum(work for _, work in parts)
    seconds = max(
        nbytes / system.outermost.bandwidth_gbps, flops / system.matmul_gflops
    ) / 1e9  # fmt: skip
    return seconds * 1e6 / t.batch


def _ratio_chart(batches: list[int]) -> Chart:
    contexts = (512, 1024, 2048, 4096, 8192, 16384, 32768)
    lines = []
    for batch in batches:
        for heads in (2, 1):
            pairs = [
                [_predict(SYSTEMS["a100"], x, batch, n)["step_ms"] for x in (32, heads)]
                for n in contexts
            ]
            lines.append(
                Line(f"{head_name(heads)}, batch {batch}", contexts, [a / b for a, b in pairs])
            )
    return Chart(
        "Predicted gain over multi-head attention, A100",
        line_chart(
            lines, Axis("context, tokens", log=True, ticks=contexts), Axis("MHA's time / its own")
        ),
        "ChatGLM2-6B's shapes and weights, FP16. At batch 1 and short contexts the weights are the traffic, and "
        "sharing K and V gains little; it gains with every token of context and every sequence.",
    )
