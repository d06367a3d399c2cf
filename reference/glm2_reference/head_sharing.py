"""From multi-head attention to grouped or single K/V heads: converting the weights of a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np

from glm2_reference.checks import FloatArray, compute_dtype
from glm2_reference.config import GLM2Config
from glm2_reference.model import gather_qkv_rows

Pooling = Literal["mean", "first", "random"]
_QKV = "self_attention.query_key_value."


def share_kv_heads(
    rows: FloatArray,
    *,
    num_kv_heads: int,
    pooling: Pooling,
    rng: np.random.Generator | None = None,
) -> FloatArray:
    """Replace the heads of a K or V projection by fewer, each standing for a group of them.

    Parameters
    ----------
    rows : float, (num_heads, D, ...)
        Rows of the projection, or its bias, a head at a time.
    num_kv_heads : int
        Divides num_heads; 1 is multi-query attention.
    pooling : "mean", "first" or "random"
        A group's mean, its first head, or rows drawn anew with the mean and deviation of all.
    rng : Generator, optional
        For "random".

    Returns
    -------
    shared : dtype of rows, (num_kv_heads, D, ...)

    Raises
    ------
    ValueError
        If the heads do not divide, ``pooling`` is unknown, or "random" has no ``rng``.

    References
    ----------
    Ainslie et al. 2023, GQA, section 2.1 and figure 4: mean pooling keeps most of the quality, then
    the first head, then random.
    """
    num_heads = len(rows)
    if num_kv_heads < 1 or num_heads < 1 or num_heads % num_kv_heads:
        msg = f"num_kv_heads is {num_kv_heads}; it must divide the {num_heads} heads"
        raise ValueError(msg)
    groups = rows.reshape(num_kv_heads, num_heads // num_kv_heads, *rows.shape[1:])
    if pooling == "mean":
        pooled: FloatArray = groups.mean(axis=1, dtype=compute_dtype(rows.dtype))
        return pooled.astype(rows.dtype)
    if pooling == "first":
        return groups[:, 0].copy()
    if pooling == "random":
        if rng is None:
            msg = "pooling is 'random' and there is no rng; pass one"
            raise ValueError(msg)
        drawn = rng.standard_normal((num_kv_heads, *rows.shape[1:]))
        scaled: FloatArray = (drawn * rows.std(dtype=float) + rows.mean(dtype=float)).astype(
            rows.dtype
        )
        return scaled
    msg = f"pooling is {pooling!r}; expected 'mean', 'first' or 'random'"
    raise ValueError(msg)


def share_checkpoint(
    config: GLM2Config,
    weights: Mapping[str, FloatArray],
    *,
    num_kv_heads: int,
    pooling: Pooling = "mean",
    rng: np.random.Generator | None = None,
) -> tuple[GLM2Config, dict[str, FloatArray]]:
    """Convert a checkpoint to fewer K/V heads.

    Parameters
    ----------
    config : GLM2Config
        Of multi-head attention, or of more groups than ``num_kv_heads``.
    weights : mapping of str to array
        By their published names.
    num_kv_heads, pooling, rng
        See `share_kv_heads`.

    Returns
    -------
    config : GLM2Config
    weights : dict of str to array
        The query_key_value tensors re-laid as all q, all k, all v; the others are the caller's own
        arrays, which `AdamW` would change in place: copy them before training on.

    Raises
    ------
    ValueError
        As `share_kv_heads` does.
    """
    shared = dataclasses.replace(config, num_kv_heads=num_kv_heads, multi_query_attention=True)
    out = dict(weights)
    for name, tensor in weights.items():
        if _QKV not in name:
            continue
        rows = tensor if config.multi_query_attention else gather_qkv_rows(tensor, config.num_heads)
        q_rows, kv_rows = (n * config.head_dim for n in (config.num_heads, config.num_kv_heads))
        q, k, v = np.split(rows, [q_rows, q_rows + kv_rows])
        heads = (config.num_kv_heads, config.head_dim, *rows.shape[1:])
        pooled = [
            share_kv_heads(
                part.reshape(heads), num_kv_heads=num_kv_heads, pooling=pooling, rng=rng
            ).reshape(-1, *rows.shape[1:])
            for part in (k, v)
        ]
        out[name] = np.concatenate([q, *pooled])
    return shared, out
