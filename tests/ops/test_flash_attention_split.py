"""glm2_ops.flash_attention where keys are cut into parts: few queries, more than 1024 keys."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glm2_ops
from glm2_reference.memory import Memory
from glm2_reference.memory_systems import ASCEND_A2
from glm2_reference.schedules.ascend_forward import ascend_forward
from glm2_reference.testing import (
    assert_accurate,
    paged_from_tnd,
    ragged_attention,
    random_block_table,
    random_ragged,
)

BFLOAT16 = ml_dtypes.bfloat16
PART = 1024  # keys
THREADS = (1, 2, 3, 5)


@pytest.fixture(autouse=True)
def restore_threads():
    threads = glm2_ops.build_info()["threads"]
    yield
    glm2_ops.set_num_threads(threads)


def make(rng, lens, *, group_size=16, num_kv_heads=1, head_dim=32, dtypes=(np.float16, np.float16)):
    """Draw sequences of (queries, keys)."""
    seq_lens_q, seq_lens_kv = zip(*lens, strict=True)
    return random_ragged(
        rng, seq_lens_q=seq_lens_q, seq_lens_kv=seq_lens_kv, num_heads=group_size * num_kv_heads,
        num_kv_heads=num_kv_heads, head_dim=head_dim, dtype=dtypes[0], kv_dtype=dtypes[1],
    )  # fmt: skip


def add_sink(problem, scores):
    """Let the first key of each sequence outweigh all others by exp(scores), and its value be 0."""
    problem.q[..., 0] = 1
    problem.k[..., 0] = 0
    first = problem.cu_seqlens_kv[:-1][problem.seq_len_kv > 0]
    problem.k[first, :, 0] = scores * problem.q.shape[2] ** 0.5
    problem.v[first] = 0


def paged(problem, page_size=64):
    """Return the operands of flash_attention; slots without a token hold NaN."""
    rng = np.random.default_rng(0)
    table, num_pages = random_block_table(rng, problem.seq_len_kv, page_size=page_size)
    caches = (
        paged_from_tnd(x, problem.cu_seqlens_kv, table, num_pages=num_pages, page_size=page_size)
        for x in (problem.k, problem.v)
    )
    return (problem.q, *caches, table, problem.cu_seqlens_q, problem.seq_len_kv)


HALF, BFLOAT = (np.float16, np.float16), (BFLOAT16, BFLOAT16)
FLOAT, FLOAT_HALF, FLOAT_BFLOAT = (
    (np.float32, np.float32), (np.float32, np.float16), (np.float32, BFLOAT16),
)  # fmt: skip


@pytest.mark.parametrize(
    ("dtypes", "group_size", "lens", "options"),
    [
        (HALF, 16, [(1, 1025), (1, 2047), (1, 2048), (1, 2049)], {}),
        (HALF, 32, [(1, 5000), (4, 1028), (1, 1023)], {"causal": False}),
        (HALF, 1, [(128, 1100), (3, 2050)], {"window": 700}),
        (HALF, 7, [(18, 3000), (1, 1025), (19, 1500)], {"prefix_len": [0, 1025, 40]}),
        (HALF, 2, [(64, 1080), (50, 1024)], {"window": 30, "prefix_len": [1060, 3]}),
        (BFLOAT, 16, [(1, 1025), (8, 4096), (2, 3072)], {}),
        (BFLOAT, 7, [(18, 2500)], {"causal": False, "window": 1500}),
        (FLOAT_HALF, 16, [(8, 2049)] * 100, {}),
        (FLOAT_BFLOAT, 2, [(64, 1200)] * 100, {"window": 1000}),
        (FLOAT, 1, [(128, 1500)] * 100, {}),
        (FLOAT, 32, [(4, 2500)] * 100, {"prefix_len": [1100] * 100, "window": 10}),
    ],
)
def test_parts_are_as_accurate_as_the_plain_formula(rng, dtypes, group_size, lens, options):
    head_dim = 64 if dtypes[0] is np.float32 else 128
    problem = make(rng, lens, group_size=group_size, head_dim=head_dim, dtypes=dtypes)
    options = dict(options)
    if "prefix_len" in options:
        options["prefix_len"] = np.array(options["prefix_len"], np.int32)
    o, lse = glm2_ops.flash_attention(*paged(problem), return_lse=True, **options)
    golden, golden_lse = ragged_attention(problem, dtype=np.float64, **options)
    plain, plain_lse = ragged_attention(problem, round_dtype=dtypes[1], **options)
    assert_accurate(o, plain, golden, "L2")
    assert np.array_equal(np.isneginf(lse), np.isneginf(golden_lse))
    # lse has a rounding of q where the types differ, as the plain formula has.
    far = np.abs(plain_lse - golden_lse).max() if dtypes[0] is not dtypes[1] else 0.0
    np.testing.assert_allclose(lse, golden_lse, rtol=1e-6, atol=2 * far + 2e-6)


@pytest.mark.parametrize("dtypes", [HALF, FLOAT_HALF], ids=["half", "float-half"])
def test_parts_have_maxima_of_their_own(rng, dtypes):
    """Where keys are not cut, probabilities behind a large score are too small for float16."""
    sequences, length = 20, 3000
    problem = make(rng, [(1, length)] * sequences, head_dim=64, dtypes=dtypes)
    problem.q[:] = problem.q.astype(dtypes[1])
    add_sink(problem, 18)
    values = problem.v.reshape(sequences, length, 1, 64)
    values[:, :PART] = 0  # of the part with the large score
    values[:] *= 1000
    o, lse = glm2_ops.flash_attention(*paged(problem), return_lse=True)
    golden, golden_lse = ragged_attention(problem, dtype=np.float64)
    np.testing.assert_allclose(lse, golden_lse, rtol=1e-6)
    assert np.abs(o.astype(float) - golden).mean() < 1e-3 * np.abs(golden).mean()


def bit_close(got, want):
    """Compare to one ulp at the larger of the element and its row's RMS."""
    got, want = got.astype(np.float64), want.astype(np.float64)
    row_rms = np.sqrt(np.mean(want**2, axis=-1, keepdims=True))
    ulp = np.spacing(np.maximum(np.abs(want), row_rms).astype(np.float16)).astype(np.float64)
    return bool(np.all(np.abs(got - want) <= ulp))


