"""Shazeer's formulation beside ours: same projections, same numbers."""

import numpy as np
import pytest

from glm2_reference.attention import attention
from glm2_reference.einsum_attention import (
    multi_head_attention,
    multi_head_step,
    multi_query_attention,
    multi_query_step,
)

BATCH, TOKENS, HEADS, WIDTH, HEAD_DIM = 2, 5, 4, 12, 8


@pytest.fixture
def case(rng):
    x = rng.standard_normal((BATCH, TOKENS, WIDTH))
    p_q, p_k, p_v, p_o = rng.standard_normal((4, HEADS, WIDTH, HEAD_DIM))
    return x, p_q, p_k, p_v, p_o


def project(x, *weights):
    """Project x with each of (heads, d, k), by loops over heads: BNSD."""
    return [np.stack([x @ head for head in weight], axis=1) for weight in weights]


def merge(o, p_o):
    return sum(o[:, head] @ p_o[head].T for head in range(HEADS))


CAUSAL = np.tril(np.ones((TOKENS, TOKENS), dtype=bool))


def test_multi_head_is_our_attention_with_as_many_kv_heads_as_heads(case):
    x, p_q, p_k, p_v, p_o = case
    o, _ = attention(*project(x, p_q, p_k, p_v), scale=1.0)
    got = multi_head_attention(x, x, CAUSAL, p_q, p_k, p_v, p_o)
    np.testing.assert_allclose(got, merge(o, p_o), rtol=1e-12, atol=1e-12)


def test_multi_query_is_our_attention_with_one_kv_head(case):
    x, p_q, p_k, p_v, p_o = case
    o, _ = attention(*project(x, p_q, p_k[:1], p_v[:1]), scale=1.0)
    got = multi_query_attention(x, x, CAUSAL, p_q, p_k[0], p_v[0], p_o)
    np.testing.assert_allclose(got, merge(o, p_o), rtol=1e-12, atol=1e-12)


def test_multi_query_equals_multi_head_with_the_same_keys_in_every_head(case):
    x, p_q, p_k, p_v, p_o = case
    same_k, same_v = np.repeat(p_k[:1], HEADS, 0), np.repeat(p_v[:1], HEADS, 0)
    got = multi_query_attention(x, x, CAUSAL, p_q, p_k[0], p_v[0], p_o)
    want = multi_head_attention(x, x, CAUSAL, p_q, same_k, same_v, p_o)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shared", [False, True])
def test_steps_give_what_the_whole_text_gives_at_once(case, shared):
    x, p_q, p_k, p_v, p_o = case
    if shared:
        p_k, p_v = p_k[0], p_v[0]
    step = multi_query_step if shared else multi_head_step
    whole = multi_query_attention if shared else multi_head_attention
    heads = () if shared else (HEADS,)
    k = v = np.zeros((BATCH, *heads, 0, HEAD_DIM))
    rows = []
    for token in range(TOKENS):
        y, k, v = step(x[:, token], k, v, p_q, p_k, p_v, p_o)
        rows.append(y)
    assert k.shape == (BATCH, *heads, TOKENS, HEAD_DIM)
    want = whole(x, x, CAUSAL, p_q, p_k, p_v, p_o)
    np.testing.assert_allclose(np.stack(rows, axis=1), want, rtol=1e-12, atol=1e-12)


def test_cross_attention_reads_another_text(case, rng):
    x, p_q, p_k, p_v, p_o = case
    memory = rng.standard_normal((BATCH, 3, WIDTH))
    mask = np.ones((TOKENS, 3), dtype=bool)
    got = multi_head_attention(x, memory, mask, p_q, p_k, p_v, p_o)
    q, _, _ = project(x, p_q, p_k, p_v)
    _, k, v = project(memory, p_q, p_k, p_v)
    o, _ = attention(q, k, v, scale=1.0, causal=False)
    np.testing.assert_allclose(got, merge(o, p_o), rtol=1e-12, atol=1e-12)


def test_contradicting_shapes_are_named(case):
    x, p_q, p_k, p_v, p_o = case
    with pytest.raises(ValueError, match=r"p_q has shape .* x's width"):
        multi_head_attention(x, x, CAUSAL, p_q[:, 1:], p_k, p_v, p_o)
    with pytest.raises(ValueError, match="p_o has shape"):
        multi_head_attention(x, x, CAUSAL, p_q, p_k, p_v, p_o[1:])
    with pytest.raises(ValueError, match="p_k has shape"):
        multi_query_attention(x, x, CAUSAL, p_q, p_k, p_v[0], p_o)
    with pytest.raises(ValueError, match="p_v has shape"):
        multi_query_step(x[:, 0], p_k, p_v, p_q, p_k[0], p_v, p_o)
    with pytest.raises(ValueError, match=r"x has shape .* \(b, d\)"):
        multi_head_step(x, p_k, p_v, p_q, p_k, p_v, p_o)


def test_texts_masks_and_caches_do_not_broadcast(case):
    x, p_q, p_k, p_v, p_o = case
    arguments = (p_q, p_k, p_v, p_o)
    with pytest.raises(ValueError, match=r"memory has shape .* as x, but its length"):
        multi_head_attention(x, x[:1], CAUSAL, *arguments)
    with pytest.raises(ValueError, match=r"mask has shape \(7, 1, 5, 5\)"):
        multi_head_attention(x, x, np.ones((7, 1, 5, 5), bool), *arguments)
    with pytest.raises(TypeError, match="mask has dtype float64; expected bool"):
        multi_query_attention(x, x, 1.0 * CAUSAL, p_q, p_k[0], p_v[0], p_o)
    with pytest.raises(TypeError, match="x has dtype int64"):
        multi_head_attention(x.astype(int), x, CAUSAL, *arguments)
    with pytest.raises(ValueError, match="1 head or more"):
        multi_head_attention(x, x, CAUSAL, *(p[:0] for p in arguments))
    k = np.zeros((BATCH, HEADS, 5, HEAD_DIM))
    with pytest.raises(ValueError, match=r"prev_v has shape .* one row a token"):
        multi_head_step(x[:, 0], k, k[:, :, :0], *arguments)
