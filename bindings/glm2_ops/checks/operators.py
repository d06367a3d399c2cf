"""All checks of one operator's operands."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_ops._library import native
from glm2_ops.checks.arrays import (
    MAX_LENGTH,
    check_array,
    check_cu_seqlens,
    check_float,
    check_float_pair,
    check_head_dim,
    check_heads,
    check_shape,
)
from glm2_ops.checks.cache import (
    check_cache,
    check_disjoint,
    check_pages,
    check_prefix_len,
    check_rope_lengths,
    check_rotary,
    check_written_in_place,
)
from glm2_ops.checks.options import check_int

MAX_HIDDEN_SIZE = native.MAX_HIDDEN_SIZE

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int32]


def check_flash_attention(
    q: Array,
    k_cache: Array,
    v_cache: Array,
    block_table: Indices,
    cu_seqlens_q: Indices,
    seq_len_kv: Indices,
    prefix_len: Indices | None,
) -> None:
    """Require what `glm2_ops.flash_attention` says of its operands."""
    check_array("q", q, "(T, N, D)")
    num_tokens, num_heads, head_dim = q.shape
    check_cache(k_cache, v_cache, head_dim)
    check_float_pair("q", q, k_cache)
    check_heads(num_heads, k_cache.shape[1])
    check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, num_tokens)
    check_pages(
        block_table,
        seq_len_kv,
        batch=cu_seqlens_q.size - 1,
        num_pages=k_cache.shape[0],
        page_size=k_cache.shape[2],
    )
    if prefix_len is not None:
        check_prefix_len(prefix_len, seq_len_kv)


def check_flash_attention_varlen(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens_q: Indices,
    cu_seqlens_kv: Indices,
    prefix_len: Indices | None,
) -> None:
    """Require what `glm2_ops.flash_attention_varlen` says of its operands."""
    check_array("q", q, "(T, N, D)")
    check_array("k", k, "(Tk, G, D)")
    check_array("v", v, "(Tk, G, D)")
    check_float_pair("q", q, k, "k")
    if v.dtype != k.dtype:
        msg = f"k is {k.dtype} and v {v.dtype}; they must agree"
        raise TypeError(msg)
    _check_ragged(q, k, v, cu_seqlens_q, cu_seqlens_kv, prefix_len)


def check_flash_attention_grad(
    do: Array,
    q: Array,
    k: Array,
    v: Array,
    o: Array,
    lse: Array,
    cu_seqlens_q: Indices,
    cu_seqlens_kv: Indices,
    prefix_len: Indices | None,
) -> None:
    """Require what `glm2_ops.flash_attention_grad` says of its operands."""
    check_array("q", q, "(T, N, D)")
    check_array("k", k, "(Tk, G, D)")
    check_array("lse", lse, "(T, N)")
    check_float("q", q)
    for name, x in (("do", do), ("k", k), ("v", v), ("o", o)):
        check_array(name, x, "(T, N, D)" if name in {"do", "o"} else "(Tk, G, D)")
        if x.dtype != q.dtype:
            msg = f"{name} is {x.dtype} and q {q.dtype}; they must agree, so convert one"
            raise TypeError(msg)
    check_shape("do", do, q.shape, "the shape of q")
    check_shape("o", o, q.shape, "the shape of q")
    check_shape("lse", lse, q.shape[:2], "a row of q each")
    if lse.dtype != np.float32:
        msg = f"lse has dtype {lse.dtype}; expected float32, as the forward pass returns it"
        raise TypeError(msg)
    _check_ragged(q, k, v, cu_seqlens_q, cu_seqlens_kv, prefix_len)


def _check_ragged(
    q: Array,
    k: Array,
    v: Array,
    cu_seqlens_q: Indices,
    cu_seqlens_kv: Indices,
    prefix_len: Indices | None,
) -> None:
    """Require shapes that follow from those of q, and sequences that follow from the offsets."""
    num_tokens, num_heads, head_dim = q.shape
    check_heads(num_heads, k.shape[1])
    check_head_dim(head_dim)
    check_shape("k", k, (*k.shape[:2], head_dim), "with the head_dim of q")
    check_shape("v", v, k.shape, "the shape of k")
    if max(num_tokens, k.shape[0]) > MAX_LENGTH:
        msg = f"q has {num_tokens} tokens and k {k.shape[0]}; at most {MAX_LENGTH}: split the batch"
        raise ValueError(msg)
    check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, num_tokens)
    check_cu_seqlens("cu_seqlens_kv", cu_seqlens_kv, k.shape[0])
    check_shape("cu_seqlens_kv", cu_seqlens_kv, cu_seqlens_q.shape, "the shape of cu_seqlens_q")
    if prefix_len is not None:
        check_prefix_len(prefix_len, np.diff(cu_seqlens_kv))


def check_rope_append(
    qkv: Array,
    cos: Array,
    sin: Array,
    k_cache: Array,
    v_cache: Array,
    block_table: Indices,
    cu_seqlens_q: Indices,
    seq_len_kv: Indices,
    *,
    num_heads: int,
    num_kv_heads: int,
    rotary_dim: int,
) -> None:
    """Require what `glm2_ops.rope_append` says of its operands."""
    num_heads = check_int("num_heads", num_heads)
    num_kv_heads = check_int("num_kv_heads", num_kv_heads)
    rotary_dim = check_int("rotary_dim", rotary_dim)
    check_array("qkv", qkv, "(T, (N + 2G) D)")
    check_array("k_cache", k_cache, "(num_pages, G, page_size, D)")
    num_pages, _, page_size, head_dim = k_cache.shape
    check_cache(k_cache, v_cache, head_dim)
    check_float_pair("qkv", qkv, k_cache)
    why = "num_kv_heads"
    check_shape("k_cache", k_cache, (num_pages, num_kv_heads, page_size, head_dim), why)
    check_heads(num_heads, num_kv_heads)
    width = (num_heads + 2 * num_kv_heads) * head_dim
    check_shape("qkv", qkv, (qkv.shape[0], width), "(num_heads + 2 num_kv_heads) * head_dim")
    check_rotary(cos, sin, rotary_dim, head_dim)
    check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, qkv.shape[0])
    batch = cu_seqlens_q.size - 1
    check_pages(block_table, seq_len_kv, batch=batch, num_pages=num_pages, page_size=page_size)
    max_position = cos.shape[0] if rotary_dim else np.iinfo(np.int32).max
    check_rope_lengths(cu_seqlens_q, seq_len_kv, max_position)
    check_disjoint(block_table, seq_len_kv, cu_seqlens_q, page_size)
    read = {
        "qkv": qkv, "cos": cos, "sin": sin, "block_table": block_table,
        "cu_seqlens_q": cu_seqlens_q, "seq_len_kv": seq_len_kv,
    }  # fmt: skip
    check_written_in_place(k_cache, v_cache, read)


def check_rms_norm(
    x: npt.NDArray[Any], weight: npt.NDArray[Any], residual: npt.NDArray[Any] | None
) -> None:
    """Require rows that the kernel serves, one weight a column, and a residual like x."""
    check_array("x", x, "(M, H)")
    check_array("weight", weight, "(H,)")
    check_float("x", x)
    if not 1 <= x.shape[1] <= MAX_HIDDEN_SIZE:
        msg = f"x has {x.shape[1]} columns; rms_norm serves 1 to {MAX_HIDDEN_SIZE}"
        raise ValueError(msg)
    check_shape("weight", weight, x.shape[1:], "one per column of x")
    others = {"weight": weight}
    if residual is not None:
        check_array("residual", residual, "(M, H)")
        check_shape("residual", residual, x.shape, "the shape of x")
        others["residual"] = residual
    for name, other in others.items():
        if other.dtype != x.dtype:
            msg = f"{name} is {other.dtype} and x {x.dtype}; expected the same dtype"
            raise TypeError(msg)


def check_swiglu(x: npt.NDArray[Any]) -> None:
    """Require a float matrix with an even number of columns."""
    check_array("x", x, "(M, 2F)")
    check_float("x", x)
    if x.shape[1] % 2:
        msg = f"x has {x.shape[1]} columns; expected an even number, gate and value side by side"
        raise ValueError(msg)
