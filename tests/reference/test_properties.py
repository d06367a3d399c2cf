"""Laws that attention obeys whatever computes it: dense, tiled, paged, or on counted memories."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2_reference import attention, flash_attention, flash_attention_varlen, softmax
from glm2_reference.memory import Memory
from glm2_reference.memory_systems import A100
from glm2_reference.schedules.heads import FORWARD, run_forward
from glm2_reference.testing import (
    bnsd_from_tnd,
    cu_seqlens,
    paged_from_tnd,
    random_block_table,
    random_qkv,
    tnd_from_bnsd,
)

TOKENS, KEYS = 4, 11


def dense(q, k, v, **options):
    return attention(q, k, v, **options)


def varlen(q, k, v, **options):
    lens_q, lens_kv = cu_seqlens([q.shape[2]]), cu_seqlens([k.shape[2]])
    o, lse = flash_attention_varlen(
        *(tnd_from_bnsd([x]) for x in (q, k, v)), lens_q, lens_kv,
        block_m=3, block_n=4, return_lse=True, **options,
    )  # fmt: skip
    return bnsd_from_tnd(o, lens_q)[0], lse.T[None]


def paged(q, k, v, **options):
    lens_q, lens_kv = cu_seqlens([q.shape[2]]), cu_seqlens([k.shape[2]])
    table, num_pages = random_block_table(np.random.default_rng(0), np.diff(lens_kv), page_size=16)
    caches = (
        paged_from_tnd(tnd_from_bnsd([x]), lens_kv, table, num_pages=num_pages, page_size=16)
        for x in (k, v)
    )
    o, lse = flash_attention(
        tnd_from_bnsd([q]), *caches, table, lens_q, np.diff(lens_kv),
        block_m=3, block_n=4, return_lse=True, **options,
    )  # fmt: skip
    return bnsd_from_tnd(o, lens_q)[0], lse.T[None]


def counted(name):
    def attend(q, k, v, **options):
        got = run_forward(FORWARD[name], q, k, v, Memory(A100), block_m=3, block_n=4, **options)
        lse = got["lse"] if "lse" in got else got["row_max"] + np.log(got["row_sum"])
        return got["o"], lse

    return attend


WAYS = {"dense": dense, "varlen": varlen, "paged": paged, "flash1": counted("flash1"),
        "flash2": counted("flash2")}  # fmt: skip
ways = pytest.mark.parametrize("attend", WAYS.values(), ids=WAYS)
seeds = given(seed=st.integers(0, 2**32 - 1))
quick = settings(deadline=None, max_examples=30)


def draw(seed):
    rng = np.random.default_rng(seed)
    q, k, v = random_qkv(
        rng, seq_len_q=TOKENS, seq_len_kv=KEYS, num_heads=4, num_kv_heads=2, head_dim=8,
        dtype=np.float64,
    )  # fmt: skip
    return rng, q, k, v


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


@ways
@quick
@seeds
def test_the_order_of_keys_does_not_matter(attend, seed):
    rng, q, k, v = draw(seed)
    order = rng.permutation(KEYS)
    assert_same(
        attend(q, k[:, :, order], v[:, :, order], causal=False), attend(q, k, v, causal=False)
    )


@ways
@quick
@seeds
def test_a_scale_may_be_moved_between_queries_keys_and_scores(attend, seed):
    rng, q, k, v = draw(seed)
    factor = rng.uniform(0.1, 3)
    want = attend(q, k, v, scale=factor, causal=True)
    assert_same(attend(q * factor, k, v, scale=1.0, causal=True), want)
    assert_same(attend(q, k * factor, v, scale=1.0, causal=True), want)


@ways
@quick
@seeds
def test_output_is_linear_in_the_values(attend, seed):
    rng, q, k, v = draw(seed)
    other, factor = rng.standard_normal(v.shape), rng.uniform(-3, 3)
    o, lse = attend(q, k, factor * v + other, causal=True)
    first, second = attend(q, k, v, causal=True)[0], attend(q, k, other, causal=True)[0]
    assert_same((o, lse), (factor * first + second, attend(q, k, v, causal=True)[1]))


@ways
@quick
@seeds
def test_adding_one_vector_to_all_keys_shifts_scores_and_nothing_else(attend, seed):
    rng, q, k, v = draw(seed)
    shift = rng.standard_normal(8)
    o, lse = attend(q, k + shift, v, scale=1.0, causal=True)
    want, want_lse = attend(q, k, v, scale=1.0, causal=True)
    assert_same((o, lse), (want, want_lse + q @ shift))


@ways
@quick
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, KEYS - 1))
def test_parts_of_the_keys_combine_to_the_whole(attend, seed, cut):
    _, q, k, v = draw(seed)
    (o1, lse1), (o2, lse2) = (
        attend(q, k[:, :, part], v[:, :, part], causal=False)
        for part in (slice(0, cut), slice(cut, KEYS))
    )
    lse = np.logaddexp(lse1, lse2)
    o = np.exp(lse1 - lse)[..., None] * o1 + np.exp(lse2 - lse)[..., None] * o2
    assert_same((o, lse), attend(q, k, v, causal=False))


@ways
@quick
@seeds
def test_more_keys_never_lower_lse_and_outputs_stay_among_the_values(attend, seed):
    _, q, k, v = draw(seed)
    before = np.full(q.shape[:3], -np.inf)
    for keys in range(1, KEYS + 1):
        o, lse = attend(q, k[:, :, :keys], v[:, :, :keys], causal=False)
        assert (lse >= before - 1e-12).all()
        seen = v[:, :, :keys].repeat(2, axis=1)[:, :, None]  # (B, N, 1, keys, D)
        assert (o <= seen.max(axis=3) + 1e-12).all()
        assert (o >= seen.min(axis=3) - 1e-12).all()
        before = lse


@ways
@quick
@given(seed=st.integers(0, 2**32 - 1), token=st.integers(0, TOKENS - 1))
def test_what_a_causal_query_does_not_see_cannot_move_it(attend, seed, token):
    rng, q, k, v = draw(seed)
    first_hidden = KEYS - TOKENS + token + 1
    k2, v2 = k.copy(), v.copy()
    for x in (k2, v2):
        x[:, :, first_hidden:] = 100 * rng.standard_normal(x[:, :, first_hidden:].shape)
    got, want = attend(q, k2, v2, causal=True), attend(q, k, v, causal=True)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a[:, :, : token + 1], b[:, :, : token + 1])


@ways
@quick
@seeds
def test_heads_of_a_group_are_independent_and_share_their_keys(attend, seed):
    _, q, k, v = draw(seed)
    o, lse = attend(q, k, v, causal=True)
    repeated = attend(q, k.repeat(2, axis=1), v.repeat(2, axis=1), causal=True)
    assert_same((o, lse), repeated)  # MHA with each group's keys in all of its heads
    swapped = attend(q[:, [1, 0, 3, 2]], k, v, causal=True)
    assert_same((o, lse), tuple(x[:, [1, 0, 3, 2]] for x in swapped))


@quick
@given(row=st.lists(st.floats(-50, 50), min_size=1, max_size=9), shift=st.floats(-1000, 1000))
def test_softmax_ignores_a_shift(row, shift):
    x = np.array(row)
    np.testing.assert_allclose(softmax(x + shift), softmax(x), rtol=1e-9, atol=1e-300)
