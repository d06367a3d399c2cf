"""glm2_ops.flash_attention_varlen: the kernel without pages, against the one with and the formula."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glm2_ops
import glm2_reference
from glm2_reference.testing import (
    assert_accurate,
    paged_from_tnd,
    ragged_attention,
    random_block_table,
    random_ragged,
)

BFLOAT16 = ml_dtypes.bfloat16
DTYPES = [
    (np.float16, np.float16), (BFLOAT16, BFLOAT16), (np.float32, np.float32),
    (np.float32, np.float16), (np.float32, BFLOAT16),
]  # fmt: skip


def draw(seed, seq_lens_q, seq_lens_kv, *, num_heads, num_kv_heads, head_dim, dtypes):
    return random_ragged(
        np.random.default_rng(seed), seq_lens_q=seq_lens_q, seq_lens_kv=seq_lens_kv,
        num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim, dtype=dtypes[0],
        kv_dtype=dtypes[1],
    )  # fmt: skip


def varlen(problem, **options):
    operands = (problem.q, problem.k, problem.v, problem.cu_seqlens_q, problem.cu_seqlens_kv)
    return glm2_ops.flash_attention_varlen(*operands, return_lse=True, **options)


def paged(problem, **options):
    rng = np.random.default_rng(0)
    table, num_pages = random_block_table(rng, problem.seq_len_kv, page_size=32)
    caches = (
        paged_from_tnd(x, problem.cu_seqlens_kv, table, num_pages=num_pages, page_size=32)
        for x in (problem.k, problem.v)
    )
    operands = (problem.q, *caches, table, problem.cu_seqlens_q, problem.seq_len_kv)
    return glm2_ops.flash_attention(*operands, return_lse=True, **options)


@settings(deadline=None, max_examples=60)
@given(
    lens=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 300)), min_size=1, max_size=3),
    heads=st.sampled_from([(1, 1), (4, 2), (6, 3), (7, 1), (32, 2)]),
    head_dim=st.sampled_from([16, 48, 128]), dtypes=st.sampled_from(DTYPES),
    causal=st.booleans(), window=st.sampled_from([None, 1, 30]), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_gives_the_bits_that_pages_give(lens, heads, head_dim, dtypes, causal, window, seed):
    seq_lens_q, seq_lens_kv = zip(*lens, strict=True)
    problem = draw(
        seed, seq_lens_q, seq_lens_kv, num_heads=heads[0], num_kv_heads=heads[1],
        head_dim=head_dim, dtypes=dtypes,
    )  # fmt: skip
    prefix = (problem.seq_len_kv // 3).astype(np.int32)
    options = {"causal": causal, "window": window, "prefix_len": prefix}
    for got, want in zip(varlen(problem, **options), paged(problem, **options), strict=True):
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize(
    "dtypes", DTYPES, ids=lambda pair: "-".join(np.dtype(x).name for x in pair)
)
def test_it_is_as_accurate_as_the_plain_formula(dtypes):
    sequences = 4 if np.dtype(dtypes[0]).itemsize == 2 else 40
    problem = draw(
        1, [129] * sequences, [257] * sequences, num_heads=6, num_kv_heads=2, head_dim=64,
        dtypes=dtypes,
    )  # fmt: skip
    o, lse = varlen(problem)
    golden, golden_lse = ragged_attention(problem, dtype=np.float64)
    plain, _ = ragged_attention(problem, round_dtype=dtypes[1])
    assert_accurate(o, plain, golden, "L2")
    np.testing.assert_allclose(lse, golden_lse, atol=0.02)
    assert (o.dtype, lse.dtype) == (problem.q.dtype, np.float32)


def test_it_takes_what_the_reference_takes_in_the_same_order():
    problem = draw(2, [5, 0, 9], [7, 4, 9], num_heads=4, num_kv_heads=2, head_dim=16,
                   dtypes=(np.float32, np.float32))  # fmt: skip
    operands = (problem.q, problem.k, problem.v, problem.cu_seqlens_q, problem.cu_seqlens_kv)
    want = glm2_reference.flash_attention_varlen(*operands)
    got = glm2_ops.flash_attention_varlen(*operands)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    strided = tuple(np.repeat(x, 2, axis=2)[:, :, ::2] for x in operands[:3])
    assert glm2_ops.flash_attention_varlen(*strided, *operands[3:]).tobytes() == got.tobytes()


def arguments(**changes):
    problem = draw(3, [3], [4], num_heads=4, num_kv_heads=2, head_dim=16,
                   dtypes=(np.float32, np.float32))  # fmt: skip
    values = {
        "q": problem.q, "k": problem.k, "v": problem.v, "cu_seqlens_q": problem.cu_seqlens_q,
        "cu_seqlens_kv": problem.cu_seqlens_kv,
    }  # fmt: skip
    for name, change in changes.items():
        values[name] = change(values[name]) if callable(change) else change
    return values


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"k": lambda x: x[0]}, ValueError, r"k has shape \(2, 16\); expected 3 axes"),
        ({"v": lambda x: x[:-1]}, ValueError, r"v has shape \(3, 2, 16\); .* the shape of k"),
        ({"v": lambda x: x.astype(np.float16)}, TypeError, "k is float32 and v float16"),
        ({"k": lambda x: x[:, :, :8]}, ValueError, "with the head_dim of q"),
        ({"q": lambda x: x[:, :3]}, ValueError, "num_heads must be a multiple"),
        ({"q": lambda x: x.astype(np.float16)}, TypeError, "q is float16 and k float32"),
        ({"q": lambda x: x.astype(int)}, TypeError, "q has dtype int64"),
        ({"cu_seqlens_kv": lambda x: x + 1}, ValueError, "cu_seqlens_kv"),
        ({"cu_seqlens_kv": np.array([0, 2, 4], np.int32)}, ValueError, "cu_seqlens_q"),
        ({"prefix_len": np.array([5], np.int32)}, ValueError, "prefix_len"),
        ({"scale": float("nan")}, ValueError, "scale"),
        ({"window": 0}, ValueError, "window"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        glm2_ops.flash_attention_varlen(**arguments(**changes))


def test_a_head_dim_that_kernels_do_not_serve_is_refused():
    x = np.zeros((2, 1, 24), np.float32)
    offsets = np.array([0, 2], np.int32)
    with pytest.raises(ValueError, match="head_dim is 24; it must be a multiple of 16 up to 256"):
        glm2_ops.flash_attention_varlen(x, x, x, offsets, offsets)
