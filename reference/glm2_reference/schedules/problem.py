"""What a schedule is given: the shapes of one head, or of a group's heads, and how bytes are counted."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np

from glm2_reference.attention import visible_keys
from glm2_reference.buffers import Buffer
from glm2_reference.checks import BoolArray, FloatArray, check_tiling
from glm2_reference.memory import Memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convention:
    """Choices that papers leave open, and that change the counts; every table names them.

    Parameters
    ----------
    element_bytes : int
        Width of q, k, v, o, their gradients, and of S and P in the outermost memory.
    stat_bytes : int
        Width of the row statistics l, m and lse in the outermost memory.
    score_bytes : int
        Width of a tile of scores in fast memory.
    init_writes : bool
        Whether writing the initial zeros of o, l, m and of dq, dk, dv is counted.

    Raises
    ------
    ValueError
        If a width is not positive.
    """

    element_bytes: int = 2
    stat_bytes: int = 2
    score_bytes: int = 2
    init_writes: bool = False

    def __post_init__(self) -> None:
        widths = (self.element_bytes, self.stat_bytes, self.score_bytes)
        if min(widths) < 1:
            msg = f"element_bytes, stat_bytes and score_bytes are {widths}; expected 1 or more"
            raise ValueError(msg)

    def __str__(self) -> str:
        writes = "with" if self.init_writes else "without"
        return (
            f"elements {self.element_bytes} B, row statistics {self.stat_bytes} B, score tiles "
            f"{self.score_bytes} B, {writes} initial writes"
        )


CLOSED_FORM: Final = Convention()  # how the papers count
AS_RUN: Final = Convention(stat_bytes=4, score_bytes=4, init_writes=True)  # how programs do it

_ROW_TENSORS = ("q", "o", "do", "dq")
_KEY_TENSORS = ("k", "v", "dk", "dv")
_SQUARES = ("scores", "probs", "dprobs", "dscores")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """Attention of one K/V head: by one query head, or by all heads of its group together.

    Rows are token x head: row r is query token ``r // group_size``. The queries stand at the end of
    the keys.

    Parameters
    ----------
    seq_len_q, seq_len_kv, head_dim : int
    group_size : int
        Query heads whose rows go through together.
    scale : float
    causal : bool
        Tiles that no row sees are skipped by every schedule but the standard one.
    convention : Convention
    block_m, block_n : int
        Tile rows of q, and of k and v.

    Raises
    ------
    ValueError
        If a size is not positive.
    """

    seq_len_q: int
    seq_len_kv: int
    head_dim: int
    group_size: int = 1
    scale: float = 1.0
    causal: bool = False
    convention: Convention = CLOSED_FORM
    block_m: int = 64
    block_n: int = 256

    def __post_init__(self) -> None:
        check_tiling(self.block_m, self.block_n)
        sizes = (self.seq_len_q, self.seq_len_kv, self.head_dim, self.group_size)
        if min(sizes) < 1:
            msg = f"seq_len_q, seq_len_kv, head_dim and group_size are {sizes}; expected 1 or more"
            raise ValueError(msg)

    @property
    def rows(self) -> int:
        """Rows of q: token x head."""
        return self.seq_len_q * self.group_size

    @property
    def row_blocks(self) -> list[slice]:
        """Tiles of q."""
        return _blocks(self.rows, self.block_m)

    @property
    def key_blocks(self) -> list[slice]:
        """Tiles of k and v."""
        return _blocks(self.seq_len_kv, self.block_n)

    def sees(self, rows: slice, keys: slice) -> bool:
        """Whether any row of a tile sees any of its keys."""
        last = (rows.stop - 1) // self.group_size + self.seq_len_kv - self.seq_len_q
        return not self.causal or bool(keys.start <= last)

    def visible(self, rows: slice, keys: slice) -> BoolArray:
        """Which keys of a tile each of its rows sees."""
        return visible_keys(
            np.arange(rows.start, rows.stop) // self.group_size + self.seq_len_kv - self.seq_len_q,
            np.arange(keys.start, keys.stop),
            causal=self.causal,
            prefix_len=0,
            window=None,
        )

    def place(self, memory: Memory, name: str, data: FloatArray | None = None) -> Buffer:
        """Put a tensor of this problem in the outermost memory; without data, zeros."""
        if name in _ROW_TENSORS:
            shape: tuple[int, ...] = (self.rows, self.head_dim)
        elif name in _KEY_TENSORS:
            shape = (self.seq_len_kv, self.head_dim)
        elif name in _SQUARES:
            shape = (self.rows, self.seq_len_kv)
        else:
            shape = (self.rows,)
        squares_or_wider = len(shape) == 2
        width = self.convention.element_bytes if squares_or_wider else self.convention.stat_bytes
        memory.name_tiles(block_m=self.block_m, block_n=self.block_n)
        return memory.place(name, data, shape=shape, element_bytes=width)

    def tile(
        self, memory: Memory, name: str, shape: tuple[int, ...], *, fill: float = 0.0
    ) -> Buffer:
        """Make a tile in fast memory: two axes of head_dim columns, scores, or a row statistic."""
        if name in _SQUARES:
            width = self.convention.score_bytes
        else:
            width = self.convention.element_bytes if len(shape) == 2 else self.convention.stat_bytes
        return memory.allocate(name, shape, level=fast(memory), element_bytes=width, fill=fill)


def fast(memory: Memory) -> str:
    """Return the name of the fast level of a machine with two.

    Raises
    ------
    ValueError
        If the machine has more: these schedules know one level that everything fits in.
    """
    if len(memory.system.levels) != 2:
        msg = (
            f"{memory.system.name} has {len(memory.system.levels)} memories; this schedule is for "
            "two, such as a100 or cpu (ascend_forward is for ascend_a2)"
        )
        raise ValueError(msg)
    return memory.system.compute_level.name


def _blocks(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def size(part: slice) -> int:
    """Return the length of a block."""
    return int(part.stop - part.start)