@pytest.mark.parametrize(("group_size", "head_dim"), [(16, 128), (1, 64), (7, 96), (32, 16)])
@pytest.mark.parametrize("causal", [True, False])
def test_float16_is_bit_close_to_the_reference_with_the_same_parts(
    rng, group_size, head_dim, causal
):
    lens = [(1, 2500), (128 // group_size, 1500), (200, 1300), (0, 2000), (3, 1024), (2, 2049)]
    problem = make(rng, lens, group_size=group_size, num_kv_heads=2, head_dim=head_dim)
    # No single key but the sink, whose value is 0, weighs much: where a score's last bit decides how
    # a probability of 1/3 is rounded, that alone moves an element by more than the bound.
    problem.q[:] *= 0.25
    add_sink(problem, 5)
    operands = paged(problem, 128)
    got, got_lse = glm2_ops.flash_attention(*operands, causal=causal, return_lse=True)
    want, want_lse = ascend_forward(Memory(ASCEND_A2), *operands, causal=causal)
    assert bit_close(got, want)
    np.testing.assert_allclose(got_lse, want_lse, rtol=1e-6, atol=1e-5)


LENGTHS = st.builds(
    lambda parts, off: max(0, parts * PART + off),
    st.integers(0, 4), st.sampled_from([-17, -1, 0, 1, 16, 300]),
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(
    lens=st.lists(st.tuples(st.integers(0, 9), LENGTHS), min_size=1, max_size=4),
    group_size=st.sampled_from([1, 2, 3, 7, 16, 32, 128]), num_kv_heads=st.integers(1, 2),
    page_size=st.sampled_from([16, 48, 128, 256]), causal=st.booleans(),
    window=st.none() | st.integers(1, 1200), prefix=st.none() | st.integers(0, 4000),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_any_problem_in_parts(
    lens, group_size, num_kv_heads, page_size, causal, window, prefix, seed
):
    problem = make(
        np.random.default_rng(seed), lens, group_size=group_size, num_kv_heads=num_kv_heads
    )
    problem.q[:] *= 0.25  # so that no key weighs too much for bit_close
    options = {"causal": causal, "window": window}
    if prefix is not None:
        options["prefix_len"] = np.minimum(problem.seq_len_kv, prefix).astype(np.int32)
    operands = paged(problem, page_size)
    o, lse = glm2_ops.flash_attention(*operands, return_lse=True, **options)
    _, golden_lse = ragged_attention(problem, dtype=np.float64, **options)
    blind = np.isneginf(golden_lse)
    assert np.array_equal(np.isneginf(lse), blind)
    assert not o[blind].any()
    np.testing.assert_allclose(lse, golden_lse, rtol=1e-6, atol=1e-5)
    want, _ = ascend_forward(Memory(ASCEND_A2), *operands, **options)
    assert bit_close(o, want)


def bits(problem, **options):
    o, lse = glm2_ops.flash_attention(*paged(problem), return_lse=True, **options)
    return o.tobytes() + lse.tobytes()


@pytest.mark.parametrize(
    "dtypes", [HALF, BFLOAT, FLOAT, FLOAT_HALF, FLOAT_BFLOAT],
    ids=lambda pair: "-".join(np.dtype(x).name for x in pair),
)  # fmt: skip
@pytest.mark.parametrize("num_kv_heads", [1, 2, 5])
def test_the_bits_do_not_depend_on_the_number_of_threads(rng, dtypes, num_kv_heads):
    lens = [(1, 4500), (0, 7), (3, 1025), (40, 1200), (2, 0)]
    problem = make(rng, lens, group_size=7, num_kv_heads=num_kv_heads, dtypes=dtypes)
    add_sink(problem, 5)
    seen = set()
    for threads in THREADS:
        glm2_ops.set_num_threads(threads)
        for options in ({}, {"window": 1500}):
            seen.add((len(options), bits(problem, **options)))
    assert len(seen) == 2


def digest():
    """Return a digest of a decode step's bits."""
    problem = make(np.random.default_rng(1), [(1, 5000)], head_dim=128)
    return hashlib.sha256(bits(problem)).hexdigest()


def test_the_bits_do_not_depend_on_the_environments_threads():
    here = Path(__file__)
    code = f"import sys; sys.path.insert(0, {str(here.parent)!r}); import {here.stem} as t; print(t.digest())"
    for threads in THREADS:
        run = subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "GLM2_NUM_THREADS": str(threads)},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        assert run.stdout.strip() == digest()


def test_a_sequences_bits_do_not_depend_on_its_batch(rng):
    lens = [(1, 4000), (5, 1500), (100, 1100), (1, 2048), (1, 30)]
    problem = make(rng, lens, num_kv_heads=2)
    o, lse = glm2_ops.flash_attention(*paged(problem), return_lse=True)
    q, k_cache, v_cache, table, ends, lengths = paged(problem)
    for b, (len_q, _) in enumerate(lens):
        rows = slice(ends[b], ends[b + 1])
        alone = glm2_ops.flash_attention(
            q[rows], k_cache, v_cache, table[b : b + 1], np.array([0, len_q], np.int32),
            lengths[b : b + 1], return_lse=True,
        )  # fmt: skip
        assert np.array_equal(alone[0], o[rows])
        assert np.array_equal(alone[1], lse[rows])


def test_tokens_together_have_the_bits_of_tokens_one_by_one(rng):
    """Parts begin at the same keys, and one that a row does not see adds exact zeros."""
    length, last = 2052, 8
    problem = make(rng, [(last, length)], num_kv_heads=2)
    q, k_cache, v_cache, table, _, _ = operands = paged(problem)
    for options in ({}, {"window": 1027}, {"window": 3}):
        o, lse = glm2_ops.flash_attention(*operands, return_lse=True, **options)
        for i in range(last):
            one = glm2_ops.flash_attention(
                q[i : i + 1], k_cache, v_cache, table, np.array([0, 1], np.int32),
                np.array([length - last + i + 1], np.int32), return_lse=True, **options,
            )  # fmt: skip
            assert np.array_equal(one[0][0], o[i])
            assert np.array_equal(one[1][0], lse[i])


def test_contiguous_keys_are_cut_like_pages(rng):
    problem = make(rng, [(1, 3000), (8, 2049)], num_kv_heads=2)
    operands = (problem.q, problem.k, problem.v, problem.cu_seqlens_q, problem.cu_seqlens_kv)
    o, lse = glm2_ops.flash_attention_varlen(*operands, return_lse=True)
    assert o.tobytes() + lse.tobytes() == bits(problem)


def test_parts_of_which_a_row_sees_nothing(rng):
    """More queries than keys past a prefix; a window behind which whole parts are hidden."""
    problem = make(rng, [(5, 3000)], dtypes=FLOAT)
    prefix = np.array([1030], np.int32)
    o, lse = glm2_ops.flash_attention(*paged(problem), prefix_len=prefix, window=5, return_lse=True)
    golden, golden_lse = ragged_attention(problem, dtype=np.float64, prefix_len=prefix, window=5)
    np.testing.assert_allclose(o, golden, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(lse, golden_lse, rtol=1e-6)
    assert np.isfinite(o).all()
