"""FlashAttention as first published: keys and values outside, queries inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from glm2_reference.checks import FloatArray
from glm2_reference.layers import finite_or_zero
from glm2_reference.memory import Memory
from glm2_reference.schedules.problem import Problem, fast, size

Arrays = dict[str, FloatArray | None]
Sees = Callable[[slice, slice], bool]


def block_sizes(head_dim: int, fast_bytes: int, element_bytes: int) -> tuple[int, int]:
    """Return the paper's B_r and B_c: ``B_c = ceil(M / 4d)``, ``B_r = min(B_c, d)``.

    It budgets four tiles, of q, k, v and o; the tile of scores is extra, and may not fit.

    Parameters
    ----------
    head_dim : int
    fast_bytes : int
        Of fast memory; M is that many elements.
    element_bytes : int

    Returns
    -------
    block_m, block_n : int

    Raises
    ------
    ValueError
        If fast memory does not hold one element.

    References
    ----------
    Dao et al. 2022, algorithm 1, line 1.
    """
    if head_dim < 1 or element_bytes < 1 or fast_bytes < element_bytes:
        msg = (
            f"head_dim is {head_dim}, fast memory {fast_bytes} bytes and an element {element_bytes}; "
            "expected dims, and room for an element"
        )
        raise ValueError(msg)
    block_n = -(-(fast_bytes // element_bytes) // (4 * head_dim))
    return min(block_n, head_dim), block_n


def flash1_forward(
    memory: Memory, problem: Problem, arrays: Arrays, *, sees: Sees | None = None
) -> Arrays:
    """Walk FlashAttention's first forward pass.

    Each block of K and V is loaded once; for each, every block of Q comes by, and with it O, l and m,
    which are read, brought up to date and written back: ``2 n d + T_c (3 M d + 4 M)`` elements.

    Parameters
    ----------
    memory : Memory
        Of two levels.
    problem : Problem
    arrays : dict
        q (rows, d), k and v (seq_len_kv, d); None or absent in a trace.
    sees : callable or None
        Whether a tile (rows, keys) is walked at all; None asks the problem. `block_sparse` passes its
        own.

    Returns
    -------
    arrays : dict
        o (rows, d), row_max and row_sum (rows,).

    References
    ----------
    Dao et al. 2022, algorithm 1.
    """
    sees = sees or problem.sees
    with memory.scope():
        q, k, v = (problem.place(memory, name, arrays.get(name)) for name in ("q", "k", "v"))
        o, row_max, row_sum = (problem.place(memory, name) for name in ("o", "row_max", "row_sum"))
        _start(memory, problem, [(o, 0.0), (row_max, -np.inf), (row_sum, 0.0)])
        level = fast(memory)
        for keys in problem.key_blocks:
            walked = [rows for rows in problem.row_blocks if sees(rows, keys)]
            if not walked:
                continue
            k_tile, v_tile = (memory.load(x, (keys,), level=level) for x in (k, v))
            for rows in walked:
                q_tile = memory.load(q, (rows,), level=level)
                state = [memory.load(x, (rows,), level=level) for x in (o, row_max, row_sum)]
                scores = problem.tile(memory, "scores", (size(rows), size(keys)))
                flops = 2 * size(rows) * size(keys) * problem.head_dim
                multiply, update = _forward_steps(problem, rows, keys)
                memory.compute("S = scale Q K^T", multiply, q_tile, k_tile, scores, flops=flops)
                memory.compute("online softmax, P V", update, scores, v_tile, *state, flops=flops)
                for tile, tensor in zip(state, (o, row_max, row_sum), strict=True):
                    memory.store(tile, tensor, (rows,))
                memory.free(q_tile, scores, *state)
            memory.free(k_tile, v_tile)
        return {"o": o.data, "row_max": row_max.data, "row_sum": row_sum.data}


def flash1_backward(memory: Memory, problem: Problem, arrays: Arrays) -> Arrays:
    """Walk FlashAttention's first backward pass: P is computed again, never read.

    Each block of K and V is loaded once, and its dK and dV written once; for each, every block of Q,
    O, dO and dQ comes by: ``4 n d + T_c (5 M d + 2 M)`` elements.

    Parameters
    ----------
    memory, problem
        As in `flash1_forward`.
    arrays : dict
        q, o, do (rows, d), k, v (seq_len_kv, d), row_max, row_sum (rows,).

    Returns
    -------
    arrays : dict
        dq, dk, dv.

    References
    ----------
    Dao et al. 2022, algorithm 4.
    """
    names = ("q", "o", "do", "row_max", "row_sum")
    with memory.scope():
        k, v = (problem.place(memory, name, arrays.get(name)) for name in ("k", "v"))
        inputs = [problem.place(memory, name, arrays.get(name)) for name in names]
        dq, dk, dv = (problem.place(memory, name) for name in ("dq", "dk", "dv"))
        _start(memory, problem, [(dq, 0.0), (dk, 0.0), (dv, 0.0)])
        level = fast(memory)
        for keys in problem.key_blocks:
            k_tile, v_tile = (memory.load(x, (keys,), level=level) for x in (k, v))
            shape = (size(keys), problem.head_dim)
            dk_tile, dv_tile = (problem.tile(memory, name, shape) for name in ("dk", "dv"))
            for rows in problem.row_blocks:
                if not problem.sees(rows, keys):
                    continue
                tiles = [memory.load(x, (rows,), level=level) for x in (*inputs, dq)]
                square = (size(rows), size(keys))
                probs, dscores = (problem.tile(memory, x, square) for x in ("probs", "dscores"))
                step = backward_step(problem, rows, keys)
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


def backward_step(problem: Problem, rows: slice, keys: slice) -> Callable[..., None]:
    """Return the arithmetic of one tile of the backward pass, five products."""

    def step(
        k: Any, v: Any, dk: Any, dv: Any, probs: Any, dscores: Any,
        q: Any, o: Any, do: Any, row_max: Any, row_sum: Any, dq: Any,
    ) -> None:  # fmt: skip
        lse = row_max + np.log(np.where(row_sum > 0, row_sum, 1.0))
        probs[...] = probabilities(problem, rows, keys, q, k, lse)
        dv += probs.T @ do
        delta = (do * o).sum(axis=1, keepdims=True)
        dscores[...] = probs * (do @ v.T - delta)
        dq += problem.scale * (dscores @ k)
        dk += problem.scale * (dscores.T @ q)

    return step


def probabilities(problem: Problem, rows: slice, keys: slice, q: Any, k: Any, lse: Any) -> Any:
    """Compute a tile of P again from the rows' log of their sums: ``exp(scale q k^T - lse)``."""
    scores = problem.scale * (q @ k.T) - finite_or_zero(lse)[:, None]
    return np.exp(np.where(problem.visible(rows, keys), scores, -np.inf))


