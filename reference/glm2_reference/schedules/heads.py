"""All heads of a batch through one schedule: together where they share K and V, or one by one.

This is where multi-query attention does or does not save traffic. With ``share_kv`` the rows of a
group's heads (token x head) go through as one problem, and a tile of K and V is loaded for all of
them; without it each head loads them for itself, and moves what multi-head attention would.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from glm2_reference.attention import attention, check_dense
from glm2_reference.checks import FloatArray, check_heads, check_shape, resolve_scale
from glm2_reference.memory import Memory
from glm2_reference.memory_systems import A100, MemorySystem
from glm2_reference.schedules.flash1 import Arrays, flash1_backward, flash1_forward
from glm2_reference.schedules.flash2 import flash2_backward, flash2_forward
from glm2_reference.schedules.problem import CLOSED_FORM, Convention, Problem
from glm2_reference.schedules.standard import standard_backward, standard_forward

Schedule = Callable[[Memory, Problem, Arrays], Arrays]

FORWARD: dict[str, Schedule] = {
    "standard": standard_forward,
    "flash1": flash1_forward,
    "flash2": flash2_forward,
}
BACKWARD: dict[str, Schedule] = {
    "standard": standard_backward,
    "flash1": flash1_backward,
    "flash2": flash2_backward,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadShape:
    """Shapes of a whole call.

    Parameters
    ----------
    batch, num_heads, num_kv_heads, seq_len_q, seq_len_kv, head_dim : int

    Raises
    ------
    ValueError
        If a size is not positive, or ``num_heads`` not a multiple of ``num_kv_heads``.
    """

    batch: int
    num_heads: int
    num_kv_heads: int
    seq_len_q: int
    seq_len_kv: int
    head_dim: int

    def __post_init__(self) -> None:
        sizes = dataclasses.astuple(self)
        if min(sizes) < 1:
            msg = f"the sizes are {sizes}, batch to head_dim; expected 1 or more"
            raise ValueError(msg)
        check_heads(self.num_heads, self.num_kv_heads)

    def problem(self, *, share_kv: bool, scale: float | None, **options: object) -> Problem:
        """Return what goes through a schedule at once."""
        return Problem(
            seq_len_q=self.seq_len_q,
            seq_len_kv=self.seq_len_kv,
            head_dim=self.head_dim,
            group_size=self.num_heads // self.num_kv_heads if share_kv else 1,
            scale=resolve_scale(scale, self.head_dim),
            **options,  # type: ignore[arg-type]
        )


def run_forward(
    schedule: Schedule,
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    memory: Memory,
    *,
    block_m: int,
    block_n: int,
    scale: float | None = None,
    causal: bool = False,
    share_kv: bool = True,
    convention: Convention = CLOSED_FORM,
) -> Arrays:
    """Walk every head of a batch through a forward schedule.

    Parameters
    ----------
    schedule : callable
        One of `FORWARD`, or one that takes the same three arguments.
    q : float, BNSD, (B, num_heads, seq_len_q, D)
    k, v : float, BNSD, (B, num_kv_heads, seq_len_kv, D)
    memory : Memory
    block_m, block_n, convention
        As in `Problem`.
    scale : float or None
        None means ``1 / sqrt(D)``.
    causal : bool
    share_kv : bool
        Whether the heads of a group go through together.

    Returns
    -------
    arrays : dict
        What the schedule returns, with q's leading axes: o (B, num_heads, seq_len_q, D), ...

    Raises
    ------
    ValueError
        If shapes contradict each other, are empty, or the memory only traces.
    TypeError
        If the dtypes are not served.
    """
    shape = _check(memory, q, k, v)
    problem = shape.problem(
        share_kv=share_kv, scale=scale, causal=causal, convention=convention,
        block_m=block_m, block_n=block_n,
    )  # fmt: skip
    results: dict[str, list[FloatArray]] = {}
    for b, g, rows in _each(q, k, problem):
        arrays: Arrays = {"q": rows, "k": k[b, g], "v": v[b, g]}
        for name, value in schedule(memory, problem, arrays).items():
            assert value is not None  # a computing memory gives arrays
            results.setdefault(name, []).append(value)
    return {name: _to_heads(values, q, problem) for name, values in results.items()}


def run_backward(
    schedule: Schedule,
    do: FloatArray,
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    memory: Memory,
    *,
    block_m: int,
    block_n: int,
    scale: float | None = None,
    causal: bool = False,
    share_kv: bool = True,
    convention: Convention = CLOSED_FORM,
) -> Arrays:
    """Walk every head of a batch through a backward schedule.

    Parameters
    ----------
    schedule : callable
        One of `BACKWARD`.
    do : float, BNSD, shape of q
        The loss's gradient with respect to o.
    q, k, v, memory, block_m, block_n, scale, causal, share_kv, convention
        As in `run_forward`. What forward would have kept (o, lse, P) is computed densely.

    Returns
    -------
    arrays : dict
        dq, dk, dv in the shapes of q, k, v. Without ``share_kv`` the heads of a group give dk and dv
        each, and they are summed here, uncounted.

    Raises
    ------
    ValueError
        If shapes contradict each other, are empty, or the memory only traces.
    TypeError
        If the dtypes are not served.
    """
    check_shape("do", do, q.shape, "the shape of q")
    shape = _check(memory, q, k, v)
    problem = shape.problem(
        share_kv=share_kv, scale=scale, causal=causal, convention=convention,
        block_m=block_m, block_n=block_n,
    )  # fmt: skip
    o, lse = attention(q, k, v, scale=scale, causal=causal)
    dq: list[FloatArray] = []
    dk, dv = np.zeros(k.shape, memory.dtype), np.zeros(v.shape, memory.dtype)
    kept = zip(*(_each(x, k, problem) for x in (q, o, do, lse[..., None])), strict=True)
    for (b, g, q_rows), (_, _, o_rows), (_, _, do_rows), (_, _, lse_rows) in kept:
        lse_row = lse_rows[:, 0]
        arrays: Arrays = {
            "q": q_rows, "k": k[b, g], "v": v[b, g], "o": o_rows, "do": do_rows, "lse": lse_row,
            "row_max": lse_row, "row_sum": np.ones_like(lse_row),  # any pair of this lse serves
            "probs": _dense_probs(problem, q_rows, k[b, g], lse_row),
        }  # fmt: skip
        gradients = schedule(memory, problem, arrays)
        assert all(gradients[name] is not None for name in ("dq", "dk", "dv"))
        dq.append(gradients["dq"])  # type: ignore[arg-type]
        dk[b, g] += gradients["dk"]
        dv[b, g] += gradients["dv"]
    return {"dq": _to_heads(dq, q, problem), "dk": dk, "dv": dv}


def trace(
    schedule: Schedule,
    shape: HeadShape,
    *,
    block_m: int,
    block_n: int,
    causal: bool = False,
    share_kv: bool = True,
    convention: Convention = CLOSED_FORM,
    system: MemorySystem = A100,
    limited: bool = True,
) -> Memory:
    """Count a whole call without computing it: one head is walked, the others are alike.

    Parameters
    ----------
    schedule : callable
        One of `FORWARD` or `BACKWARD`.
    shape : HeadShape
    block_m, block_n, causal, share_kv, convention
        As in `run_forward`.
    system : MemorySystem
    limited : bool
        As in `Memory`.

    Returns
    -------
    memory : Memory
        Its counters are of the whole call; its peaks are of one head (or group).
    """
    problem = shape.problem(
        share_kv=share_kv, scale=None, causal=causal, convention=convention,
        block_m=block_m, block_n=block_n,
    )  # fmt: skip
    memory = Memory(system, compute=False, limited=limited)
    with memory.repeated(shape.batch * (shape.num_kv_heads if share_kv else shape.num_heads)):
        schedule(memory, problem, {})
    return memory


def _check(memory: Memory, q: FloatArray, k: FloatArray, v: FloatArray) -> HeadShape:
    """Require dense inputs and a memory that computes; return their shape."""
    check_dense(q, k, v)
    if not memory.computing:
        msg = (
            "the memory only traces, and there is data; make it with compute=True, or call trace()"
        )
        raise ValueError(msg)
    batch, num_heads, seq_len_q, head_dim = q.shape
    return HeadShape(
        batch=batch, num_heads=num_heads, num_kv_heads=k.shape[1], seq_len_q=seq_len_q,
        seq_len_kv=k.shape[2], head_dim=head_dim,
    )  # fmt: skip


def _each(x: FloatArray, k: FloatArray, problem: Problem) -> list[tuple[int, int, FloatArray]]:
    """List (sequence, K/V head, rows of x): row r is token r // group_size."""
    batch, num_kv_heads = k.shape[:2]
    heads = x.shape[1] // problem.group_size  # problems a sequence
    size = problem.group_size
    return [
        (
            b,
            h * num_kv_heads // heads,
            x[b, h * size : (h + 1) * size].swapaxes(0, 1).reshape(-1, x.shape[3]),
        )
        for b in range(batch)
        for h in range(heads)
    ]


def _to_heads(values: list[FloatArray], q: FloatArray, problem: Problem) -> FloatArray:
    """Undo `_each`: stack the rows of every problem into (B, num_heads, seq_len_q, ...)."""
    stacked = np.stack(values)  # (B * problems, rows, ...)
    rest = stacked.shape[2:]
    tokens = stacked.reshape(-1, problem.seq_len_q, problem.group_size, *rest).swapaxes(1, 2)
    return tokens.reshape(*q.shape[:3], *rest)


def _dense_probs(problem: Problem, q: FloatArray, k: FloatArray, lse: FloatArray) -> FloatArray:
    scores = problem.scale * (q @ k.T)
    visible = problem.visible(slice(0, problem.rows), slice(0, problem.seq_len_kv))
    probs: FloatArray = np.where(visible, np.exp(scores - np.where(visible, lse[:, None], 0)), 0)
    return probs
