"""Attention as the multi-query paper writes it: projections included, one einsum a line.

The letters are the paper's: b batch, n queries, m keys, h heads, d model size, k and v head sizes.
What multi-query attention changes is one letter: the h of keys and values is gone. `attention` in
this package is the same without projections; GQA, in between, lets h stand for groups there.
"""

from __future__ import annotations

import numpy as np

from glm2_reference.checks import BoolArray, FloatArray, check_float, check_rank, check_shape
from glm2_reference.layers import softmax


def multi_head_attention(
    x: FloatArray,
    memory: FloatArray,
    mask: BoolArray,
    p_q: FloatArray,
    p_k: FloatArray,
    p_v: FloatArray,
    p_o: FloatArray,
) -> FloatArray:
    """Attend from every row of ``x`` to every row of ``memory``, each head with keys of its own.

    Parameters
    ----------
    x : float, (b, n, d)
        What asks. Self-attention passes it as ``memory`` too.
    memory : float, (b, m, d)
    mask : bool, broadcastable to (b, h, n, m)
        True where a query sees a key. Every query sees one at least.
    p_q, p_k : float, (h, d, k)
    p_v, p_o : float, (h, d, v)

    Returns
    -------
    y : float, (b, n, d)
        Scores are not scaled; Shazeer folds ``1 / sqrt(k)`` into ``p_q``.

    Raises
    ------
    ValueError
        If the shapes contradict each other.
    TypeError
        If an array is not of floats, or the mask not of bools.

    References
    ----------
    Shazeer 2019, "Fast Transformer Decoding", section 2.2.
    """
    _check_projections(x, p_q, p_o, k=(p_k, p_q.shape), v=(p_v, p_o.shape))
    _check_texts(x, memory, mask, p_q)
    q = np.einsum("bnd,hdk->bhnk", x, p_q)
    k = np.einsum("bmd,hdk->bhmk", memory, p_k)
    v = np.einsum("bmd,hdv->bhmv", memory, p_v)
    probs = softmax(_hide(np.einsum("bhnk,bhmk->bhnm", q, k), mask))
    o = np.einsum("bhnm,bhmv->bhnv", probs, v)
    y: FloatArray = np.einsum("bhnv,hdv->bnd", o, p_o)
    return y


def multi_query_attention(
    x: FloatArray,
    memory: FloatArray,
    mask: BoolArray,
    p_q: FloatArray,
    p_k: FloatArray,
    p_v: FloatArray,
    p_o: FloatArray,
) -> FloatArray:
    """Attend like `multi_head_attention`, with one set of keys and values for all heads.

    Parameters
    ----------
    x, memory, mask, p_q, p_o
        As in `multi_head_attention`.
    p_k : float, (d, k)
    p_v : float, (d, v)

    Returns
    -------
    y : float, (b, n, d)

    Raises
    ------
    ValueError
        If the shapes contradict each other.
    TypeError
        If an array is not of floats, or the mask not of bools.

    References
    ----------
    Shazeer 2019, section 3.
    """
    _check_projections(x, p_q, p_o, k=(p_k, p_q.shape[1:]), v=(p_v, p_o.shape[1:]))
    _check_texts(x, memory, mask, p_q)
    q = np.einsum("bnd,hdk->bhnk", x, p_q)
    k = np.einsum("bmd,dk->bmk", memory, p_k)
    v = np.einsum("bmd,dv->bmv", memory, p_v)
    probs = softmax(_hide(np.einsum("bhnk,bmk->bhnm", q, k), mask))
    o = np.einsum("bhnm,bmv->bhnv", probs, v)
    y: FloatArray = np.einsum("bhnv,hdv->bnd", o, p_o)
    return y


