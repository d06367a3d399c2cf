"""The tiles that the host chooses for the flash_attention kernel, and what they take in each memory.

Kept in step with ``ascend_ops/flash_attention/op_host/flash_attention_tiling.cpp``; a test compares
the two.
"""

from __future__ import annotations

import dataclasses

from glm2_reference.memory import Memory, MemoryLimitError
from glm2_reference.memory_systems import ASCEND_A2, MemorySystem

SPLIT_KEYS = 1024  # of a part, where one Q tile holds all queries of a sequence
TASK_SLOTS = 3  # of S, P and O in the workspace: the cube is two tasks ahead of the vector cores
_ROWS_WANTED = 128
_BLOCKS_N = (256, 128, 64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AscendTiling:
    """Tiles of one call.

    Parameters
    ----------
    tokens_per_block : int
        Query tokens of one Q tile.
    block_m : int
        Its rows, token x head of one group, rounded up to 16.
    block_n : int
        Rows of one K/V tile.
    l0_block_k, l0_block_n : int
        Depth and columns of one matrix product.
    vec_rows : int
        Rows of one pass of a vector core.
    split_keys : int
        Keys of a part, where one Q tile holds all queries of a sequence.
    """

    tokens_per_block: int
    block_m: int
    block_n: int
    l0_block_k: int
    l0_block_n: int
    vec_rows: int
    split_keys: int


def choose_tiling(
    *, group_size: int, head_dim: int, cache_bytes: int, system: MemorySystem = ASCEND_A2
) -> AscendTiling:
    """Choose the largest K/V tile that fits every memory of a core.

    Parameters
    ----------
    group_size : int
        Query heads that share a K/V head.
    head_dim : int
    cache_bytes : int
        Width of an element of the K/V cache, 2 or 4.
    system : MemorySystem

    Raises
    ------
    MemoryLimitError
        If even the smallest does not fit.
    ValueError
        If the kernel serves no such group or width.
    """
    if not 1 <= group_size <= _ROWS_WANTED or head_dim < 1 or cache_bytes not in (2, 4):
        msg = (
            f"group_size is {group_size}, head_dim {head_dim} and cache_bytes {cache_bytes}; expected "
            f"1 to {_ROWS_WANTED} heads, dims, and 2 or 4 bytes"
        )
        raise ValueError(msg)
    tokens = max(1, _ROWS_WANTED // group_size)
    for block_n in _BLOCKS_N:
        tiling = AscendTiling(
            tokens_per_block=tokens,
            block_m=align(tokens * group_size, 16),
            block_n=block_n,
            l0_block_k=128 if cache_bytes == 2 else 64,
            l0_block_n=128,
            vec_rows=32,
            split_keys=SPLIT_KEYS,
        )
        memory = Memory(system, compute=False)
        try:
            allocate_tiles(memory, tiling, head_dim=head_dim, cache_bytes=cache_bytes)
        except MemoryLimitError:
            if block_n == _BLOCKS_N[-1]:
                raise
        else:
            break
    return tiling


def allocate_tiles(
    memory: Memory, tiling: AscendTiling, *, head_dim: int, cache_bytes: int
) -> None:
    """Allocate what the kernel's Init functions lay out, in every memory of a core.

    Raises
    ------
    MemoryLimitError
        If one of them does not hold it.
    """
    t, d = tiling, head_dim
    rows, longest = t.block_m // 2, max(t.block_n, d)  # a vector core takes half of the rows
    memory.name_tiles(block_m=t.block_m, block_n=t.block_n, head_dim=d)
    slots, vec = TASK_SLOTS, t.vec_rows
    plan: list[tuple[str, str, tuple[int, ...], int]] = [
        ("q", "l1", (t.block_m, d), cache_bytes),
        ("k", "l1", (2, t.block_n, d), cache_bytes),
        ("v", "l1", (2, t.block_n, d), cache_bytes),
        ("probs", "l1", (2, t.block_m, t.block_n), cache_bytes),
        ("left operand", "l0a", (2, t.block_m, t.l0_block_k), cache_bytes),
        ("right operand", "l0b", (2, t.l0_block_n, t.l0_block_k), cache_bytes),
        ("product", "l0c", (2, t.block_m, t.l0_block_n), 4),
        ("acc", "ub", (rows, d), 4),
        ("scores", "ub", (vec, longest), 4),
        ("probs", "ub", (vec, longest), cache_bytes),
        ("fold", "ub", (vec, 64), 4),
        ("blocks", "ub", (vec, 8), 4),
        ("row statistics", "ub", (1 + 3 * slots, rows), 4),
        ("q_cast", "l2", (t.block_m, d), cache_bytes),
        ("scores", "l2", (slots, t.block_m, t.block_n), 4),
        ("probs", "l2", (slots, t.block_m, t.block_n), cache_bytes),
        ("acc", "l2", (slots, t.block_m, d), 4),
    ]
    for name, level, shape, width in plan:
        memory.allocate(name, shape, level=level, element_bytes=width)


def align(value: int, unit: int) -> int:
    """Round up to a multiple of ``unit``."""
    return -(-value // unit) * unit
