"""What each copy of the flash_attention kernel moves: bytes and contiguous runs, by its two sides.

Kept in step with ``flash_attention_cube.h`` and ``flash_attention_vector.h``; the methods have the
order of the kernel's stages. Bytes are what the copy instructions move, padding included.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from glm2_reference.checks import FloatArray
from glm2_reference.memory import Memory
from glm2_reference.schedules.ascend_tiling import AscendTiling, align

_FRACTAL_ROWS = 16
_FRACTAL_BYTES = 512
_FLOAT = 4
_COMBINED_ROWS = 8  # that a vector core adds up at a time: a block of statistics
_REPEAT = 64  # floats that a vector instruction takes at once: scores are padded to it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shapes:
    """Shapes and widths of one call."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    page_size: int
    q_bytes: int
    cache_bytes: int

    @classmethod
    def of(cls, q: FloatArray, k_cache: FloatArray) -> Shapes:
        """Read them from q (T, N, D) and k_cache (num_pages, G, page_size, D)."""
        return cls(
            num_heads=q.shape[1],
            num_kv_heads=k_cache.shape[1],
            head_dim=q.shape[2],
            page_size=k_cache.shape[2],
            q_bytes=q.dtype.itemsize,
            cache_bytes=k_cache.dtype.itemsize,
        )

    @property
    def group_size(self) -> int:
        """Query heads of one K/V head."""
        return self.num_heads // self.num_kv_heads

    @property
    def casts(self) -> bool:
        """Whether q is rounded to the cache's dtype before it is multiplied."""
        return self.q_bytes != self.cache_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class QTile:
    """One Q tile and the keys that it walks, in one part or several.

    ``position`` is that of its first token.
    """

    group: int
    token: int
    tokens: int
    position: int
    prefix: int
    parts: tuple[range, ...]


