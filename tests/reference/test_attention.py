import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2_reference import attention, visible_keys
from glm2_reference.testing import random_qkv, upcast


def check_against_loops(loop_attention, q, k, v, *, scale, atol, **options):
    o, lse = attention(q, k, v, scale=scale, **options)
    assert (o.dtype, lse.dtype) == (q.dtype, np.float64 if q.dtype == float else np.float32)
    for b in range(q.shape[0]):
        tnd = (x[b].swapaxes(0, 1) for x in (q, k, v))
        want_o, want_lse = loop_attention(*tnd, scale=scale, **options)
        np.testing.assert_allclose(o[b].swapaxes(0, 1), want_o, atol=atol)
        np.testing.assert_allclose(lse[b].swapaxes(0, 1), want_lse, atol=max(atol, 1e-14) * 10)


@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(3, 3), (4, 2), (6, 2), (7, 1), (16, 1)])
def test_attention_matches_loops_for_any_group_size(rng, loop_attention, num_heads, num_kv_heads):
    q, k, v = random_qkv(
        rng, seq_len_q=3, seq_len_kv=5, num_heads=num_heads, num_kv_heads=num_kv_heads,
        head_dim=4, batch=2, dtype=np.float64,
    )  # fmt: skip
    check_against_loops(loop_attention, q, k, v, scale=0.3, atol=1e-14)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float16, 2e-3), (np.float32, 2e-6)])
def test_attention_matches_loops_in_narrow_dtypes(rng, loop_attention, dtype, atol):
    q, k, v = random_qkv(
        rng, seq_len_q=4, seq_len_kv=9, num_heads=4, num_kv_heads=2, head_dim=8, dtype=dtype
    )
    check_against_loops(loop_attention, q, k, v, scale=0.5, atol=atol)


options = st.fixed_dictionaries(
    {
        "causal": st.booleans(),
        "prefix_len": st.integers(0, 6),
        "window": st.none() | st.integers(1, 7),
    }
)


@settings(deadline=None, max_examples=60)
@given(seq_len_q=st.integers(0, 6), seq_len_kv=st.integers(0, 6), options=options)
def test_attention_matches_loops_for_any_mask(loop_attention, seq_len_q, seq_len_kv, options):
    options["prefix_len"] = min(options["prefix_len"], seq_len_kv)
    rng = np.random.default_rng(7)
    q, k, v = random_qkv(
        rng, seq_len_q=seq_len_q, seq_len_kv=seq_len_kv, num_heads=2, num_kv_heads=1, head_dim=3,
        dtype=np.float64,
    )  # fmt: skip
    check_against_loops(loop_attention, q, k, v, scale=0.7, atol=1e-14, **options)


def test_rows_that_see_nothing_are_zero_with_lse_minus_infinity(rng):
    q, k, v = random_qkv(rng, seq_len_q=4, seq_len_kv=2, num_heads=1, num_kv_heads=1)
    o, lse = attention(q, k, v)  # the first two queries stand before the first key
    assert np.all(o[0, 0, :2] == 0)
    assert np.all(o[0, 0, 2:] != 0)
    assert np.isneginf(lse[0, 0]).tolist() == [True, True, False, False]


def test_attention_narrows_by_an_explicit_mask(rng, loop_attention):
    q, k, v = random_qkv(
        rng, seq_len_q=2, seq_len_kv=4, num_heads=4, num_kv_heads=2, dtype=np.float64
    )
    last_two = np.array([False, False, True, True])
    o, _ = attention(q, k, v, causal=False, mask=last_two)
    tnd = (x[0].swapaxes(0, 1) for x in (q, k[:, :, 2:], v[:, :, 2:]))
    want, _ = loop_attention(*tnd, scale=0.25, causal=False)
    np.testing.assert_allclose(o[0].swapaxes(0, 1), want, atol=1e-14)
    one_head = np.ones((1, 4, 1, 1), bool)
    one_head[0, 2] = False
    o, _ = attention(q, k, v, mask=one_head)
    assert [bool(np.any(o[0, n])) for n in range(4)] == [True, True, False, True]


def test_scale_defaults_to_one_over_the_root_of_head_dim(rng):
    q, k, v = random_qkv(rng, seq_len_q=2, seq_len_kv=4, num_heads=1, num_kv_heads=1, head_dim=16)
    assert np.array_equal(attention(q, k, v)[0], attention(q, k, v, scale=0.25)[0])


