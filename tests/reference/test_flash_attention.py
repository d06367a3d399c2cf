import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2_reference import flash_attention, flash_attention_varlen
from glm2_reference.testing import (
    assert_accurate,
    paged_from_tnd,
    ragged_attention,
    random_block_table,
    random_ragged,
)


def loop_ragged(loop_attention, problem, *, prefix_len=None, **options):
    o, lse = [], []
    cu_q, cu_kv = problem.cu_seqlens_q, problem.cu_seqlens_kv
    for b in range(len(cu_q) - 1):
        q = problem.q[cu_q[b] : cu_q[b + 1]]
        k, v = (x[cu_kv[b] : cu_kv[b + 1]] for x in (problem.k, problem.v))
        prefix = 0 if prefix_len is None else int(prefix_len[b])
        for outs, out in zip(
            (o, lse), loop_attention(q, k, v, prefix_len=prefix, **options), strict=True
        ):
            outs.append(out)
    return np.concatenate(o), np.concatenate(lse)


def paged(rng, problem, page_size=16):
    """Return the operands of flash_attention; slots without a token hold NaN."""
    block_table, num_pages = random_block_table(rng, problem.seq_len_kv, page_size=page_size)
    caches = [
        paged_from_tnd(
            x, problem.cu_seqlens_kv, block_table, num_pages=num_pages, page_size=page_size
        )
        for x in (problem.k, problem.v)
    ]
    return (problem.q, *caches, block_table, problem.cu_seqlens_q, problem.seq_len_kv)


def varlen(problem):
    return (problem.q, problem.k, problem.v, problem.cu_seqlens_q, problem.cu_seqlens_kv)


@pytest.mark.parametrize("seq_len_kv", [1, 15, 16, 17, 33])  # below, at and past a page edge
def test_flash_attention_matches_loops_at_page_edges(rng, loop_attention, seq_len_kv):
    problem = random_ragged(
        rng, seq_lens_q=[1, min(3, seq_len_kv)], seq_lens_kv=[seq_len_kv, seq_len_kv],
        num_heads=2, num_kv_heads=1, head_dim=4, dtype=np.float64,
    )  # fmt: skip
    want_o, want_lse = loop_ragged(loop_attention, problem, scale=0.5)
    o, lse = flash_attention(*paged(rng, problem), return_lse=True, block_m=2, block_n=5)
    np.testing.assert_allclose(o, want_o, atol=1e-14)
    np.testing.assert_allclose(lse, want_lse, atol=1e-14)


@pytest.mark.parametrize("group_size", [1, 2, 3, 7, 16])
def test_flash_attention_matches_loops_for_any_group_size(rng, loop_attention, group_size):
    problem = random_ragged(
        rng, seq_lens_q=[2, 1], seq_lens_kv=[4, 5], num_heads=2 * group_size, num_kv_heads=2,
        head_dim=4, dtype=np.float64,
    )  # fmt: skip
    want, _ = loop_ragged(loop_attention, problem, scale=0.5)
    np.testing.assert_allclose(
        flash_attention(*paged(rng, problem), block_m=5, block_n=3), want, atol=1e-14
    )


@settings(deadline=None, max_examples=60)
@given(
    seq_lens=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=3),
    causal=st.booleans(),
    prefix=st.integers(0, 7),
    window=st.none() | st.integers(1, 8),
    block_m=st.integers(1, 8),
    block_n=st.integers(1, 8),
)
def test_both_operators_match_loops_for_any_problem(
    loop_attention, seq_lens, causal, prefix, window, block_m, block_n
):
    rng = np.random.default_rng(5)
    seq_lens_q, seq_lens_kv = zip(*seq_lens, strict=True)
    problem = random_ragged(
        rng, seq_lens_q=seq_lens_q, seq_lens_kv=seq_lens_kv, num_heads=2, num_kv_heads=1,
        head_dim=2, dtype=np.float64,
    )  # fmt: skip
    options = {
        "prefix_len": np.minimum(prefix, problem.seq_len_kv),
        "scale": 0.7,
        "causal": causal,
        "window": window,
    }
    want_o, want_lse = loop_ragged(loop_attention, problem, **options)
    tiles = {"block_m": block_m, "block_n": block_n, "return_lse": True}
    for o, lse in (
        flash_attention(*paged(rng, problem), **options, **tiles),
        flash_attention_varlen(*varlen(problem), **options, **tiles),
    ):
        np.testing.assert_allclose(o, want_o, atol=1e-14)
        np.testing.assert_allclose(lse, want_lse, atol=1e-13)


