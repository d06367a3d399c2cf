"""Split-KV decoding: several cores share the keys of one group, and their parts are combined."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from glm2_reference.buffers import Buffer
from glm2_reference.layers import finite_or_zero
from glm2_reference.memory import Memory
from glm2_reference.schedules.flash1 import Arrays
from glm2_reference.schedules.flash2 import attend, finish, start_rows
from glm2_reference.schedules.problem import Problem, fast, size

PART_BYTES = 4  # partial results are float32 in any convention: rounding them would be seen


def split_kv_forward(memory: Memory, problem: Problem, arrays: Arrays, *, splits: int) -> Arrays:
    """Walk split-KV decoding: every part of the keys by itself, then one pass that combines them.

    Each part reads Q, its K and V, and writes acc, m and l; combining reads those:
    ``T_r 2 n d + P M d + M d + M`` elements and ``2 P M (d + 2)`` floats, for P parts.

    Parameters
    ----------
    memory : Memory
        Of two levels.
    problem : Problem
    arrays : dict
        q (rows, d), k and v (seq_len_kv, d); None or absent in a trace.
    splits : int
        Parts wanted. Parts are whole tiles, so that there may be fewer.

    Returns
    -------
    arrays : dict
        o (rows, d), lse (rows,).

    Raises
    ------
    ValueError
        If ``splits`` is not positive.

    References
    ----------
    Dao et al. 2023, "Flash-Decoding for long-context inference".
    """
    parts = cut_keys(problem, splits)
    with memory.scope():
        q, k, v = (problem.place(memory, name, arrays.get(name)) for name in ("q", "k", "v"))
        o, lse = (problem.place(memory, name) for name in ("o", "lse"))
        partial = [_place_part(memory, problem) for _ in parts]
        for keys, part in zip(parts, partial, strict=True):
            _attend_part(memory, problem, (q, k, v), keys, part)
        for rows in problem.row_blocks:
            _combine(memory, problem, rows, partial, (o, lse))
        return {"o": o.data, "lse": lse.data}


def cut_keys(problem: Problem, splits: int) -> list[list[slice]]:
    """Deal the tiles of keys to ``splits`` parts, as evenly as whole tiles allow."""
    if splits < 1:
        msg = f"splits is {splits}; expected 1 or more"
        raise ValueError(msg)
    blocks = problem.key_blocks
    each = -(-len(blocks) // splits)
    return [blocks[start : start + each] for start in range(0, len(blocks), each)]


def _place_part(memory: Memory, problem: Problem) -> list[Buffer]:
    """Make room for one part's acc, row_max and row_sum in the outermost memory."""
    shapes = {
        "part_acc": (problem.rows, problem.head_dim),
        "part_max": (problem.rows,),
        "part_sum": (problem.rows,),
    }
    return [memory.place(x, shape=s, element_bytes=PART_BYTES) for x, s in shapes.items()]


def _attend_part(
    memory: Memory,
    problem: Problem,
    inputs: tuple[Buffer, Buffer, Buffer],
    blocks: list[slice],
    part: list[Buffer],
) -> None:
    q, k, v = inputs
    level = fast(memory)
    for rows in problem.row_blocks:
        q_tile = memory.load(q, (rows,), level=level)
        state = _float_rows(memory, problem, size(rows))
        for keys in blocks:
            if problem.sees(rows, keys):
                k_tile, v_tile = (memory.load(x, (keys,), level=level) for x in (k, v))
                attend(memory, problem, rows, keys, q_tile, k_tile, v_tile, state)
                memory.free(k_tile, v_tile)
        for tile, target in zip(state, part, strict=True):
            memory.store(tile, target, (rows,))
        memory.free(q_tile, *state)


def _float_rows(memory: Memory, problem: Problem, rows: int) -> list[Buffer]:
    convention = dataclasses.replace(
        problem.convention, element_bytes=PART_BYTES, stat_bytes=PART_BYTES
    )
    return start_rows(memory, dataclasses.replace(problem, convention=convention), rows)


def _combine(
    memory: Memory,
    problem: Problem,
    rows: slice,
    partial: list[list[Buffer]],
    outputs: tuple[Buffer, Buffer],
) -> None:
    """Add up the parts of a block of rows, each scaled to the largest row_max."""

    def add(acc: Any, row_max: Any, row_sum: Any, part: Any, part_max: Any, part_sum: Any) -> None:
        new_max = np.maximum(row_max, part_max)
        start = finite_or_zero(new_max)
        old, new = np.exp(row_max - start), np.exp(part_max - start)
        acc[...] = acc * old[:, None] + part * new[:, None]
        row_sum[...] = row_sum * old + part_sum * new
        row_max[...] = new_max

    state = _float_rows(memory, problem, size(rows))
    for part in partial:
        tiles = [memory.load(x, (rows,), level=fast(memory)) for x in part]
        memory.compute("combine parts", add, *state, *tiles)
        memory.free(*tiles)
    memory.compute("O / l, m + log l", finish, *state)
    for tile, target in zip(state, outputs, strict=False):
        memory.store(tile, target, (rows,))
    memory.free(*state)
