"""The schedule of ``ascend_ops/flash_attention``: every move of the kernel, tile by tile.

Row r of a Q tile is token r // group_size, head r % group_size of one K/V head's group, so that K and
V are read once for all heads that share them. S, P and P V pass through a workspace, for on this
hardware the matrix unit and the vector unit meet only outside; the workspace is small enough to stay
in L2, and is counted there, apart from GM. Index arrays are read by the scalar unit, and not counted.

Where one Q tile holds all queries of a sequence, its keys are cut at multiples of ``split_keys``. The
parts, which cores share, leave acc, row_max and row_sum in the workspace; a second step adds them up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from glm2_reference.checks import FloatArray, IntArray, compute_dtype, resolve_scale
from glm2_reference.flash_attention import check_paged
from glm2_reference.kv_cache import read_pages
from glm2_reference.memory import Memory
from glm2_reference.online_softmax import TileOptions, attend_tile
from glm2_reference.schedules.ascend_moves import CubeMoves, QTile, Shapes, VectorMoves
from glm2_reference.schedules.ascend_tiling import AscendTiling, allocate_tiles, choose_tiling


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visibility:
    """Who sees whom: the operator's options."""

    causal: bool
    window: int | None
    scale: float


def ascend_forward(
    memory: Memory,
    q: FloatArray,
    k_cache: FloatArray,
    v_cache: FloatArray,
    block_table: IntArray,
    cu_seqlens_q: IntArray,
    seq_len_kv: IntArray,
    *,
    prefix_len: IntArray | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    return_lse: bool = True,
    tiling: AscendTiling | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Walk the kernel's tiles, and count what each of its copies moves.

    Parameters
    ----------
    memory : Memory
        Of ``ASCEND_A2``. In a trace the values of q and of the caches are not looked at:
        ``np.broadcast_to(np.float16(0), shape)`` serves.
    q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len, scale, causal, window
        As in `glm2_reference.flash_attention`.
    return_lse : bool
        Whether the kernel writes lse.
    tiling : AscendTiling or None
        None asks `choose_tiling`, as the host does.

    Returns
    -------
    o : dtype of q, (T, num_heads, D)
    lse : float32 (float64 for float64), (T, num_heads)
        Zeros in a trace, both.

    Raises
    ------
    MemoryLimitError
        If the tiles do not fit.
    ValueError
        If shapes, lengths, page ids or options contradict each other, or the memory is of another
        machine.
    TypeError
        If a dtype is not served.
    """
    prefixes = check_paged(
        q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len, window
    )
    shapes = Shapes.of(q, k_cache)
    if tiling is None:
        tiling = choose_tiling(
            group_size=shapes.group_size, head_dim=shapes.head_dim, cache_bytes=shapes.cache_bytes
        )
    options = Visibility(causal=causal, window=window, scale=resolve_scale(scale, shapes.head_dim))
    cube, vector = CubeMoves(memory, shapes, tiling), VectorMoves(memory, shapes, tiling)
    o, lse = np.zeros_like(q), np.zeros(q.shape[:2], compute_dtype(q.dtype))
    with memory.scope():
        allocate_tiles(memory, tiling, head_dim=shapes.head_dim, cache_bytes=shapes.cache_bytes)
        for b, length in enumerate(seq_len_kv.tolist()):
            tokens = range(int(cu_seqlens_q[b]), int(cu_seqlens_q[b + 1]))
            for tile in _q_tiles(shapes, tiling, options, tokens, length, int(prefixes[b])):
                _walk(cube, vector, tile, block_n=tiling.block_n, return_lse=return_lse)
                if memory.computing:
                    k, v = (read_pages(x, block_table[b], length) for x in (k_cache, v_cache))
                    _attend(tile, shapes, tiling, options, q, k, v, o, lse)
    return o, lse


def _q_tiles(
    shapes: Shapes,
    tiling: AscendTiling,
    options: Visibility,
    tokens: range,
    length: int,
    prefix: int,
) -> Iterator[QTile]:
    """List a sequence's Q tiles; their order and their cores move no bytes."""
    for group in range(shapes.num_kv_heads):
        for first in range(tokens.start, tokens.stop, tiling.tokens_per_block):
            count = min(tiling.tokens_per_block, tokens.stop - first)
            position = length - len(tokens) + first - tokens.start
            keys = _visible_range(options, tiling.block_n, position, count, length, prefix)
            cut = tiling.split_keys if len(tokens) <= tiling.tokens_per_block else None
            yield QTile(
                group=group, token=first, tokens=count, position=position, prefix=prefix,
                parts=_cut_keys(keys, cut),
            )  # fmt: skip


def _cut_keys(keys: range, part_keys: int | None) -> tuple[range, ...]:
    """Cut at multiples of ``part_keys``."""
    if part_keys is None or not keys:
        return (keys,)
    starts = range(keys.start // part_keys * part_keys, keys.stop, part_keys)
    return tuple(range(max(x, keys.start), min(x + part_keys, keys.stop)) for x in starts)


def _visible_range(
    options: Visibility, block_n: int, position: int, count: int, length: int, prefix: int
) -> range:
    """Return the keys that some row of a Q tile sees, from a multiple of block_n on."""
    last = position + count - 1
    end = length
    if options.causal:
        end = min(end, last + 1)
    elif options.window is not None:
        end = min(end, min(last, length) + options.window)
    begin = 0
    if options.window is not None and prefix == 0:
        begin = max(0, position - options.window + 1)
    return range(begin // block_n * block_n, max(end, prefix, 0))


def _walk(
    cube: CubeMoves, vector: VectorMoves, tile: QTile, *, block_n: int, return_lse: bool
) -> None:
    """Charge one Q tile: the stages C1, V1, C2, V2 of each K/V tile, then the output."""
    for part in tile.parts:
        vector.cast_query(tile)
        if part:
            cube.load_query(tile)
        for start in range(part.start, part.stop, block_n):
            keys = range(start, min(start + block_n, part.stop))
            cube.scores(tile, keys)
            vector.softmax(tile, len(keys))
            cube.outputs(tile, keys)
            vector.accumulate(tile)
        if len(tile.parts) > 1:
            vector.store_part(tile)
    if len(tile.parts) > 1:
        vector.combine(tile, return_lse=return_lse)
    else:
        vector.finish(tile, return_lse=return_lse)


def _attend(
    tile: QTile, shapes: Shapes, tiling: AscendTiling, options: Visibility,
    q: FloatArray, k: FloatArray, v: FloatArray, o: FloatArray, lse: FloatArray,
) -> None:  # fmt: skip
    """Compute one Q tile with the kernel's tiles and rounding points."""
    size = shapes.group_size
    heads = slice(tile.group * size, (tile.group + 1) * size)
    tokens = slice(tile.token, tile.token + tile.tokens)
    rows = q[tokens, heads].reshape(-1, shapes.head_dim)  # (tokens * group_size, D)
    positions = np.repeat(np.arange(tile.tokens), size) + tile.position
    out, row_lse = attend_tile(
        rows,
        k[tile.group],
        v[tile.group],
        positions,
        TileOptions(
            scale=options.scale,
            causal=options.causal,
            prefix_len=tile.prefix,
            window=options.window,
            block_m=tiling.block_m,
            block_n=tiling.block_n,
        ),
        part_keys=tiling.split_keys if len(tile.parts) > 1 else None,
    )
    o[tokens, heads] = out.reshape(tile.tokens, size, -1)
    lse[tokens, heads] = row_lse.reshape(tile.tokens, size)
