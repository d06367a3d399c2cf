"""What tests need: the accuracy rule, seeded inputs, and one place that converts layouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from glm2_reference.accuracy import assert_accurate
from glm2_reference.attention import attention
from glm2_reference.checks import FloatArray, FloatDType, IntArray
from glm2_reference.config import GLM2Config, published_tensor_shapes
from glm2_reference.kv_cache import read_pages, write_pages

__all__ = [
    "RaggedProblem",
    "assert_accurate",
    "bnsd_from_tnd",
    "cu_seqlens",
    "paged_from_tnd",
    "ragged_attention",
    "random_block_table",
    "random_qkv",
    "random_ragged",
    "random_weights",
    "tnd_from_bnsd",
    "tnd_from_paged",
    "upcast",
]


def upcast(*arrays: FloatArray) -> tuple[FloatArray, ...]:
    """Return each array in float64; exact for every narrower float."""
    return tuple(array.astype(np.float64) for array in arrays)


def random_qkv(
    rng: np.random.Generator,
    *,
    seq_len_q: int,
    seq_len_kv: int,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int = 16,
    batch: int = 1,
    dtype: FloatDType = np.float32,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw standard normal q, k and v, BNSD."""
    q = rng.standard_normal((batch, num_heads, seq_len_q, head_dim))
    k = rng.standard_normal((batch, num_kv_heads, seq_len_kv, head_dim))
    v = rng.standard_normal((batch, num_kv_heads, seq_len_kv, head_dim))
    return q.astype(dtype), k.astype(dtype), v.astype(dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RaggedProblem:
    """Queries, keys and values of several sequences, one after another.

    Parameters
    ----------
    q : float, TND, (T, num_heads, D)
    k, v : float, TND, (Tk, num_kv_heads, D)
    cu_seqlens_q, cu_seqlens_kv : int32, (B + 1,)
    """

    q: FloatArray
    k: FloatArray
    v: FloatArray
    cu_seqlens_q: IntArray
    cu_seqlens_kv: IntArray

    @property
    def seq_len_kv(self) -> IntArray:
        """Keys of each sequence, int32, (B,)."""
        return np.diff(self.cu_seqlens_kv)


def random_ragged(
    rng: np.random.Generator,
    *,
    seq_lens_q: Sequence[int],
    seq_lens_kv: Sequence[int],
    num_heads: int,
    num_kv_heads: int,
    head_dim: int = 16,
    dtype: FloatDType = np.float32,
    kv_dtype: FloatDType | None = None,
) -> RaggedProblem:
    """Draw a standard normal problem; ``kv_dtype`` defaults to ``dtype``."""
    cu_seqlens_q = cu_seqlens(seq_lens_q)
    cu_seqlens_kv = cu_seqlens(seq_lens_kv)
    kv_shape = (int(cu_seqlens_kv[-1]), num_kv_heads, head_dim)
    kv_dtype = dtype if kv_dtype is None else kv_dtype
    q = rng.standard_normal((int(cu_seqlens_q[-1]), num_heads, head_dim))
    return RaggedProblem(
        q=q.astype(dtype),
        k=rng.standard_normal(kv_shape).astype(kv_dtype),
        v=rng.standard_normal(kv_shape).astype(kv_dtype),
        cu_seqlens_q=cu_seqlens_q,
        cu_seqlens_kv=cu_seqlens_kv,
    )


def cu_seqlens(seq_lens: Sequence[int]) -> IntArray:
    """Turn lengths into offsets: int32, (B + 1,)."""
    return np.cumsum([0, *seq_lens]).astype(np.int32)


def ragged_attention(
    problem: RaggedProblem,
    *,
    prefix_len: IntArray | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
    round_dtype: FloatDType | None = None,
    dtype: FloatDType | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Apply the dense `attention` to each sequence of a ragged problem.

    ``dtype=np.float64`` upcasts first: the golden side of `assert_accurate`.
    ``round_dtype=problem.k.dtype`` is the plain side.

    Returns
    -------
    o : TND, (T, num_heads, D)
    lse : (T, num_heads)
    """
    if dtype is not None:
        q, k, v = (x.astype(dtype) for x in (problem.q, problem.k, problem.v))
    else:
        q, k, v = problem.q, problem.k, problem.v
    outputs, lses = [], []
    for b, (q_b, k_b, v_b) in enumerate(
        zip(
            bnsd_from_tnd(q, problem.cu_seqlens_q),
            bnsd_from_tnd(k, problem.cu_seqlens_kv),
            bnsd_from_tnd(v, problem.cu_seqlens_kv),
            strict=True,
        )
    ):
        o, lse = attention(
            q_b,
            k_b,
            v_b,
            scale=scale,
            causal=causal,
            prefix_len=0 if prefix_len is None else int(prefix_len[b]),
            window=window,
            round_dtype=round_dtype,
        )
        outputs.append(o)
        lses.append(lse[..., None])
    return tnd_from_bnsd(outputs), tnd_from_bnsd(lses)[..., 0]


def bnsd_from_tnd(x: FloatArray, offsets: IntArray) -> list[FloatArray]:
    """Split ragged (T, H, D) into one dense (1, H, S, D) a sequence; ``offsets`` are cu_seqlens."""
    return [part.swapaxes(0, 1)[None] for part in np.split(x, offsets[1:-1])]


def tnd_from_bnsd(parts: Sequence[FloatArray]) -> FloatArray:
    """Join dense (1, H, S, D) of each sequence into ragged (T, H, D)."""
    return np.concatenate([part[0].swapaxes(0, 1) for part in parts])


def random_block_table(
    rng: np.random.Generator, seq_len_kv: IntArray, *, page_size: int, spare_pages: int = 2
) -> tuple[IntArray, int]:
    """Deal shuffled page ids to sequences.

    Parameters
    ----------
    seq_len_kv : int32, (B,)
    spare_pages : int
        Pages that belong to no sequence.

    Returns
    -------
    block_table : int32, (B, max_pages)
        -1 after the last page that a sequence needs; max_pages is at least 1.
    num_pages : int
    """
    needed = -(-seq_len_kv // page_size)  # (B,)
    num_pages = int(needed.sum()) + spare_pages
    ids = rng.permutation(num_pages).astype(np.int32)
    block_table = np.full((len(needed), max(1, int(needed.max(initial=0)))), -1, np.int32)
    for b, start in enumerate(np.cumsum(needed) - needed):
        block_table[b, : needed[b]] = ids[start : start + needed[b]]
    return block_table, num_pages


def paged_from_tnd(
    x: FloatArray,
    offsets: IntArray,
    block_table: IntArray,
    *,
    num_pages: int,
    page_size: int,
    fill: float = np.nan,
) -> FloatArray:
    """Lay ragged (T, G, D) out in pages; slots that hold no token are ``fill``.

    The default makes an operator that reads such a slot give itself away.

    Returns
    -------
    cache : dtype of x, (num_pages, G, page_size, D)
    """
    cache = np.full((num_pages, x.shape[1], page_size, x.shape[2]), fill).astype(x.dtype)
    for b, pages in enumerate(block_table):
        write_pages(cache, pages, 0, x[offsets[b] : offsets[b + 1]])
    return cache


def tnd_from_paged(cache: FloatArray, block_table: IntArray, seq_len_kv: IntArray) -> FloatArray:
    """Read a paged cache back into ragged (T, G, D)."""
    return np.concatenate(
        [
            read_pages(cache, pages, length).swapaxes(0, 1)
            for pages, length in zip(block_table, seq_len_kv.tolist(), strict=True)
        ]
    )


def random_weights(
    config: GLM2Config, rng: np.random.Generator, dtype: FloatDType = np.float32
) -> dict[str, FloatArray]:
    """Draw weights under their published names that keep activations near unit size.

    Norms are near 1, biases near 0.1, and matrices have rows of unit length, so that a projection
    keeps the size of its input. The two that are added to the residual are divided by
    ``sqrt(2 * num_layers)``: the sum over all blocks stays near the embedding's size.
    """
    weights = {}
    for name, shape in published_tensor_shapes(config).items():
        x = rng.standard_normal(shape)
        if name.endswith("layernorm.weight"):
            x = 1 + 0.1 * x
        elif name.endswith("bias"):
            x = 0.1 * x
        elif "word_embeddings" not in name or config.tie_word_embeddings:
            x /= np.sqrt(shape[1])
        if name.endswith(("self_attention.dense.weight", "mlp.dense_4h_to_h.weight")):
            x /= np.sqrt(2 * config.num_layers)
        weights[name] = x.astype(dtype)
    return weights
