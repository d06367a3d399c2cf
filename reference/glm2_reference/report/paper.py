"""The FlashAttention paper's printed figures, beside what its algorithms give when counted."""

from __future__ import annotations

import dataclasses
import functools

from glm2_reference.report.document import Chart, Table
from glm2_reference.report.svg import Axis, Line, line_chart
from glm2_reference.schedules.heads import BACKWARD, FORWARD, HeadShape, trace
from glm2_reference.schedules.problem import Convention

SHAPE = HeadShape(
    batch=64, num_heads=16, num_kv_heads=16, seq_len_q=1024, seq_len_kv=1024, head_dim=64
)
_LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
_PYTORCH_MB = (36, 104, 336, 1184, 4416, 17024)
_FLASH_MB = (22, 44, 104, 209, 418, 836, 1672, 3344, 6688, 13376)
_SOURCE = "Dao et al. 2022 (arXiv 2205.14135v2)"


def tables() -> list[Table]:
    """Return Figure 2 (left) and the memory growth of Table 21, printed and derived."""
    return [_figure_2(), _growth()]


def moved_gb(
    schedule: str, *, block_n: int = 256, init_writes: bool = False
) -> tuple[float, float]:
    """Trace forward and backward at the figure's shape; GB of each."""
    convention = Convention(init_writes=init_writes)
    forward, backward = (
        trace(
            passes[schedule], SHAPE, block_m=min(block_n, 64), block_n=block_n,
            convention=convention, limited=False,
        ).moved_bytes() / 1e9
        for passes in (FORWARD, BACKWARD)
    )  # fmt: skip
    return forward, backward


def _figure_2() -> Table:
    squares = SHAPE.batch * SHAPE.num_heads * SHAPE.seq_len_q * SHAPE.seq_len_kv
    product = 2 * squares * SHAPE.head_dim / 1e9  # GFLOPs of one product
    vectors = SHAPE.batch * SHAPE.num_heads * SHAPE.seq_len_q * SHAPE.head_dim * 2 / 1e9
    written = sum(moved_gb("standard"))
    matching = (18 * squares * 2) / 1e9 + 12 * vectors
    plain, with_writes = (
        sum(moved_gb("flash1", block_n=384, init_writes=writes)) for writes in (False, True)
    )
    rows: list[tuple[str, str, float | None, float, str]] = [
        ("HBM GB, standard", "as algorithms 0 and 3 are written", 40.3, written, "does not match"),
        ("HBM GB, standard", "18 N^2 + 12 N d: seven more N^2 passes", 40.3, matching,
         "matches; that these are an unfused mask, dropout and scale is an inference"),
        ("HBM GB, flash", "block 384 (M = 192 KB), no initial writes", 4.4, plain,
         "below; the paper states neither M nor block"),
        ("HBM GB, flash", "block 384, with initial writes", 4.4, with_writes,
         "above: 4.4 is bracketed, not hit"),
        ("GFLOPs, standard", "12 N^2 d a head, matrix products", 66.6, 6 * product,
         "does not match"),
        ("GFLOPs, flash", "14 N^2 d a head, matrix products", 75.2, 7 * product,
         "does not match"),
        ("GFLOPs, flash / standard", "7 products against 6", 75.2 / 66.6, 7 / 6,
         "does not match (1.129 printed)"),
        ("ms, flash / standard", "bytes alone", 7.3 / 41.7, plain / written,
         "time is not bytes alone"),
    ]  # fmt: skip
    return Table(
        "The paper's Figure 2, left: GPT-2 medium, N 1024, d 64, 16 heads, batch 64, A100",
        ("quantity", "derived how", "printed", "derived", "verdict"),
        rows,
        f"Printed: {_SOURCE}. Derived: counted here, forward and backward, elements, l and m 2 bytes. "
        "The printed FLOPs cannot be had from the printed shape.",
    )


@functools.cache
def peaks_mb(schedule: str) -> tuple[float, ...]:
    """Trace what one head of d = 64 takes in HBM at each length, MB of 1e6 bytes."""
    result = []
    for length in _LENGTHS:
        shape = dataclasses.replace(
            SHAPE, batch=1, num_heads=1, num_kv_heads=1, seq_len_q=length, seq_len_kv=length
        )
        memory = trace(
            FORWARD[schedule], shape, block_m=length, block_n=length, limited=False
        )  # tiles of all rows: only what lies in HBM is asked
        result.append(memory.peak_bytes["hbm"] / 1e6)
    return tuple(result)


def _growth() -> Table:
    standard, flash = peaks_mb("standard"), peaks_mb("flash2")
    rows: list[tuple[int, int | None, int, float, float]] = [
        (
            length,
            _PYTORCH_MB[i] if i < len(_PYTORCH_MB) else None,
            _FLASH_MB[i],
            standard[i],
            flash[i],
        )
        for i, length in enumerate(_LENGTHS)
    ]
    return Table(
        "Memory against N: the paper's Table 21, and one head here",
        (
            "N",
            "printed PyTorch, MB",
            "printed flash, MB",
            "standard, MB a head",
            "flash, MB a head",
        ),
        rows,
        f"Printed: {_SOURCE}, batch and heads not ours. Compare the growth: for long N standard's "
        "quadruples when N doubles, and flash's doubles, in both; short texts are lost in what does "
        "not grow. Ours: 2-byte elements and row statistics.",
    )


def growth_chart() -> Chart:
    """Draw both sides of the growth table."""
    known = _LENGTHS[: len(_PYTORCH_MB)]
    return Chart(
        "Memory against the length",
        line_chart(
            [
                Line("printed: PyTorch", known, _PYTORCH_MB),
                Line("printed: flash", _LENGTHS, _FLASH_MB),
                Line("standard, a head", _LENGTHS, peaks_mb("standard")),
                Line("flash, a head", _LENGTHS, peaks_mb("flash2")),
            ],
            Axis("N, tokens", log=True, ticks=_LENGTHS[::2]),
            Axis("MB", log=True),
        ),
        "Printed: Table 21 of the paper, whose runs out of memory are left out. Ours: q, k, v, o, and "
        "S and P where they are kept, for one head of d = 64 with 2-byte elements.",
    )
