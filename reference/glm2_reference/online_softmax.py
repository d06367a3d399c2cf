"""Online softmax: the attention of one sequence, tile by tile.

The rows of a tile are token x head of one K/V head: row r of a sequence is query token
``r // group_size``, head ``r % group_size`` of the group. So a K/V tile is read once for every query
head that shares it, and decoding one token of ChatGLM2 is a tile of 16 rows.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from glm2_reference.attention import divide_by_row_sum, visible_keys
from glm2_reference.checks import FloatArray, IntArray, compute_dtype
from glm2_reference.layers import finite_or_zero


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileOptions:
    """What one sequence may see, and the tiles to walk it in.

    Parameters
    ----------
    scale : float
    causal, prefix_len, window
        As in `visible_keys`.
    block_m, block_n : int
        Tile rows of q (token x head) and of k and v.
    """

    scale: float
    causal: bool
    prefix_len: int
    window: int | None
    block_m: int
    block_n: int


def attend_sequence(
    q: FloatArray, k: FloatArray, v: FloatArray, options: TileOptions
) -> tuple[FloatArray, FloatArray]:
    """Attend one sequence's queries, which stand at the end of its keys.

    Parameters
    ----------
    q : float, TND, (T, num_heads, D)
    k, v : float, (num_kv_heads, seq_len_kv, D)

    Returns
    -------
    o : dtype of q, (T, num_heads, D)
    lse : float32 (float64 for float64), (T, num_heads)
    """
    len_q, num_heads, head_dim = q.shape
    num_kv_heads, seq_len_kv, _ = k.shape
    group_size = num_heads // num_kv_heads
    token = np.repeat(np.arange(len_q), group_size)  # (T * group_size,), of each row
    positions = token + (seq_len_kv - len_q)

    dtype = compute_dtype(q.dtype)
    o = np.empty((len_q * group_size, num_kv_heads, head_dim), dtype)
    lse = np.empty((len_q * group_size, num_kv_heads), dtype)
    groups = q.reshape(len_q, num_kv_heads, group_size, head_dim).swapaxes(1, 2)
    rows = groups.reshape(-1, num_kv_heads, head_dim)  # (T * group_size, num_kv_heads, D)
    for g in range(num_kv_heads):
        for m in range(0, len(rows), options.block_m):
            tile = slice(m, m + options.block_m)
            o[tile, g], lse[tile, g] = attend_tile(
                rows[tile, g], k[g], v[g], positions[tile], options
            )
    heads = (len_q, group_size, num_kv_heads)
    o = o.reshape(*heads, head_dim).swapaxes(1, 2)  # (T, num_kv_heads, group_size, D)
    lse = lse.reshape(heads).swapaxes(1, 2)
    return o.reshape(q.shape).astype(q.dtype), lse.reshape(q.shape[:2])


def attend_tile(
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    positions: IntArray,
    options: TileOptions,
    *,
    part_keys: int | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Attend the rows of one tile, reading k and v once, ``block_n`` rows at a time.

    Parameters
    ----------
    q : float, (block_m, D)
    k, v : float, (seq_len_kv, D)
        Their dtype is what q and ``exp(scores - row_max)`` are rounded to.
    positions : integer, (block_m,)
    part_keys : int or None
        Attend the keys in parts that begin at its multiples, each for itself, and then add the
        parts up in their order, as split-KV does. A multiple of ``block_n``.

    Returns
    -------
    o : float32 or float64, (block_m, D)
    lse : same dtype, (block_m,)

    References
    ----------
    Milakov and Gimelshein 2018, algorithm 3; Dao et al. 2022, algorithm 1, with the division by
    ``row_sum`` left to the end (Dao 2023). Parts: Dao et al. 2023, "Flash-Decoding".
    """
    if part_keys is None or part_keys >= len(k):
        return divide_by_row_sum(*_attend_keys(q, k, v, positions, range(len(k)), options))
    total = None
    for start in range(0, len(k), part_keys):
        keys = range(start, min(start + part_keys, len(k)))
        part = _attend_keys(q, k, v, positions, keys, options)
        total = part if total is None else _add(total, part)
    assert total is not None
    return divide_by_row_sum(*total)


_State = tuple[FloatArray, FloatArray, FloatArray]  # acc (block_m, D), row_max and row_sum (.., 1)


def _attend_keys(
    q: FloatArray, k: FloatArray, v: FloatArray, positions: IntArray, part: range,
    options: TileOptions,
) -> _State:  # fmt: skip
    """Walk a range of keys."""
    dtype = compute_dtype(q.dtype)
    query = q.astype(k.dtype).astype(dtype)
    row_max = np.full((len(q), 1), -np.inf, dtype)
    row_sum = np.zeros((len(q), 1), dtype)
    acc = np.zeros(q.shape, dtype)
    for n in range(part.start, part.stop, options.block_n):
        keys = np.arange(n, min(n + options.block_n, part.stop))
        visible = visible_keys(
            positions,
            keys,
            causal=options.causal,
            prefix_len=options.prefix_len,
            window=options.window,
        )  # (block_m, block_n)
        if not visible.any():
            continue
        scores = query @ k[keys].astype(dtype).T * options.scale  # (block_m, block_n)
        scores = np.where(visible, scores, np.asarray(-np.inf, dtype))
        new_max = np.maximum(row_max, scores.max(axis=1, keepdims=True))
        start = finite_or_zero(new_max)
        correction = np.exp(row_max - start)  # 0 at a row's first visible key
        probs = np.exp(scores - start)
        # The row sum is of the unrounded probs: they are still in float32 where the kernel adds them.
        row_sum = row_sum * correction + probs.sum(axis=1, keepdims=True)
        rounded = probs.astype(v.dtype).astype(dtype)
        acc = acc * correction + rounded @ v[keys].astype(dtype)
        row_max = new_max
    return acc, row_max, row_sum


def _add(total: _State, part: _State) -> _State:
    """Add a part to those before it, both scaled to the larger row_max."""
    acc, row_max, row_sum = total
    part_acc, part_max, part_sum = part
    new_max = np.maximum(row_max, part_max)
    start = finite_or_zero(new_max)
    old, new = np.exp(row_max - start), np.exp(part_max - start)
    return acc * old + part_acc * new, new_max, row_sum * old + part_sum * new