def test_a_numpy_scale_does_not_widen_float32(rng):
    q, k, v = random_qkv(rng, seq_len_q=2, seq_len_kv=4, num_heads=1, num_kv_heads=1)
    assert attention(q, k, v, scale=np.float64(0.1))[1].dtype == np.float32


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_large_scores_do_not_overflow(rng, loop_attention, size):
    q, k, v = random_qkv(
        rng, seq_len_q=3, seq_len_kv=5, num_heads=1, num_kv_heads=1, head_dim=4, dtype=np.float64
    )
    check_against_loops(loop_attention, size * q, k, v, scale=1.0, atol=1e-9)


def test_rounding_points_are_those_of_the_kernel():
    """One row by hand: q and the exponentials round to float16, the row sum does not."""
    q = np.array([1.0001, 0.0], np.float32).reshape(1, 1, 1, 2)
    k = np.array([[1.0, 0.0], [-2.0, 0.0]], np.float16).reshape(1, 1, 2, 2)
    v = np.array([[1.0, 3.0], [5.0, 7.0]], np.float16).reshape(1, 1, 2, 2)
    o, lse = attention(q, k, v, scale=1.0, round_dtype=np.float16)
    assert float(np.float16(1.0001)) == 1.0
    small = np.float32(math.exp(-3.0))
    rounded, row_sum = float(np.float16(small)), 1 + math.exp(-3.0)
    assert rounded != float(small)
    np.testing.assert_allclose(
        o[0, 0, 0], [(1 + 5 * rounded) / row_sum, (3 + 7 * rounded) / row_sum], rtol=2e-7
    )
    assert lse[0, 0, 0] == pytest.approx(1 + math.log(row_sum), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"causal": True}, ["##..", "###."]),
        ({"causal": False}, ["####", "####"]),
        ({"causal": True, "window": 1}, [".#..", "..#."]),
        ({"causal": False, "window": 2}, ["###.", ".###"]),
        ({"causal": True, "prefix_len": 4}, ["####", "####"]),
        ({"causal": True, "window": 1, "prefix_len": 1}, ["##..", "#.#."]),
    ],
)
def test_visible_keys_of_positions_1_and_2(options, want):
    options = {"prefix_len": 0, "window": None} | options
    visible = visible_keys(np.array([1, 2]), np.arange(4), **options)
    assert ["".join(".#"[int(seen)] for seen in row) for row in visible] == want


def qkv(num_heads=2, num_kv_heads=1, head_dim=4, dtype=np.float32, kv_dtype=np.float32):
    q = np.ones((1, num_heads, 2, head_dim), dtype)
    return q, *(2 * (np.ones((1, num_kv_heads, 3, 4), kv_dtype),))


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        (qkv(30, 4), {}, ValueError, "q has 30 heads and k has 4; num_heads must be a multiple"),
        (
            qkv(head_dim=8),
            {},
            ValueError,
            r"k has shape .*; expected .*with q's batch and head_dim",
        ),
        ((*qkv()[:2], qkv()[2][:, :, :2]), {}, ValueError, "v has shape .*, the shape of k"),
        ((qkv()[0][0], *qkv()[1:]), {}, ValueError, "q has shape .*; expected 4 axes"),
        (
            qkv(dtype=np.float16),
            {},
            TypeError,
            "q is float16, k float32 and v float32; k and v must",
        ),
        (qkv(dtype=float), {}, TypeError, "q is float64, k float32"),
        (qkv(dtype=int), {}, TypeError, "q has dtype int64; expected one of"),
        (qkv(), {"prefix_len": 4}, ValueError, "prefix_len is 4; expected 0 to 3"),
        (qkv(), {"window": 0}, ValueError, "window is 0; expected 1 or more"),
        (qkv(), {"scale": math.inf}, ValueError, "scale is inf; expected a finite number"),
    ],
)
def test_attention_refuses(arrays, options, error, message):
    with pytest.raises(error, match=message):
        attention(*arrays, **options)


def test_upcast_is_exact(rng):
    (x,) = upcast(rng.standard_normal(5).astype(np.float16))
    assert x.dtype == np.float64
