"""Standard attention: S and P are written out whole, and read back."""

from __future__ import annotations

from typing import Any

import numpy as np

from glm2_reference.buffers import Buffer
from glm2_reference.checks import FloatArray
from glm2_reference.layers import exp_rows
from glm2_reference.memory import Memory, MemoryLimitError
from glm2_reference.schedules.problem import Problem, fast, size

Arrays = dict[str, FloatArray | None]


def standard_forward(
    memory: Memory, problem: Problem, arrays: Arrays, *, stream: bool = False
) -> Arrays:
    """Walk the nine steps of standard attention.

    Read Q and K, compute S, write S; read S, compute P, write P; read P and V, compute O, write O:
    ``4 M n + 2 M d + 2 n d`` elements for M rows and n keys.

    Parameters
    ----------
    memory : Memory
        Of two levels.
    problem : Problem
    arrays : dict
        q (rows, d), k and v (seq_len_kv, d); None or absent in a trace.
    stream : bool
        False keeps the smaller operand of each product in fast memory, so that it is read once, as
        the closed forms have it. True reads it anew for every tile of the other.

    Returns
    -------
    arrays : dict
        o (rows, d) and probs (rows, seq_len_kv).

    References
    ----------
    Dao et al. 2022, algorithm 0.
    """
    with memory.scope():
        q, k, v = (problem.place(memory, name, arrays.get(name)) for name in ("q", "k", "v"))
        o = problem.place(memory, "o")
        scores, probs = problem.place(memory, "scores"), problem.place(memory, "probs")
        _outer_product(memory, problem, q, k, scores, problem.scale, stream=stream)  # steps 1 to 3
        _row_softmax(memory, problem, scores, probs)  # steps 4 to 6
        _reduce_keys(memory, problem, probs, v, o, 1.0, stream=stream)  # steps 7 to 9
        return {"o": o.data, "probs": probs.data}


def standard_backward(
    memory: Memory, problem: Problem, arrays: Arrays, *, stream: bool = False
) -> Arrays:
    """Walk standard attention's backward pass, with the P that forward has kept.

    ``7 M n + 4 M d + 4 n d`` elements for M rows and n keys.

    Parameters
    ----------
    memory, problem, stream
        As in `standard_forward`.
    arrays : dict
        q, do (rows, d), k, v (seq_len_kv, d), probs (rows, seq_len_kv).

    Returns
    -------
    arrays : dict
        dq, dk, dv.

    References
    ----------
    Dao et al. 2022, algorithm 3.
    """
    with memory.scope():
        names = ("q", "k", "v", "do", "probs")
        q, k, v, do, probs = (problem.place(memory, name, arrays.get(name)) for name in names)
        dq, dk, dv, dprobs, dscores = (
            problem.place(memory, name) for name in ("dq", "dk", "dv", "dprobs", "dscores")
        )
        _reduce_rows(memory, problem, probs, do, dv, 1.0, stream=stream)  # dV = P^T dO
        _outer_product(memory, problem, do, v, dprobs, 1.0, stream=stream)  # dP = dO V^T
        _softmax_backward(memory, problem, probs, dprobs, dscores)
        _reduce_keys(memory, problem, dscores, k, dq, problem.scale, stream=stream)  # dQ = dS K
        _reduce_rows(memory, problem, dscores, q, dk, problem.scale, stream=stream)  # dK = dS^T Q
        return {"dq": dq.data, "dk": dk.data, "dv": dv.data}


def _outer_product(
    memory: Memory, p: Problem, a: Buffer, b: Buffer, out: Buffer, scale: float, *, stream: bool
) -> None:
    """Compute ``out (M, n) = scale * a (M, d) b (n, d)^T``, tile by tile."""

    def product(a: Any, b: Any, out: Any) -> None:
        out[...] = scale * (a @ b.T)

    level = fast(memory)
    with memory.scope():
        whole = None if stream else _by_blocks(p.key_blocks, memory, b)
        for rows in p.row_blocks:
            left = memory.load(a, (rows,), level=level)
            for index, keys in enumerate(p.key_blocks):
                right = whole[index] if whole else memory.load(b, (keys,), level=level)
                shape = (size(rows), size(keys))
                tile = memory.allocate(
                    out.name, shape, level=level, element_bytes=p.convention.score_bytes
                )
                flops = 2 * shape[0] * shape[1] * p.head_dim
                memory.compute(f"{out.name} tile", product, left, right, tile, flops=flops)
                memory.store(tile, out, (rows, keys))
                memory.free(tile, *(() if whole else (right,)))
            memory.free(left)