def multi_head_step(
    x: FloatArray,
    prev_k: FloatArray,
    prev_v: FloatArray,
    p_q: FloatArray,
    p_k: FloatArray,
    p_v: FloatArray,
    p_o: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Decode one token: its query against all keys so far, which are loaded anew at every step.

    Parameters
    ----------
    x : float, (b, d)
    prev_k : float, (b, h, m, k)
    prev_v : float, (b, h, m, v)
    p_q, p_k, p_v, p_o
        As in `multi_head_attention`.

    Returns
    -------
    y : float, (b, d)
    new_k : float, (b, h, m + 1, k)
    new_v : float, (b, h, m + 1, v)

    Raises
    ------
    ValueError
        If the shapes contradict each other.
    TypeError
        If an array is not of floats.

    References
    ----------
    Shazeer 2019, section 2.4.
    """
    _check_projections(x, p_q, p_o, k=(p_k, p_q.shape), v=(p_v, p_o.shape))
    heads = p_q.shape[:1]
    _check_cache(x, prev_k, prev_v, (*heads, p_q.shape[2]), (*heads, p_o.shape[2]))
    q = np.einsum("bd,hdk->bhk", x, p_q)
    k = np.concatenate([prev_k, np.einsum("bd,hdk->bhk", x, p_k)[:, :, None]], axis=2)
    v = np.concatenate([prev_v, np.einsum("bd,hdv->bhv", x, p_v)[:, :, None]], axis=2)
    probs = softmax(np.einsum("bhk,bhmk->bhm", q, k))
    o = np.einsum("bhm,bhmv->bhv", probs, v)
    return np.einsum("bhv,hdv->bd", o, p_o), k, v


def multi_query_step(
    x: FloatArray,
    prev_k: FloatArray,
    prev_v: FloatArray,
    p_q: FloatArray,
    p_k: FloatArray,
    p_v: FloatArray,
    p_o: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Decode one token with shared keys and values: a step reads h times fewer of them.

    Parameters
    ----------
    x : float, (b, d)
    prev_k : float, (b, m, k)
    prev_v : float, (b, m, v)
    p_q, p_k, p_v, p_o
        As in `multi_query_attention`.

    Returns
    -------
    y : float, (b, d)
    new_k : float, (b, m + 1, k)
    new_v : float, (b, m + 1, v)

    Raises
    ------
    ValueError
        If the shapes contradict each other.
    TypeError
        If an array is not of floats.

    References
    ----------
    Shazeer 2019, section 3.1.
    """
    _check_projections(x, p_q, p_o, k=(p_k, p_q.shape[1:]), v=(p_v, p_o.shape[1:]))
    _check_cache(x, prev_k, prev_v, (p_q.shape[2],), (p_o.shape[2],))
    q = np.einsum("bd,hdk->bhk", x, p_q)
    k = np.concatenate([prev_k, np.einsum("bd,dk->bk", x, p_k)[:, None]], axis=1)
    v = np.concatenate([prev_v, np.einsum("bd,dv->bv", x, p_v)[:, None]], axis=1)
    probs = softmax(np.einsum("bhk,bmk->bhm", q, k))
    o = np.einsum("bhm,bmv->bhv", probs, v)
    return np.einsum("bhv,hdv->bd", o, p_o), k, v


def _hide(scores: FloatArray, mask: BoolArray) -> FloatArray:
    return np.where(mask, scores, np.asarray(-np.inf, scores.dtype))


def _check_texts(x: FloatArray, memory: FloatArray, mask: BoolArray, p_q: FloatArray) -> None:
    """Require two texts of one batch and width, and a mask of bool over their pairs."""
    check_rank("(b, n, d)", x=x, memory=memory)
    check_shape("memory", memory, (x.shape[0], memory.shape[1], x.shape[2]), "as x, but its length")
    if mask.dtype != np.bool_:
        msg = f"mask has dtype {mask.dtype}; expected bool, true where a query sees a key"
        raise TypeError(msg)
    wanted = (x.shape[0], p_q.shape[0], x.shape[1], memory.shape[1])
    sizes = (1,) * (4 - mask.ndim) + mask.shape
    if len(sizes) != 4 or any(
        size not in (1, full) for size, full in zip(sizes, wanted, strict=True)
    ):
        msg = f"mask has shape {mask.shape}; expected what broadcasts to {wanted}"
        raise ValueError(msg)


def _check_cache(
    x: FloatArray, prev_k: FloatArray, prev_v: FloatArray, k: tuple[int, ...], v: tuple[int, ...]
) -> None:
    """Require x (b, d), and as many keys as values of the given leading and last sizes."""
    check_rank("(b, d)", x=x)
    tokens = prev_k.shape[-2] if prev_k.ndim > 1 else 0
    for name, array, sizes in (("prev_k", prev_k, k), ("prev_v", prev_v, v)):
        wanted = (x.shape[0], *sizes[:-1], tokens, sizes[-1])
        check_shape(name, array, wanted, "one row a token for every text of x")


def _check_projections(
    x: FloatArray,
    p_q: FloatArray,
    p_o: FloatArray,
    **others: tuple[FloatArray, tuple[int, ...]],
) -> None:
    """Require projections of one number of heads, from and to the width of ``x``."""
    check_rank("(h, d, k)", p_q=p_q, p_o=p_o)
    check_float(x=x, p_q=p_q, p_o=p_o)
    if p_q.shape[0] < 1 or x.ndim < 2:
        msg = f"x has shape {x.shape} and p_q {p_q.shape}; expected a text and 1 head or more"
        raise ValueError(msg)
    width = x.shape[-1]
    check_shape("p_q", p_q, (p_q.shape[0], width, p_q.shape[2]), "with x's width second")
    check_shape("p_o", p_o, (p_q.shape[0], width, p_o.shape[2]), "with p_q's heads and x's width")
    for name, (projection, wanted) in others.items():
        check_shape(f"p_{name}", projection, wanted, "as p_q and p_o say")
