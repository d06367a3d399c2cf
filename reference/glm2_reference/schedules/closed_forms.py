"""What the schedules move, as formulas: bytes of the outermost memory, without a mask.

The papers' formulas, with the widths and the initial writes of a `Convention` put in. They hold for
lengths that no block divides, with ``T_c = ceil(n / block_n)`` and ``T_r = ceil(M / block_m)``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from glm2_reference.checks import BoolArray
from glm2_reference.schedules.problem import Problem
from glm2_reference.schedules.split_kv import PART_BYTES


def standard_forward_bytes(p: Problem) -> int:
    """``4 M n + 2 M d + 2 n d`` elements: algorithm 0 of Dao et al. 2022."""
    m, n, d = p.rows, p.seq_len_kv, p.head_dim
    return p.convention.element_bytes * (4 * m * n + 2 * m * d + 2 * n * d)


def standard_backward_bytes(p: Problem) -> int:
    """``7 M n + 4 M d + 4 n d`` elements: algorithm 3 of Dao et al. 2022."""
    m, n, d = p.rows, p.seq_len_kv, p.head_dim
    return p.convention.element_bytes * (7 * m * n + 4 * m * d + 4 * n * d)


def flash1_forward_bytes(p: Problem) -> int:
    """``2 n d + T_c (3 M d + 4 M)`` elements: algorithm 1 of Dao et al. 2022."""
    m, n, d, c = p.rows, p.seq_len_kv, p.head_dim, p.convention
    passes = len(p.key_blocks)
    moved = c.element_bytes * (2 * n * d + passes * 3 * m * d) + c.stat_bytes * passes * 4 * m
    return moved + (c.element_bytes * m * d + c.stat_bytes * 2 * m if c.init_writes else 0)


def flash1_backward_bytes(p: Problem) -> int:
    """``4 n d + T_c (5 M d + 2 M)`` elements: algorithm 4 of Dao et al. 2022."""
    m, n, d, c = p.rows, p.seq_len_kv, p.head_dim, p.convention
    passes = len(p.key_blocks)
    moved = c.element_bytes * (4 * n * d + passes * 5 * m * d) + c.stat_bytes * passes * 2 * m
    return moved + (c.element_bytes * (m * d + 2 * n * d) if c.init_writes else 0)


def flash2_forward_bytes(p: Problem) -> int:
    """``2 M d + M + T_r 2 n d`` elements: algorithm 1 of Dao 2023."""
    m, n, d, c = p.rows, p.seq_len_kv, p.head_dim, p.convention
    return c.element_bytes * (2 * m * d + len(p.row_blocks) * 2 * n * d) + c.stat_bytes * m


def flash2_backward_bytes(p: Problem) -> int:
    """``2 M d + M + 4 n d + T_c (4 M d + 2 M)`` elements: algorithm 2 of Dao 2023."""
    m, n, d, c = p.rows, p.seq_len_kv, p.head_dim, p.convention
    passes = len(p.key_blocks)
    moved = c.element_bytes * (2 * m * d + 4 * n * d + passes * 4 * m * d)
    moved += c.stat_bytes * (m + passes * 2 * m)
    return moved + (c.element_bytes * m * d if c.init_writes else 0)


def split_kv_forward_bytes(p: Problem, parts: int) -> int:
    """``T_r 2 n d + P M d + M d + M`` elements, and ``2 P M (d + 2)`` floats, for P parts.

    Parts are whole tiles: ask `glm2_reference.schedules.split_kv.cut_keys` how many there are.
    """
    m, n, d, c = p.rows, p.seq_len_kv, p.head_dim, p.convention
    moved = c.element_bytes * (len(p.row_blocks) * 2 * n * d + (parts + 1) * m * d)
    return moved + c.stat_bytes * m + 2 * PART_BYTES * parts * m * (d + 2)


def block_sparse_forward_bytes(p: Problem, block_mask: BoolArray) -> int:
    """``2 d`` elements a key of a tile column that is walked, ``3 d + 4`` a row of a tile."""
    d, c = p.head_dim, p.convention
    rows = np.array([part.stop - part.start for part in p.row_blocks])
    keys = np.array([part.stop - part.start for part in p.key_blocks])
    walked = int((block_mask * rows[:, None]).sum())
    moved = c.element_bytes * 2 * d * int(keys[block_mask.any(axis=0)].sum())
    moved += walked * (c.element_bytes * 3 * d + c.stat_bytes * 4)
    initial = c.element_bytes * p.rows * d + c.stat_bytes * 2 * p.rows
    return moved + (initial if c.init_writes else 0)


FORWARD_BYTES: dict[str, Callable[[Problem], int]] = {
    "standard": standard_forward_bytes,
    "flash1": flash1_forward_bytes,
    "flash2": flash2_forward_bytes,
}
BACKWARD_BYTES: dict[str, Callable[[Problem], int]] = {
    "standard": standard_backward_bytes,
    "flash1": flash1_backward_bytes,
    "flash2": flash2_backward_bytes,
}
# Products of (M x n x d): S and PV; dV, dP, dQ, dK; and S once more where P is not kept.
FORWARD_PRODUCTS = {"standard": 2, "flash1": 2, "flash2": 2}
BACKWARD_PRODUCTS = {"standard": 4, "flash1": 5, "flash2": 5}