def _forward_steps(
    problem: Problem, rows: slice, keys: slice
) -> tuple[Callable[..., None], Callable[..., None]]:
    """Return the arithmetic of one tile of the forward pass, in its two halves."""

    def multiply(q: Any, k: Any, scores: Any) -> None:
        visible = problem.visible(rows, keys)
        scores[...] = np.where(visible, problem.scale * (q @ k.T), -np.inf)

    def update(scores: Any, v: Any, o: Any, row_max: Any, row_sum: Any) -> None:
        new_max = np.maximum(row_max, scores.max(axis=1))
        start = finite_or_zero(new_max)
        probs = np.exp(scores - start[:, None])
        old = row_sum * np.exp(row_max - start)
        new_sum = old + probs.sum(axis=1)
        divisor = np.where(new_sum > 0, new_sum, 1.0)
        o[...] = (o * old[:, None] + probs @ v) / divisor[:, None]
        row_max[...], row_sum[...] = new_max, new_sum

    return multiply, update


def _start(memory: Memory, problem: Problem, tensors: list[tuple[Any, float]]) -> None:
    """Give tensors their initial values; counted as writes where the convention says so."""
    for tensor, value in tensors:
        if tensor.data is not None:
            tensor.data[...] = value
        if problem.convention.init_writes:
            memory.charge(fast(memory), tensor.level, tensor.name, nbytes=tensor.nbytes, bursts=1)