@pytest.mark.parametrize(
    ("dtype", "kv_dtype"),
    [(np.float16, np.float16), (np.float32, np.float32), (np.float32, np.float16)],
)
@pytest.mark.parametrize("tiles", [{"block_m": 16, "block_n": 32}, {}])
def test_flash_attention_is_as_accurate_as_the_plain_formula(rng, dtype, kv_dtype, tiles):
    problem = random_ragged(
        rng, seq_lens_q=[70, 0, 1, 9], seq_lens_kv=[300, 5, 129, 0], num_heads=8, num_kv_heads=2,
        head_dim=64, dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    o, lse = flash_attention(*paged(rng, problem, 128), return_lse=True, **tiles)
    assert (o.dtype, lse.dtype) == (dtype, np.float32)
    golden = ragged_attention(problem, dtype=np.float64)
    plain = ragged_attention(problem, round_dtype=kv_dtype)
    assert_accurate(o, plain[0], golden[0], "L2")
    assert_accurate(lse, plain[1], golden[1], "L2")


def test_bfloat16_is_served_by_name(rng):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    problem = random_ragged(
        rng, seq_lens_q=[20, 30], seq_lens_kv=[64, 40], num_heads=4, num_kv_heads=1, head_dim=32,
        dtype=ml_dtypes.bfloat16,
    )  # fmt: skip
    o = flash_attention(*paged(rng, problem), block_m=16, block_n=16)
    assert o.dtype == ml_dtypes.bfloat16
    golden, _ = ragged_attention(problem, dtype=np.float64)
    plain, _ = ragged_attention(problem, round_dtype=ml_dtypes.bfloat16)
    assert_accurate(o, plain, golden, "L2")


def test_one_row_has_the_rounding_points_of_the_kernel():
    """By hand, in tiles of one key: exponentials round to float16, the row sum does not."""
    q = np.array([[[1.0001, 0.0]]], np.float32)  # rounds to 1 in float16
    k = np.array([[[1.0, 0.0]], [[-2.0, 0.0]]], np.float16)
    v = np.array([[[1.0, 3.0]], [[5.0, 7.0]]], np.float16)
    ends = np.array([0, 1], np.int32), np.array([0, 2], np.int32)
    o, lse = flash_attention_varlen(q, k, v, *ends, scale=1.0, return_lse=True, block_n=1)
    rounded, row_sum = float(np.float16(math.exp(-3.0))), 1 + math.exp(-3.0)
    np.testing.assert_allclose(
        o[0, 0], [(1 + 5 * rounded) / row_sum, (3 + 7 * rounded) / row_sum], rtol=2e-7
    )
    assert lse[0, 0] == pytest.approx(1 + math.log(row_sum), rel=1e-6)


def test_rising_large_scores_rescale_without_overflow(rng, loop_attention):
    problem = random_ragged(
        rng, seq_lens_q=[2], seq_lens_kv=[8], num_heads=1, num_kv_heads=1, head_dim=2,
        dtype=np.float64,
    )  # fmt: skip
    problem.q[:] = 1e3
    problem.k[:] = np.arange(8)[:, None, None]  # every tile holds a new maximum, far above
    want_o, want_lse = loop_ragged(loop_attention, problem, scale=1.0)
    o, lse = flash_attention_varlen(*varlen(problem), scale=1.0, return_lse=True, block_n=1)
    np.testing.assert_allclose(o, want_o, atol=1e-12)
    np.testing.assert_allclose(lse, want_lse, rtol=1e-14)


def test_the_inputs_are_left_alone(rng):
    problem = random_ragged(rng, seq_lens_q=[3], seq_lens_kv=[5], num_heads=2, num_kv_heads=1)
    operands = paged(rng, problem)
    before = [x.copy() for x in operands]
    flash_attention(*operands)
    for x, y in zip(operands, before, strict=True):
        np.testing.assert_array_equal(x, y)


def paged_arguments():
    return {
        "q": np.ones((3, 4, 8), np.float32),
        "k_cache": np.ones((5, 2, 16, 8), np.float32),
        "v_cache": np.ones((5, 2, 16, 8), np.float32),
        "block_table": np.array([[0, 1], [4, -1]], np.int32),
        "cu_seqlens_q": np.array([0, 2, 3], np.int32),
        "seq_len_kv": np.array([17, 16], np.int32),
    }


def int32(*values):
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": np.ones((3, 4))}, ValueError, r"q has shape \(3, 4\); expected 3 axes, \(T, N, D\)"),
        ({"q": np.ones((3, 4, 8), int)}, TypeError, "q has dtype int64"),
        ({"q": np.ones((3, 4, 8))}, TypeError, "q is float64, k float32 and v float32"),
        ({"q": np.ones((3, 3, 8), np.float32)}, ValueError, "q has 3 heads and k has 2"),
        ({"q": np.ones((3, 4, 4), np.float32)}, ValueError, "k_cache has .* the head_dim of q"),
        (
            {"k_cache": np.ones((5, 2, 16), np.float32)},
            ValueError,
            "k_cache has shape .*; expected 4 axes",
        ),
        ({"v_cache": np.ones((4, 2, 16, 8), np.float32)}, ValueError, "the shape of k_cache"),
        ({"v_cache": np.ones((5, 2, 16, 8), np.float16)}, TypeError, "v float16"),
        (
            dict.fromkeys(["k_cache", "v_cache"], np.ones((5, 2, 8, 8), np.float32)),
            ValueError,
            "page_size is 8; expected 16 to 256",
        ),
        ({"block_table": np.zeros((2, 2))}, TypeError, "block_table has dtype float64; index arr"),
        (
            {"block_table": int32(0, 1)},
            ValueError,
            r"block_table has shape \(2,\); expected 2 axes",
        ),
        ({"block_table": int32([0, 1])}, ValueError, "block_table has .*one row per sequence"),
        ({"block_table": int32([0, -1], [4, -1])}, ValueError, r"block_table\[0, 1\] is -1, but"),
        ({"block_table": int32([0, 5], [4, -1])}, ValueError, "is 5, .* a page id of 0 to 4"),
        ({"cu_seqlens_q": np.array([0, 2, 3])}, TypeError, "cu_seqlens_q has dtype int64"),
        (
            {"cu_seqlens_q": int32(1, 2, 3)},
            ValueError,
            r"cu_seqlens_q is \[1, 2, 3\]; it must start",
        ),
        ({"cu_seqlens_q": int32()}, ValueError, r"cu_seqlens_q is \[\]; it must start at 0"),
        ({"cu_seqlens_q": int32(0, 4, 3)}, ValueError, "it must never fall"),
        ({"cu_seqlens_q": int32(0, 2, 2)}, ValueError, "ends at 2, but there are 3 tokens"),
        ({"cu_seqlens_q": int32(0, 3)}, ValueError, r"seq_len_kv has .*; expected \(1,\), one per"),
        ({"seq_len_kv": int32(33, 16)}, ValueError, r"seq_len_kv\[0\] is 33; expected 0 to 32"),
        ({"seq_len_kv": int32(17, -1)}, ValueError, r"seq_len_kv\[1\] is -1; expected 0 to 32"),
        ({"seq_len_kv": np.array([17, 16])}, TypeError, "seq_len_kv has dtype int64"),
        ({"prefix_len": int32(18, 0)}, ValueError, r"prefix_len\[0\] is 18; expected 0 to 17"),
        ({"prefix_len": int32(0, -1)}, ValueError, r"prefix_len\[1\] is -1; expected 0 to 16"),
        ({"prefix_len": int32(0)}, ValueError, r"prefix_len has shape \(1,\); expected \(2,\)"),
        ({"prefix_len": np.zeros(2)}, TypeError, "prefix_len has dtype float64"),
        ({"window": 0}, ValueError, "window is 0; expected 1 or more, or None"),
        ({"scale": math.nan}, ValueError, "scale is nan; expected a finite number"),
        ({"block_m": 0}, ValueError, "block_m is 0 and block_n 512; expected 1 or more"),
    ],
)
def test_flash_attention_refuses(change, error, message):
    with pytest.raises(error, match=message):
        flash_attention(**(paged_arguments() | change))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q": np.ones((3, 4), np.float32)}, ValueError, "q has shape .*; expected 3 axes"),
        (
            {"k": np.ones((6, 2), np.float32)},
            ValueError,
            r"k has shape .*; expected 3 axes, \(Tk, G",
        ),
        ({"k": np.ones((6, 3, 8), np.float32)}, ValueError, "q has 4 heads and k has 3"),
        ({"v": np.ones((5, 2, 8), np.float32)}, ValueError, "v has shape .*, the shape of k"),
        ({"q": np.ones((3, 4, 6), np.float32)}, ValueError, "k has shape .*the head_dim of q"),
        ({"k": np.ones((6, 2, 8))}, TypeError, "q is float32, k float64"),
        ({"cu_seqlens_kv": int32(0, 6)}, ValueError, "the shape of cu_seqlens_q"),
        ({"cu_seqlens_kv": int32(0, 6, 7)}, ValueError, "cu_seqlens_kv ends at 7, but there are 6"),
        ({"cu_seqlens_q": int32(0, 1, 2)}, ValueError, "cu_seqlens_q ends at 2, but there are 3"),
        ({"prefix_len": int32(0, 5)}, ValueError, r"prefix_len\[1\] is 5; expected 0 to 4"),
        ({"window": -1}, ValueError, "window is -1"),
        ({"block_n": 0}, ValueError, "block_m is 128 and block_n 0"),
    ],
)
def test_flash_attention_varlen_refuses(change, error, message):
    arguments = {
        "q": np.ones((3, 4, 8), np.float32),
        "k": np.ones((6, 2, 8), np.float32),
        "v": np.ones((6, 2, 8), np.float32),
        "cu_seqlens_q": int32(0, 2, 3),
        "cu_seqlens_kv": int32(0, 2, 6),
    }
    with pytest.raises(error, match=message):
        flash_attention_varlen(**(arguments | change))


def test_a_page_that_is_not_needed_may_be_anything():
    arguments = paged_arguments()
    want = flash_attention(**arguments)
    arguments["block_table"][1, 1] = 99
    np.testing.assert_array_equal(flash_attention(**arguments), want)
