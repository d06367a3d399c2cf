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
    checks.check_flash_attention_grad(do, q, k, v, o, lse, cu_seqlens_q, cu_seqlens_kv, prefix_len)
    scale = checks.check_scale(q.shape[2] ** -0.5 if scale is None else scale)
    dq, dk, dv = (np.empty(x.shape, x.dtype) for x in (q, k, v))
    do, q, k, v, o, lse = (np.ascontiguousarray(x) for x in (do, q, k, v, o, lse))
    native.flash_attention_grad(
        do, q, k, v, o, lse, cu_seqlens_q, cu_seqlens_kv, prefix_len, dq, dk, dv, scale,
        checks.check_bool("causal", causal), checks.check_window(window),
    )  # fmt: skip
    return dq, dk, dv