def _row_softmax(memory: Memory, p: Problem, scores: Buffer, probs: Buffer) -> None:
    """Compute ``P = softmax(S)``, whole rows at a time."""
    for rows in _whole_rows(memory, p, tiles=1):

        def softmax(tile: Any, rows: slice = rows) -> None:
            visible = p.visible(rows, slice(0, p.seq_len_kv))
            exps, _, row_sum = exp_rows(np.where(visible, tile, -np.inf))
            tile[...] = exps / np.where(row_sum > 0, row_sum, 1.0)

        tile = memory.load(scores, (rows,), level=fast(memory))
        memory.compute("softmax of rows", softmax, tile)
        memory.store(tile, probs, (rows,))
        memory.free(tile)


def _softmax_backward(
    memory: Memory, p: Problem, probs: Buffer, dprobs: Buffer, dscores: Buffer
) -> None:
    """Compute ``dS = P * (dP - rowsum(P * dP))``, whole rows at a time."""

    def gradient(probs: Any, tile: Any) -> None:
        tile[...] = probs * (tile - (probs * tile).sum(axis=1, keepdims=True))

    level = fast(memory)
    for rows in _whole_rows(memory, p, tiles=2):
        left, tile = (memory.load(x, (rows,), level=level) for x in (probs, dprobs))
        memory.compute("gradient of softmax", gradient, left, tile)
        memory.store(tile, dscores, (rows,))
        memory.free(left, tile)


def _reduce_keys(
    memory: Memory, p: Problem, big: Buffer, b: Buffer, out: Buffer, scale: float, *, stream: bool
) -> None:
    """Compute ``out (M, d) = scale * big (M, n) b (n, d)``."""

    def product(tile: Any, b: Any, acc: Any) -> None:
        acc += scale * (tile @ b)

    _reduce(memory, p, big, b, out, product, by_rows=True, stream=stream)


def _reduce_rows(
    memory: Memory, p: Problem, big: Buffer, b: Buffer, out: Buffer, scale: float, *, stream: bool
) -> None:
    """Compute ``out (n, d) = scale * big (M, n)^T b (M, d)``."""

    def product(tile: Any, b: Any, acc: Any) -> None:
        acc += scale * (tile.T @ b)

    _reduce(memory, p, big, b, out, product, by_rows=False, stream=stream)


def _reduce(
    memory: Memory,
    p: Problem,
    big: Buffer,
    b: Buffer,
    out: Buffer,
    product: Any,
    *,
    by_rows: bool,
    stream: bool,
) -> None:
    """Sum products of tiles of ``big`` with blocks of ``b`` into blocks of ``out``."""
    level = fast(memory)
    outer, inner = (p.row_blocks, p.key_blocks) if by_rows else (p.key_blocks, p.row_blocks)
    with memory.scope():
        whole = None if stream else _by_blocks(inner, memory, b)
        for kept in outer:
            acc = p.tile(memory, out.name, (size(kept), p.head_dim))
            for index, summed in enumerate(inner):
                right = whole[index] if whole else memory.load(b, (summed,), level=level)
                region = (kept, summed) if by_rows else (summed, kept)
                tile = memory.load(big, region, level=level)
                flops = 2 * size(kept) * size(summed) * p.head_dim
                memory.compute(f"{out.name} block", product, tile, right, acc, flops=flops)
                memory.free(tile, *(() if whole else (right,)))
            memory.store(acc, out, (kept,))
            memory.free(acc)


def _by_blocks(blocks: list[slice], memory: Memory, b: Buffer) -> list[Buffer]:
    """Load a whole operand, block by block: read once, and kept."""
    try:
        return [memory.load(b, (block,), level=fast(memory)) for block in blocks]
    except MemoryLimitError as error:
        msg = f"{error}; or pass stream=True, which does not keep the whole of {b.name} there"
        raise MemoryLimitError(msg) from error


def _whole_rows(memory: Memory, p: Problem, *, tiles: int) -> list[slice]:
    """Cut the rows into blocks of ``block_m``, or fewer where whole rows are too long for it."""
    level = memory.system.compute_level
    row_bytes = tiles * p.seq_len_kv * p.convention.element_bytes
    count = max(1, min(p.block_m, level.capacity_bytes // row_bytes))
    return [slice(start, min(start + count, p.rows)) for start in range(0, p.rows, count)]
