"""FlashAttention-2: queries outside, so that O, l and m never leave fast memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from glm2_reference.buffers import Buffer
from glm2_reference.layers import finite_or_zero
from glm2_reference.memory import Memory
from glm2_reference.schedules.flash1 import Arrays, probabilities
from glm2_reference.schedules.problem import Problem, fast, size


def flash2_forward(memory: Memory, problem: Problem, arrays: Arrays) -> Arrays:
    """Walk FlashAttention-2's forward pass.

    Each block of Q is loaded once, and its O and lse written once; for each, all blocks of K and V
    come by that its rows see: ``2 M d + M + T_r 2 n d`` elements without a mask.

    Parameters
    ----------
    memory : Memory
        Of two levels.
    problem : Problem
    arrays : dict
        q (rows, d), k and v (seq_len_kv, d); None or absent in a trace.

    Returns
    -------
    arrays : dict
        o (rows, d), lse (rows,).

    References
    ----------
    Dao 2023, "FlashAttention-2", algorithm 1.
    """
    with memory.scope():
        q, k, v = (problem.place(memory, name, arrays.get(name)) for name in ("q", "k", "v"))
        o, lse = (problem.place(memory, name) for name in ("o", "lse"))
        level = fast(memory)
        for rows in problem.row_blocks:
            q_tile = memory.load(q, (rows,), level=level)
            state = start_rows(memory, problem, size(rows))
            for keys in problem.key_blocks:
                if problem.sees(rows, keys):
                    k_tile, v_tile = (memory.load(x, (keys,), level=level) for x in (k, v))
                    attend(memory, problem, rows, keys, q_tile, k_tile, v_tile, state)
                    memory.free(k_tile, v_tile)
            memory.compute("O / l, m + log l", finish, *state)
            memory.store(state[0], o, (rows,))
            memory.store(state[1], lse, (rows,))
            memory.free(q_tile, *state)
        return {"o": o.data, "lse": lse.data}


def flash2_backward(memory: Memory, problem: Problem, arrays: Arrays) -> Arrays:
    """Walk FlashAttention-2's backward pass: keys outside, lse and D = rowsum(dO O) beforehand.

    ``2 M d + M`` elements for D, then ``4 n d + T_c (4 M d + 2 M)``.

    Parameters
    ----------
    memory, problem
        As in `flash2_forward`.
    arrays : dict
        q, o, do (rows, d), k, v (seq_len_kv, d), lse (rows,).

    Returns
    -------
    arrays : dict
        dq, dk, dv.

    References
    ----------
    Dao 2023, "FlashAttention-2", algorithm 2.
    """
    with memory.scope():
        names = ("q", "k", "v", "o", "do", "lse")
        q, k, v, o, do, lse = (problem.place(memory, name, arrays.get(name)) for name in names)
        delta, dq, dk, dv = (problem.place(memory, name) for name in ("delta", "dq", "dk", "dv"))
        level = fast(memory)
        _row_dots(memory, problem, o, do, delta)
        if problem.convention.init_writes:
            memory.charge(level, dq.level, dq.name, nbytes=dq.nbytes, bursts=1)
        for keys in problem.key_blocks:
            k_tile, v_tile = (memory.load(x, (keys,), level=level) for x in (k, v))
            shape = (size(keys), problem.head_dim)
            dk_tile, dv_tile = (problem.tile(memory, name, shape) for name in ("dk", "dv"))
            for rows in problem.row_blocks:
                if not problem.sees(rows, keys):
                    continue
                tiles = [memory.load(x, (rows,), level=level) for x in (q, do, lse, delta, dq)]
                square = (size(rows), size(keys))
                probs, dscores = (problem.tile(memory, x, square) for x in ("probs", "dscores"))
                step = _backward_step(problem, rows, keys)
                flops = 10 * size(rows) * size(keys) * problem.head_dim
                memory.compute(
                    "P again; dV, dP, dS, dQ, dK", step, k_tile, v_tile, dk_tile, dv_tile,
                    probs, dscores, *tiles, flops=flops,
                )  # fmt: skip
                memory.store(tiles[-1], dq, (rows,))
                memory.free(*tiles, probs, dscores)
            memory.store(dk_tile, dk, (keys,))
            memory.store(dv_tile, dv, (keys,))
            memory.free(k_tile, v_tile, dk_tile, dv_tile)
        return {"dq": dq.data, "dk": dk.data, "dv": dv.data}


def start_rows(memory: Memory, problem: Problem, rows: int) -> list[Buffer]:
    """Make the state of a block of rows in fast memory: o, row_max, row_sum."""
    return [
        problem.tile(memory, "o", (rows, problem.head_dim)),
        problem.tile(memory, "row_max", (rows,), fill=-np.inf),
        problem.tile(memory, "row_sum", (rows,)),
    ]


def attend(
    memory: Memory, problem: Problem, rows: slice, keys: slice,
    q: Buffer, k: Buffer, v: Buffer, state: list[Buffer],
) -> None:  # fmt: skip
    """Bring the state of a block of rows up to date with one tile of keys and values."""

    def multiply(q: Any, k: Any, scores: Any) -> None:
        visible = problem.visible(rows, keys)
        scores[...] = np.where(visible, problem.scale * (q @ k.T), -np.inf)

    def update(scores: Any, v: Any, acc: Any, row_max: Any, row_sum: Any) -> None:
        new_max = np.maximum(row_max, scores.max(axis=1))
        start = finite_or_zero(new_max)
        probs = np.exp(scores - start[:, None])
        correction = np.exp(row_max - start)
        row_sum[...] = row_sum * correction + probs.sum(axis=1)
        acc[...] = acc * correction[:, None] + probs @ v
        row_max[...] = new_max

    scores = problem.tile(memory, "scores", (size(rows), size(keys)))
    flops = 2 * size(rows) * size(keys) * problem.head_dim
    memory.compute("S = scale Q K^T", multiply, q, k, scores, flops=flops)
    memory.compute("online softmax, P V", update, scores, v, *state, flops=flops)
    memory.free(scores)


def finish(acc: Any, row_max: Any, row_sum: Any) -> None:
    """Turn acc into o and row_max into lse, in place."""
    divisor = np.where(row_sum > 0, row_sum, 1.0)
    acc /= divisor[:, None]
    row_max += np.log(divisor)


def _row_dots(memory: Memory, problem: Problem, o: Buffer, do: Buffer, delta: Buffer) -> None:
    """Compute ``D = rowsum(dO * O)``."""

    def dots(o: Any, do: Any, delta: Any) -> None:
        delta[...] = (o * do).sum(axis=1)

    for rows in problem.row_blocks:
        tiles = [memory.load(x, (rows,), level=fast(memory)) for x in (o, do)]
        result = problem.tile(memory, "delta", (size(rows),))
        memory.compute("D = rowsum(dO O)", dots, *tiles, result)
        memory.store(result, delta, (rows,))
        memory.free(*tiles, result)


def _backward_step(problem: Problem, rows: slice, keys: slice) -> Callable[..., None]:
    """Return the arithmetic of one tile, five products."""

    def step(
        k: Any, v: Any, dk: Any, dv: Any, probs: Any, dscores: Any,
        q: Any, do: Any, lse: Any, delta: Any, dq: Any,
    ) -> None:  # fmt: skip
        probs[...] = probabilities(problem, rows, keys, q, k, lse)
        dv += probs.T @ do
        dscores[...] = probs * (do @ v.T - delta[:, None])
        dq += problem.scale * (dscores @ k)
        dk += problem.scale * (dscores.T @ q)

    return step