class CubeMoves:
    """The matrix unit's side: Q, K, V and P in, S and P V out."""

    def __init__(self, memory: Memory, shapes: Shapes, tiling: AscendTiling) -> None:
        self._memory, self._shapes, self._tiling = memory, shapes, tiling

    def load_query(self, tile: QTile) -> None:
        """GM q, or the workspace's rounded q, to L1."""
        s = self._shapes
        nbytes = tile.tokens * s.group_size * s.head_dim * s.cache_bytes
        if s.casts:
            self._memory.charge("l2", "l1", "q_cast", nbytes=nbytes, bursts=1)
        else:
            bursts = 1 if s.num_kv_heads == 1 else tile.tokens
            self._memory.charge("gm", "l1", "q", nbytes=nbytes, bursts=bursts)

    def scores(self, tile: QTile, keys: range) -> None:
        """C1: GM k to L1, S = Q K^T, S to the workspace."""
        s, t = self._shapes, self._tiling
        rows = tile.tokens * s.group_size
        self._load_pages("k", keys)
        pitch = align(len(keys), _REPEAT)
        for start in range(0, len(keys), t.l0_block_n):
            columns = min(t.l0_block_n, len(keys) - start)
            self._multiply("q", "k", rows, columns, s.head_dim)
            self._store("scores", rows, align(columns, _FRACTAL_ROWS), pitch)

    def outputs(self, tile: QTile, keys: range) -> None:
        """C2: GM v and the workspace's P to L1, O = P V, O to the workspace."""
        s, t = self._shapes, self._tiling
        rows, n = tile.tokens * s.group_size, len(keys)
        self._load_pages("v", keys)
        width = align(n, 32 // s.cache_bytes)
        self._memory.charge(
            "l2",
            "l1",
            "probs",
            nbytes=rows * width * s.cache_bytes,
            bursts=1 if width == align(n, _REPEAT) else rows,
        )
        for start in range(0, s.head_dim, t.l0_block_n):
            columns = min(t.l0_block_n, s.head_dim - start)
            self._multiply("probs", "v", rows, columns, n)
            self._store("acc", rows, columns, s.head_dim)

    def _load_pages(self, name: str, keys: range) -> None:
        s = self._shapes
        start = keys.start
        while start < keys.stop:
            stop = min((start // s.page_size + 1) * s.page_size, keys.stop)
            copies = 1
            if name == "v" and s.cache_bytes == _FLOAT:  # whole fractals, then the rest
                copies = sum(map(bool, divmod(stop - start, _FRACTAL_ROWS)))
            nbytes = (stop - start) * s.head_dim * s.cache_bytes
            self._memory.charge("gm", "l1", name, nbytes=nbytes, bursts=copies)
            start = stop

    def _multiply(self, left: str, right: str, rows: int, columns: int, depth: int) -> None:
        """L1 to L0A and L0B in whole fractals, one product at a time."""
        t = self._tiling
        wide = 32 // self._shapes.cache_bytes  # columns of a fractal
        for start in range(0, depth, t.l0_block_k):
            part = min(t.l0_block_k, depth - start)
            for source, target, lines in ((left, "l0a", rows), (right, "l0b", columns)):
                fractals = -(-lines // _FRACTAL_ROWS) * -(-part // wide)
                if source == "v":  # its rows are the product's depth
                    fractals = -(-columns // wide) * -(-part // _FRACTAL_ROWS)
                nbytes = fractals * _FRACTAL_BYTES
                self._memory.charge("l1", target, source, nbytes=nbytes, bursts=fractals)
            self._memory.flops += 2 * rows * columns * part * self._memory.times

    def _store(self, name: str, rows: int, width: int, pitch: int) -> None:
        nbytes, bursts = rows * width * _FLOAT, 1 if width == pitch else rows
        self._memory.charge("l0c", "l2", name, nbytes=nbytes, bursts=bursts)


class VectorMoves:
    """The vector units' side: S in and P out; P V in; o and lse out. Two units halve the rows."""

    def __init__(self, memory: Memory, shapes: Shapes, tiling: AscendTiling) -> None:
        self._memory, self._shapes, self._tiling = memory, shapes, tiling

    def cast_query(self, tile: QTile) -> None:
        """GM q to UB, rounded, to the workspace; nothing where the dtypes agree."""
        s = self._shapes
        if not s.casts:
            return
        for row, count in self._passes(tile):
            for tokens, heads in self._runs(row, count):
                nbytes = tokens * heads * s.head_dim * s.q_bytes
                bursts = 1 if s.num_kv_heads == 1 else tokens
                self._memory.charge("gm", "ub", "q", nbytes=nbytes, bursts=bursts)
            nbytes = count * s.head_dim * s.cache_bytes
            self._memory.charge("ub", "l2", "q_cast", nbytes=nbytes, bursts=1)

    def softmax(self, tile: QTile, num_keys: int) -> None:
        """V1: the workspace's S to UB, P to the workspace."""
        width = align(num_keys, _REPEAT)
        for _, count in self._passes(tile):
            self._memory.charge("l2", "ub", "scores", nbytes=count * width * _FLOAT, bursts=1)
            nbytes = count * width * self._shapes.cache_bytes
            self._memory.charge("ub", "l2", "probs", nbytes=nbytes, bursts=1)

    def accumulate(self, tile: QTile) -> None:
        """V2: the workspace's P V to UB."""
        for _, count in self._passes(tile):
            nbytes = count * self._shapes.head_dim * _FLOAT
            self._memory.charge("l2", "ub", "acc", nbytes=nbytes, bursts=1)

    def store_part(self, tile: QTile) -> None:
        """UB acc, row_max and row_sum of a part to the workspace."""
        for _, count in self._passes(tile):
            self._move_part("ub", "l2", count, align(count, _COMBINED_ROWS))

    def combine(self, tile: QTile, *, return_lse: bool) -> None:
        """Bring the workspace's parts to UB, a few rows at a time; UB o and lse to GM."""
        rows = tile.tokens * self._shapes.group_size
        for row in range(0, rows, _COMBINED_ROWS):
            count = min(_COMBINED_ROWS, rows - row)
            for _ in tile.parts:
                self._move_part("l2", "ub", count, _COMBINED_ROWS)
            self._write(row, count, return_lse=return_lse)

    def finish(self, tile: QTile, *, return_lse: bool) -> None:
        """UB o and lse to GM."""
        for row, count in self._passes(tile):
            self._write(row, count, return_lse=return_lse)

    def _move_part(self, source: str, target: str, rows: int, statistics: int) -> None:
        for name, elems in (
            ("part_acc", rows * self._shapes.head_dim),
            ("part_max", statistics),
            ("part_sum", statistics),
        ):
            self._memory.charge(source, target, name, nbytes=elems * _FLOAT, bursts=1)

    def _write(self, row: int, count: int, *, return_lse: bool) -> None:
        s = self._shapes
        for tokens, heads in self._runs(row, count):
            nbytes = tokens * heads * s.head_dim * s.q_bytes
            bursts = 1 if s.num_kv_heads == 1 else tokens
            self._memory.charge("ub", "gm", "o", nbytes=nbytes, bursts=bursts)
            if return_lse:
                nbytes = tokens * heads * _FLOAT
                self._memory.charge("ub", "gm", "lse", nbytes=nbytes, bursts=tokens)

    def _passes(self, tile: QTile) -> Iterator[tuple[int, int]]:
        """List (first row, rows) of each pass, of both vector units."""
        rows = tile.tokens * self._shapes.group_size
        half = min(align(-(-rows // 2), 8), rows)
        for begin, end in ((0, half), (half, rows)):
            for row in range(begin, end, self._tiling.vec_rows):
                yield row, min(self._tiling.vec_rows, end - row)

    def _runs(self, row: int, count: int) -> Iterator[tuple[int, int]]:
        """Cut rows into (tokens, heads): the end of a token's heads, whole tokens, a beginning."""
        group = self._shapes.group_size
        done = 0
        while done < count:
            head = (row + done) % group
            left = count - done
            whole = head == 0 and left >= group
            heads = group if whole else min(group - head, left)
            tokens = left // group if whole else 1
            yield tokens, heads
            done += tokens * heads
