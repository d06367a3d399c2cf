"""`hbm`: bytes and FLOPs of standard attention and FlashAttention, beside the paper's figures."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

from glm2_reference.memory_systems import A100, MemorySystem
from glm2_reference.report import paper
from glm2_reference.report.arguments import check_steps, positive
from glm2_reference.report.document import Chart, Report, Table
from glm2_reference.report.svg import Axis, Line, line_chart
from glm2_reference.schedules import closed_forms
from glm2_reference.schedules.flash1 import block_sizes
from glm2_reference.schedules.heads import BACKWARD, FORWARD, HeadShape, trace
from glm2_reference.schedules.problem import Convention

_PASSES = {"forward": FORWARD, "backward": BACKWARD}
_MOST_STEPS = 300_000  # of one head, in all schedules: several seconds
_CURVE = (64, 96, 128, 192, 256, 384, 512)  # K/V tiles of the block-size curve


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``hbm``; the defaults are the paper's Figure 2."""
    parser.add_argument("--batch", type=positive, default=64, help="sequences")
    parser.add_argument("--heads", type=positive, default=16, help="query heads")
    parser.add_argument("--kv-heads", type=positive, help="as many as --heads if left out")
    parser.add_argument("--seq-len", type=positive, default=1024, help="N: queries, and keys")
    parser.add_argument("--head-dim", type=positive, default=64, help="d")
    parser.add_argument("--element-bytes", type=positive, default=2, help="width of q, k, v, o")
    parser.add_argument("--stat-bytes", type=positive, help="width of l, m, lse; as elements")
    parser.add_argument("--score-bytes", type=positive, help="width of score tiles; as elements")
    parser.add_argument("--init-writes", action="store_true", help="count the initial zeros")
    parser.add_argument("--causal", action="store_true", help="skip tiles above the diagonal")
    parser.add_argument(
        "--block-n", type=positive, nargs="+", help="K/V tile rows; 64 128 256 384 512 if left out"
    )
    parser.add_argument("--block-m", type=positive, help="Q tile rows; min(block_n, head_dim)")
    parser.add_argument(
        "--sram-bytes",
        type=positive,
        default=A100.level("sram").capacity_bytes,
        help="M: what SRAM must hold",
    )


def build(args: argparse.Namespace) -> Report:
    """Trace every schedule at the given shape, and set it beside the closed forms and the paper."""
    convention = Convention(
        element_bytes=args.element_bytes,
        stat_bytes=args.stat_bytes or args.element_bytes,
        score_bytes=args.score_bytes or args.element_bytes,
        init_writes=args.init_writes,
    )
    shape = HeadShape(
        batch=args.batch,
        num_heads=args.heads,
        num_kv_heads=args.kv_heads or args.heads,
        seq_len_q=args.seq_len,
        seq_len_kv=args.seq_len,
        head_dim=args.head_dim,
    )
    blocks = args.block_n or [64, 128, 256, 384, 512]
    check_steps(_count_steps(shape, convention, blocks, args), most=_MOST_STEPS)
    rows = [
        _count(shape, convention, schedule, which, block_n, args)
        for schedule in FORWARD
        for which in _PASSES
        for block_n in blocks
    ]
    data = {
        "report": "hbm",
        "shape": dataclasses.asdict(shape),
        "convention": {**dataclasses.asdict(convention), "described": str(convention)},
        "sram_bytes": args.sram_bytes,
        "causal": args.causal,
        "rows": rows,
    }
    tables = [_counted(rows, shape, convention, args.causal), *paper.tables()]
    tables.append(_sweep(shape, convention))
    return Report(
        title="What attention moves to and from HBM",
        question="How many bytes does each way of computing attention move, and for how many FLOPs?",
        tables=tables,
        charts=[_block_curve(), paper.growth_chart(), _length_chart(shape, convention)],
        data=data,
    )


def _count(
    shape: HeadShape, convention: Convention, schedule: str, which: str, block_n: int,
    args: argparse.Namespace,
) -> dict[str, Any]:  # fmt: skip
    """Trace one schedule and pass."""
    block_m = args.block_m or min(block_n, shape.head_dim)
    sizes: dict[str, Any] = {"block_m": block_m, "block_n": block_n, "causal": args.causal}
    memory = trace(
        _PASSES[which][schedule], shape, **sizes, convention=convention, limited=False,
        system=_with_sram(args.sram_bytes),
    )  # fmt: skip
    problem = shape.problem(share_kv=True, scale=None, convention=convention, **sizes)
    calls = shape.batch * shape.num_kv_heads
    forms = closed_forms.FORWARD_BYTES if which == "forward" else closed_forms.BACKWARD_BYTES
    skips = args.causal and schedule != "standard"
    return {
        "schedule": schedule,
        "pass": which,
        "block_m": block_m,
        "block_n": block_n,
        "hbm_bytes": memory.moved_bytes(),
        "closed_form_bytes": None if skips else calls * forms[schedule](problem),
        "flops": memory.flops,
        "flops_per_byte": memory.flops / memory.moved_bytes(),
        "peak_sram_bytes": memory.peak_bytes["sram"],
        "fits": memory.peak_bytes["sram"] <= args.sram_bytes,
    }


def _with_sram(sram_bytes: int) -> MemorySystem:
    """Return the A100 with another size of SRAM."""
    hbm, sram = A100.levels
    return dataclasses.replace(
        A100, levels=(hbm, dataclasses.replace(sram, capacity_bytes=sram_bytes))
    )


