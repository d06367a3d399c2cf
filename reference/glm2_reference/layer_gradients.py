"""The derivative of each layer: from the gradient of its output to those of its inputs.

``dy`` is the gradient of a loss with respect to ``y``; the rest are the inputs of the forward pass.
Everything is computed in the dtype given: float64 where gradients are checked.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_reference.attention import visible_keys
from glm2_reference.checks import FloatArray
from glm2_reference.infilling import IGNORED
from glm2_reference.rope import apply_rope


def linear_gradients(
    dy: FloatArray, x: FloatArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Differentiate ``y = x @ weight.T + bias``.

    Parameters
    ----------
    dy : float, (T, out_features)
    x : float, (T, in_features)
    weight : float, (out_features, in_features)

    Returns
    -------
    dx : (T, in_features)
    dweight : (out_features, in_features)
    dbias : (out_features,)
    """
    return dy @ weight, dy.T @ x, dy.sum(axis=0)


def rms_norm_gradients(
    dy: FloatArray, x: FloatArray, weight: FloatArray, *, eps: float
) -> tuple[FloatArray, FloatArray]:
    """Differentiate ``y = weight * x / sqrt(mean(x**2) + eps)``.

    Parameters
    ----------
    dy, x : float, (T, hidden_size)
    weight : float, (hidden_size,)
    eps : float

    Returns
    -------
    dx : (T, hidden_size)
        With ``n = x / rms`` and ``g = dy * weight``: ``(g - n * mean(g * n)) / rms``, for a step
        along x itself changes nothing.
    dweight : (hidden_size,)
    """
    rms = np.sqrt(np.mean(x * x, axis=1, keepdims=True) + x.dtype.type(eps))  # (T, 1)
    normed, scaled = x / rms, dy * weight
    dx = (scaled - normed * np.mean(scaled * normed, axis=1, keepdims=True)) / rms
    return dx, np.sum(dy * normed, axis=0)


def swiglu_gradients(dy: FloatArray, x: FloatArray) -> FloatArray:
    """Differentiate ``y = silu(gate) * value``, gate and value being the halves of x.

    Parameters
    ----------
    dy : float, (T, F)
    x : float, (T, 2F)

    Returns
    -------
    dx : (T, 2F)
        ``silu'(z) = s * (1 + z * (1 - s))`` with ``s = sigmoid(z)``.
    """
    gate, value = np.split(x, 2, axis=1)
    sigmoid = 0.5 * (1 + np.tanh(0.5 * gate))  # never overflows
    slope = sigmoid * (1 + gate * (1 - sigmoid))
    return np.concatenate([dy * value * slope, dy * gate * sigmoid], axis=1)


def rope_gradients(
    dy: FloatArray, cos: FloatArray, sin: FloatArray, positions: npt.NDArray[np.integer[Any]]
) -> FloatArray:
    """Differentiate a rotation: turn the gradient (T, H, D) back by the same angles."""
    return apply_rope(dy, cos, -sin, positions)


def attention_gradients(
    do: FloatArray,
    q: FloatArray,
    k: FloatArray,
    v: FloatArray,
    o: FloatArray,
    lse: FloatArray,
    *,
    scale: float,
    causal: bool = True,
    prefix_len: int = 0,
    window: int | None = None,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Differentiate attention, with the probabilities computed again from ``lse``.

    Parameters
    ----------
    do, q, o : float, BNSD, (B, num_heads, seq_len_q, D)
    k, v : float, BNSD, (B, num_kv_heads, seq_len_kv, D)
    lse : float, (B, num_heads, seq_len_q)
    scale, causal, prefix_len, window
        As the forward pass had them.

    Returns
    -------
    dq : (B, num_heads, seq_len_q, D)
    dk, dv : (B, num_kv_heads, seq_len_kv, D)
        Sums over the heads of each group, for they share one k and v.

    References
    ----------
    Dao et al. 2022, FlashAttention, algorithm 4 and appendix B.4: ``dS = P * (dP - delta)`` with
    ``delta = rowsum(do * o)``.
    """
    batch, num_heads, seq_len_q, head_dim = q.shape
    num_kv_heads, seq_len_kv = k.shape[1:3]
    grouped = (batch, num_kv_heads, num_heads // num_kv_heads, seq_len_q)
    query, out, dout = (x.reshape(*grouped, head_dim) for x in (q, o, do))
    key, value = k[:, :, None], v[:, :, None]  # (B, num_kv_heads, 1, seq_len_kv, D)
    visible = visible_keys(
        np.arange(seq_len_q) + (seq_len_kv - seq_len_q),
        np.arange(seq_len_kv),
        causal=causal,
        prefix_len=prefix_len,
        window=window,
    )
    scores = q.dtype.type(scale) * (query @ np.swapaxes(key, -1, -2))
    sums = lse.reshape(*grouped, 1)
    # A row that sees nothing has lse -inf, and no gradient.
    shifted = np.where(
        visible & np.isfinite(sums), scores - np.where(np.isfinite(sums), sums, 0), -np.inf
    )
    probs = np.exp(shifted)
    delta = np.sum(dout * out, axis=-1, keepdims=True)
    dscores = probs * (dout @ np.swapaxes(value, -1, -2) - delta) * q.dtype.type(scale)
    dq = (dscores @ key).reshape(q.shape)
    dk = (np.swapaxes(dscores, -1, -2) @ query).sum(axis=2)
    dv = (np.swapaxes(probs, -1, -2) @ dout).sum(axis=2)
    return dq, dk, dv


def embedding_gradients(
    dy: FloatArray, ids: npt.NDArray[np.integer[Any]], num_rows: int
) -> FloatArray:
    """Differentiate a lookup: add each token's gradient (T, hidden_size) to the row it came from."""
    dweight = np.zeros((num_rows, dy.shape[1]), dy.dtype)
    np.add.at(dweight, ids, dy)
    return dweight


def cross_entropy_gradients(
    logits: FloatArray, labels: npt.NDArray[np.integer[Any]]
) -> tuple[float, FloatArray]:
    """Compute the mean cross entropy and its gradient.

    Parameters
    ----------
    logits : float, (T, vocab_size)
    labels : integer, (T,)
        `glm2_reference.infilling.IGNORED` leaves a position out.

    Returns
    -------
    loss : float
    dlogits : (T, vocab_size)
        ``(softmax - one_hot) / count``, and 0 where the label is ignored.

    Raises
    ------
    ValueError
        If every label is ignored.
    """
    counted = np.flatnonzero(labels != IGNORED)
    if counted.size == 0:
        msg = "every label is IGNORED; there is nothing to learn"
        raise ValueError(msg)
    rows = logits[counted] - logits[counted].max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(rows).sum(axis=1, keepdims=True))
    picked = (np.arange(counted.size), labels[counted])
    loss = float(np.mean(log_sums[:, 0] - rows[picked]))
    probs = np.exp(rows - log_sums)
    probs[picked] -= 1
    dlogits = np.zeros_like(logits)
    dlogits[counted] = probs / counted.size
    return loss, dlogits
