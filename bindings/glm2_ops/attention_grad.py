"""flash_attention_grad for numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_ops import checks
from glm2_ops._library import native


def flash_attention_grad(
    do: npt.NDArray[Any],
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    v: npt.NDArray[Any],
    o: npt.NDArray[Any],
    lse: npt.NDArray[np.float32],
    cu_seqlens_q: npt.NDArray[np.int32],
    cu_seqlens_kv: npt.NDArray[np.int32],
    *,
    prefix_len: npt.NDArray[np.int32] | None = None,
    scale: float | None = None,
    causal: bool = True,
    window: int | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Gradient of attention over contiguous ragged keys and values, tile by tile.

    The probabilities are computed again from ``lse``. Scores, ``dP`` and ``dS`` are float32; ``P``
    and ``dS`` are rounded to the dtype before they are multiplied; all products and sums are float32
    and rounded once. The result has the same bits at any number of threads.

    Parameters
    ----------
    do : float16, bfloat16 or float32, (T, N, D)
        Gradient of o. D is a multiple of 16 up to 256; N * D is at most 65,535.
    q : dtype of do, (T, N, D)
    k, v : dtype of do, (Tk, G, D)
        N is a multiple of G.
    o : dtype of do, (T, N, D)
        What the forward pass returned.
    lse : float32, (T, N)
        What the forward pass returned; a row with ``-inf`` has probabilities 0.
    cu_seqlens_q, cu_seqlens_kv : int32, (B + 1,)
        Where each sequence starts in q, and in k and v. Its queries stand at the end of its keys:
        query i at position ``len_kv - len_q + i``.
    prefix_len : int32, (B,), optional
        Keys at positions below it are visible to every query of the sequence.
    scale : float, optional
        Multiplies the scores; ``1 / sqrt(D)`` by default.
    causal : bool
        Whether a query sees no key after its own position, the prefix excepted.
    window : int, optional
        A query at p sees keys above ``p - window`` (and below ``p + window`` if not causal).

    Returns
    -------
    dq : dtype of do, (T, N, D)
    dk, dv : dtype of do, (Tk, G, D)
        Sums over the heads of each group.

    Raises
    ------
    ValueError
        If shapes, lengths or options contradict one another.
    TypeError
        If a dtype is not served.

    References
    ----------
    Dao et al. 2022, "FlashAttention", algorithm 4; Dao 2023, "FlashAttention-2", algorithm 2.
    """
    _check_operands(do, q, k, v, o, lse)
    checks.check_cu_seqlens("cu_seqlens_q", cu_seqlens_q, q.shape[0])
    checks.check_cu_seqlens("cu_seqlens_kv", cu_seqlens_kv, k.shape[0])
    checks.check_shape(
        "cu_seqlens_kv", cu_seqlens_kv, cu_seqlens_q.shape, "the shape of cu_seqlens_q"
    )
    if prefix_len is not None:
        checks.check_prefix_len(prefix_len, np.diff(cu_seqlens_kv))
    scale = checks.check_scale(q.shape[2] ** -0.5 if scale is None else scale)
    dq, dk, dv = (np.empty_like(x, order="C") for x in (q, k, v))
    do, q, k, v, o, lse = (np.ascontiguousarray(x) for x in (do, q, k, v, o, lse))
    native.flash_attention_grad(
        do, q, k, v, o, lse, cu_seqlens_q, cu_seqlens_kv, prefix_len, dq, dk, dv, scale,
        checks.check_bool("causal", causal), checks.check_window(window),
    )  # fmt: skip
    return dq, dk, dv


def _check_operands(
    do: npt.NDArray[Any],
    q: npt.NDArray[Any],
    k: npt.NDArray[Any],
    v: npt.NDArray[Any],
    o: npt.NDArray[Any],
    lse: npt.NDArray[np.float32],
) -> None:
    """Require one dtype, and shapes that follow from those of q and k."""
    checks.check_array("q", q, "(T, N, D)")
    checks.check_array("k", k, "(Tk, G, D)")
    checks.check_array("lse", lse, "(T, N)")
    checks.check_float("q", q)
    for name, x in (("do", do), ("k", k), ("v", v), ("o", o)):
        checks.check_array(name, x, "(T, N, D)" if name in {"do", "o"} else "(Tk, G, D)")
        if x.dtype != q.dtype:
            msg = f"{name} is {x.dtype} and q {q.dtype}; they must agree, so convert one"
            raise TypeError(msg)
    checks.check_heads(q.shape[1], k.shape[1])
    checks.check_head_dim(q.shape[2])
    checks.check_shape("k", k, (*k.shape[:2], q.shape[2]), "with the head_dim of q")
    checks.check_shape("v", v, k.shape, "the shape of k")
    checks.check_shape("do", do, q.shape, "the shape of q")
    checks.check_shape("o", o, q.shape, "the shape of q")
    checks.check_shape("lse", lse, q.shape[:2], "a row of q each")
    if lse.dtype != np.float32:
        msg = f"lse has dtype {lse.dtype}; expected float32, as the forward pass returns it"
        raise TypeError(msg)
    if max(q.shape[0], k.shape[0]) > checks.MAX_LENGTH:
        msg = (
            f"q has {q.shape[0]} tokens and k {k.shape[0]}; at most {checks.MAX_LENGTH}: "
            "split the batch"
        )
        raise ValueError(msg)