def _count_steps(
    shape: HeadShape, convention: Convention, blocks: list[int], args: argparse.Namespace
) -> int:
    """Count the tiles and whole rows that all schedules together walk."""
    rows = shape.seq_len_q * (shape.num_heads // shape.num_kv_heads)
    steps = 0
    for block_n in blocks:
        block_m = args.block_m or min(block_n, shape.head_dim)
        at_once = max(1, args.sram_bytes // (2 * shape.seq_len_kv * convention.element_bytes))
        steps += 2 * -(-rows // min(block_m, at_once))  # the standard schedule's softmax
        steps += 11 * -(-rows // block_m) * -(-shape.seq_len_kv // block_n)  # its products: 7
    return steps


def _counted(
    rows: list[dict[str, Any]], shape: HeadShape, convention: Convention, causal: bool
) -> Table:
    compared = (
        "The standard schedule's counts equal their closed forms; the others skip tiles."
        if causal
        else "Every count equals its closed form."
    )
    return Table(
        f"Counted: batch {shape.batch}, heads {shape.num_heads} on {shape.num_kv_heads}, "
        f"N {shape.seq_len_q}, d {shape.head_dim}",
        (
            "schedule", "pass", "block_m", "block_n", "HBM GB", "GFLOPs", "FLOPs/byte",
            "SRAM peak, bytes", "fits",
        ),
        [
            (
                row["schedule"], row["pass"], row["block_m"], row["block_n"],
                row["hbm_bytes"] / 1e9, row["flops"] / 1e9, row["flops_per_byte"],
                row["peak_sram_bytes"], "yes" if row["fits"] else "no",
            )
            for row in rows
            if row["schedule"] != "standard" or row["block_n"] == rows[0]["block_n"]
        ],
        f"Convention: {convention}. FLOPs are those of the matrix products. {compared} Heads that "
        "share K and V go through together. The standard schedule keeps one operand of each product "
        "whole in SRAM, so that its bytes do not depend on the block, and one stands here. 'fits' "
        "includes the tile of scores.",
    )  # fmt: skip


def _total(
    shape: HeadShape, convention: Convention, schedule: str, fast_bytes: int, length: int, dim: int
) -> int:
    """Forward and backward by the closed forms, with the paper's block sizes for that SRAM."""
    block_m, block_n = block_sizes(dim, fast_bytes, convention.element_bytes)
    problem = dataclasses.replace(shape, seq_len_q=length, seq_len_kv=length, head_dim=dim).problem(
        share_kv=True, scale=None, convention=convention, block_m=block_m, block_n=block_n
    )
    forms = (closed_forms.FORWARD_BYTES[schedule], closed_forms.BACKWARD_BYTES[schedule])
    return shape.batch * shape.num_kv_heads * sum(form(problem) for form in forms)


def _sweep(shape: HeadShape, convention: Convention) -> Table:
    """Over N, d and M: where FlashAttention moves less, and where it does not."""
    rows = []
    for dim in (64, 128):
        for kib in (48, 96, 192):
            for length in (512, 1024, 2048, 4096, 8192):
                standard, flash1, flash2 = (
                    _total(shape, convention, name, kib * 1024, length, dim) / 1e9
                    for name in ("standard", "flash1", "flash2")
                )
                rows.append((dim, kib, length, standard, flash1, flash2, standard / flash1))
    return Table(
        "Over d, M and N: forward and backward, GB",
        ("d", "M, KiB", "N", "standard", "flash1", "flash2", "standard / flash1"),
        rows,
        f"Closed forms with B_c = ceil(M/4d), B_r = min(B_c, d). {convention}.",
    )


def _block_curve() -> Chart:
    """Figure 2, middle: forward bytes against the block."""
    lines = []
    for name in ("flash1", "flash2"):
        counts = [
            trace(
                FORWARD[name], paper.SHAPE, block_m=min(block, 64), block_n=block, limited=False
            ).moved_bytes()
            for block in _CURVE
        ]
        lines.append(Line(name, _CURVE, [count / 1e9 for count in counts]))
    return Chart(
        "HBM bytes of the forward pass against the K/V tile",
        line_chart(
            lines, Axis("block_n, rows of K and V", log=True, ticks=_CURVE), Axis("HBM GB, forward")
        ),
        "Batch 64, 16 heads, N 1024, d 64, 2-byte elements, no initial writes. The paper's Figure 2 "
        "(middle) falls from about 6-7 GB at block 64 to about 1 GB at 512, as flash1 does here; its "
        "running time is flat past 256, which bytes alone cannot show. flash2's tiles of 64 query "
        "rows re-read K and V as often at any block_n. Blocks up to 384 fit in 192 KiB with their tile of "
        "scores; 512 does not.",
    )


def _length_chart(shape: HeadShape, convention: Convention) -> Chart:
    lengths = (256, 512, 1024, 2048, 4096, 8192, 16384)
    sram = A100.level("sram").capacity_bytes
    lines = [
        Line(
            name,
            lengths,
            [_total(shape, convention, name, sram, n, shape.head_dim) / 1e9 for n in lengths],
        )
        for name in ("standard", "flash1", "flash2")
    ]
    return Chart(
        "HBM bytes against the length",
        line_chart(
            lines,
            Axis("N, tokens", log=True, ticks=lengths),
            Axis("HBM GB, forward + backward", log=True),
        ),
        f"Batch {shape.batch}, {shape.num_heads} heads, d {shape.head_dim}, M 192 KiB; closed forms. "
        "Both grow with the square of N: FlashAttention moves fewer bytes, not a lower power.",
    )
