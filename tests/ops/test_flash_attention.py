"""glm2_ops.flash_attention against the float64 formula, by the accuracy rule at level L1."""

import dataclasses
import math
import subprocess
import sys
import threading
from typing import Any

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
    (np.float16, np.float16), (np.float32, np.float16), (np.float32, np.float32),
    (BFLOAT16, BFLOAT16), (np.float32, BFLOAT16),
]  # fmt: skip
dtype_pairs = pytest.mark.parametrize(("dtype", "kv_dtype"), DTYPES)


@pytest.fixture(autouse=True)
def restore_threads():
    threads = glm2_ops.build_info()["threads"]
    yield
    glm2_ops.set_num_threads(threads)


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


def assert_lse(lse, golden, problem, scale=None):
    """Require lse within the worst case of its float32 sums, row by row of the largest norms.

    The accuracy rule does not serve: numpy adds some dot products up in float64.
    """
    head_dim = problem.q.shape[2]
    scale = head_dim**-0.5 if scale is None else scale
    largest = [
        np.linalg.norm(x.astype(float), axis=-1).max(initial=0) for x in (problem.q, problem.k)
    ]
    cast = 0.0
    if problem.q.dtype != problem.k.dtype:
        cast = float(ml_dtypes.finfo(problem.k.dtype).eps) / 2
    relative = head_dim * 2.0**-24 + cast
    atol = relative * scale * math.prod(largest) + 2.0**-20  # exp, ln and the row sum
    np.testing.assert_allclose(lse, golden, rtol=2.0**-22, atol=atol)


@dataclasses.dataclass(frozen=True)
class Case:
    dtypes: tuple[type, type]
    seq_lens: list[tuple[int, int]]  # (queries, keys) of each sequence
    group_size: int
    num_kv_heads: int
    head_dim: int
    page_size: int
    options: dict[str, Any]
    prefixes: list[int] | None

    @property
    def num_elems(self):
        """Elements of rows that see a key, at the least: zeros have no rounding errors."""
        tokens = sum(min(len_q, len_kv) for len_q, len_kv in self.seq_lens)
        return tokens * self.num_kv_heads * self.group_size * self.head_dim

    @property
    def num_allocated(self):
        """Elements of q in sequences that have keys."""
        tokens = sum(len_q for len_q, len_kv in self.seq_lens if len_kv)
        return tokens * self.num_kv_heads * self.group_size * self.head_dim


@st.composite
def cases(draw):
    page_size = 16 * draw(st.integers(1, 16))
    edge = st.builds(lambda pages, off: max(0, pages * page_size + off), st.integers(0, 2),
                     st.integers(-1, 1))  # fmt: skip
    seq_lens, tokens = [], 0
    for _ in range(draw(st.integers(1, 4))):
        len_kv = draw(edge | st.integers(0, 300))
        len_q = draw(st.sampled_from([0, 1, min(len_kv, 300)]) | st.integers(1, 300))
        len_q = min(len_q, 300 - tokens)
        tokens += len_q
        seq_lens.append((len_q, len_kv))
    prefixes = [draw(st.integers(0, len_kv)) for _, len_kv in seq_lens]
    group_size = draw(st.sampled_from([1, 2, 3, 7, 16, 32]) | st.integers(1, 128))
    head_dim = 16 * draw(st.integers(1, 16))
    return Case(
        dtypes=draw(st.sampled_from(DTYPES)),
        seq_lens=seq_lens,
        group_size=group_size,
        num_kv_heads=draw(st.integers(1, min(3, 65535 // (group_size * head_dim)))),
        head_dim=head_dim,
        page_size=page_size,
        options={
            "causal": draw(st.booleans()),
            "window": draw(st.none() | st.integers(1, 40) | st.integers(1, 300)),
            "scale": draw(st.none() | st.floats(0.01, 0.5)),
        },
        prefixes=draw(st.sampled_from([None, prefixes])),
    )


# The rule compares statistics of rounding errors. In float32 the few elements near zero, at the
# rule's floor of 2**-14, make up the RMSE: one in 20,000.
ENOUGH_ELEMS = {np.float16: 10_000, BFLOAT16: 10_000, np.float32: 800_000}
MOST_ELEMS = 4_000_000  # of q, rows that see nothing included


def enough(case):
    """Repeat the sequences of a case, each with data of its own, until the rule is steady."""
    wanted = ENOUGH_ELEMS[case.dtypes[0]]
    if case.num_elems > 2 * wanted:
        return dataclasses.replace(case, num_kv_heads=1)
    copies = math.ceil(
        min(wanted, MOST_ELEMS * case.num_elems / case.num_allocated) / case.num_elems
    )
    if copies > 32:  # then the formula's loop over sequences is what takes time: add heads instead
        more = min(copies // 16, 65535 // (case.head_dim * case.group_size * case.num_kv_heads))
        case = dataclasses.replace(case, num_kv_heads=case.num_kv_heads * more)
        copies = math.ceil(copies / more)
    live = [b for b, lens in enumerate(case.seq_lens) if min(lens)] * (copies - 1)
    more_prefixes = [case.prefixes[b] for b in live] if case.prefixes is not None else []
    return dataclasses.replace(
        case,
        seq_lens=case.seq_lens + [case.seq_lens[b] for b in live],
        prefixes=None if case.prefixes is None else case.prefixes + more_prefixes,
    )


@settings(deadline=None, max_examples=32, derandomize=True, database=None)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_any_problem_is_as_accurate_as_the_plain_formula(case, seed):
    rng = np.random.default_rng(seed)
    if case.num_elems > 0:
        case = enough(case)
    seq_lens_q, seq_lens_kv = zip(*case.seq_lens, strict=True)
    problem = random_ragged(
        rng, seq_lens_q=seq_lens_q, seq_lens_kv=seq_lens_kv,
        num_heads=case.num_kv_heads * case.group_size, num_kv_heads=case.num_kv_heads,
        head_dim=case.head_dim, dtype=case.dtypes[0], kv_dtype=case.dtypes[1],
    )  # fmt: skip
    prefix_len = None if case.prefixes is None else np.array(case.prefixes, np.int32)
    options = {**case.options, "prefix_len": prefix_len}
    o, lse = glm2_ops.flash_attention(
        *paged(rng, problem, case.page_size), return_lse=True, **options
    )
    assert (o.dtype, o.shape) == (problem.q.dtype, problem.q.shape)
    assert (lse.dtype, lse.shape) == (np.float32, problem.q.shape[:2])
    golden_o, golden_lse = ragged_attention(problem, dtype=np.float64, **options)
    plain_o, _ = ragged_attention(problem, round_dtype=case.dtypes[1], **options)
    assert_accurate(o, plain_o, golden_o, "L1")
    assert_lse(lse, golden_lse, problem, case.options["scale"])


@dtype_pairs
@pytest.mark.parametrize("seq_len_kv", [1, 15, 16, 17, 64, 65, 256, 257, 600])
def test_decode_is_accurate_around_page_and_tile_edges(rng, dtype, kv_dtype, seq_len_kv):
    sequences = ENOUGH_ELEMS[dtype] // (32 * 128)
    problem = random_ragged(
        rng, seq_lens_q=[1] * sequences, seq_lens_kv=[seq_len_kv] * sequences, num_heads=32,
        num_kv_heads=2, head_dim=128, dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    o, lse = glm2_ops.flash_attention(*paged(rng, problem, 128), return_lse=True)
    golden = ragged_attention(problem, dtype=np.float64)
    plain = ragged_attention(problem, round_dtype=kv_dtype)
    assert_accurate(o, plain[0], golden[0], "L1")
    assert_lse(lse, golden[1], problem)


@dtype_pairs
def test_rows_that_see_nothing_are_zero(rng, dtype, kv_dtype):
    """More queries than keys, no key at all, and a window that ends before the first key."""
    problem = random_ragged(
        rng, seq_lens_q=[40, 3, 9], seq_lens_kv=[25, 0, 4], num_heads=490, num_kv_heads=70,
        head_dim=32, dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    operands = paged(rng, problem)
    for options in ({}, {"causal": False, "window": 3}, {"window": 1}):
        o, lse = glm2_ops.flash_attention(*operands, return_lse=True, **options)
        golden, golden_lse = ragged_attention(problem, dtype=np.float64, **options)
        blind = np.isneginf(golden_lse)
        assert blind[:5].all()
        assert blind[40:43].all()
        assert not blind.all()
        assert np.array_equal(np.isneginf(lse), blind)
        assert np.array_equal(o[blind], np.zeros_like(o[blind]))
        assert np.isfinite(o).all()
        plain, _ = ragged_attention(problem, round_dtype=kv_dtype, **options)
        assert_accurate(o, plain, golden, "L1")


@dtype_pairs
def test_a_whole_batch_without_keys(rng, dtype, kv_dtype):
    problem = random_ragged(
        rng, seq_lens_q=[2, 0, 200], seq_lens_kv=[0, 0, 0], num_heads=2, num_kv_heads=1,
        head_dim=16, dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    o, lse = glm2_ops.flash_attention(*paged(rng, problem), return_lse=True)
    assert np.array_equal(o, np.zeros_like(problem.q))
    assert np.array_equal(lse, np.full((202, 2), -np.inf, np.float32))


@pytest.mark.parametrize("seq_lens_kv", [[0], [5, 17]])
def test_no_tokens_at_all(rng, seq_lens_kv):
    problem = random_ragged(
        rng, seq_lens_q=[0] * len(seq_lens_kv), seq_lens_kv=seq_lens_kv, num_heads=4,
        num_kv_heads=2,
    )  # fmt: skip
    o, lse = glm2_ops.flash_attention(*paged(rng, problem), return_lse=True)
    assert o.shape == (0, 4, 16)
    assert lse.shape == (0, 4)


def test_no_sequences_at_all():
    cache = np.ones((1, 1, 16, 16), np.float16)
    o = glm2_ops.flash_attention(
        np.empty((0, 4, 16), np.float16), cache, cache, np.empty((0, 1), np.int32),
        np.zeros(1, np.int32), np.empty(0, np.int32),
    )  # fmt: skip
    assert o.shape == (0, 4, 16)


@dtype_pairs
def test_prefill_equals_prefill_then_decodes(rng, dtype, kv_dtype):
    """Bit for bit: masked keys add exact zeros, and tiles start at the same keys."""
    length = 300
    problem = random_ragged(
        rng, seq_lens_q=[length], seq_lens_kv=[length], num_heads=6, num_kv_heads=2, head_dim=48,
        dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    q, k_cache, v_cache, block_table, _, _ = paged(rng, problem, 32)
    whole, whole_lse = glm2_ops.flash_attention(*paged(rng, problem, 32), return_lse=True)
    parts, start = [], 0
    for end in [200, *range(201, 270), length]:
        parts.append(
            glm2_ops.flash_attention(
                q[start:end], k_cache, v_cache, block_table,
                np.array([0, end - start], np.int32), np.array([end], np.int32), return_lse=True,
            )
        )  # fmt: skip
        start = end
    assert np.array_equal(np.concatenate([o for o, _ in parts]), whole)
    assert np.array_equal(np.concatenate([lse for _, lse in parts]), whole_lse)


@dtype_pairs
@pytest.mark.parametrize("sign", [1, -1])
def test_scores_of_ten_thousand_neither_overflow_nor_vanish(rng, dtype, kv_dtype, sign):
    problem = random_ragged(
        rng, seq_lens_q=[200], seq_lens_kv=[300], num_heads=64, num_kv_heads=4, head_dim=64,
        dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    # Small integers and a power of two: every score is exact, near sign * 1e4, steps of 1/64.
    problem.q[:] = rng.integers(1, 5, problem.q.shape)
    problem.k[:] = sign * rng.integers(1, 5, problem.k.shape)
    mean = 64 * 2.5 * 2.5
    scale = 2.0 ** round(math.log2(1e4 / mean))
    o, lse = glm2_ops.flash_attention(*paged(rng, problem), scale=scale, return_lse=True)
    golden = ragged_attention(problem, dtype=np.float64, scale=scale)
    plain = ragged_attention(problem, round_dtype=kv_dtype, scale=scale)
    assert 3e3 < sign * golden[1].mean() < 3e4
    assert_accurate(o, plain[0], golden[0], "L1")
    np.testing.assert_allclose(lse, golden[1], rtol=3e-7)


def test_a_rising_maximum_rescales_every_tile(rng):
    """Later keys outweigh earlier ones by far: each tile replaces what came before it."""
    problem = random_ragged(
        rng, seq_lens_q=[30], seq_lens_kv=[900], num_heads=4, num_kv_heads=1, head_dim=32
    )
    problem.q[:] = 1
    problem.k[:] = (np.arange(900) / 32)[:, None, None]
    options = {"scale": 1.0, "causal": False}
    o, lse = glm2_ops.flash_attention(*paged(rng, problem), return_lse=True, **options)
    golden, golden_lse = ragged_attention(problem, dtype=np.float64, **options)
    np.testing.assert_allclose(o, golden, atol=2e-6)
    np.testing.assert_allclose(lse, golden_lse, rtol=3e-7)


@pytest.mark.parametrize(("group_size", "head_dim"), [(16, 128), (1, 64), (7, 96), (32, 16)])
@pytest.mark.parametrize("causal", [True, False])
def test_float16_is_bit_close_to_the_tiled_reference(rng, group_size, head_dim, causal):
    """Same tiles: within one ulp at the larger of the element and its row's RMS."""
    problem = random_ragged(
        rng, seq_lens_q=[150, 1, 20], seq_lens_kv=[600, 513, 20], num_heads=2 * group_size,
        num_kv_heads=2, head_dim=head_dim, dtype=np.float16,
    )  # fmt: skip
    operands = paged(rng, problem, 128)
    got = glm2_ops.flash_attention(*operands, causal=causal).astype(np.float64)
    block_m = 128 // group_size * group_size  # whole tokens
    tiled = glm2_reference.flash_attention(
        *operands, causal=causal, block_m=block_m, block_n=256
    ).astype(np.float64)
    row_rms = np.sqrt(np.mean(tiled**2, axis=-1, keepdims=True))
    ulp = np.spacing(np.maximum(np.abs(tiled), row_rms).astype(np.float16)).astype(np.float64)
    assert np.all(np.abs(got - tiled) <= ulp)


def small_call(rng, **options):
    """Return operands with work for several cores, and what they give."""
    problem = random_ragged(
        rng, seq_lens_q=[60, 1, 0, 33], seq_lens_kv=[300, 77, 5, 33], num_heads=8,
        num_kv_heads=2, head_dim=64, **options,
    )  # fmt: skip
    operands = paged(rng, problem, 64)
    return operands, glm2_ops.flash_attention(*operands, return_lse=True)


@dtype_pairs
def test_the_result_does_not_depend_on_the_number_of_threads(dtype, kv_dtype):
    results = []
    for threads in (1, 2, 5, 2, 1):
        glm2_ops.set_num_threads(threads)
        assert glm2_ops.build_info()["threads"] == threads
        results.append(small_call(np.random.default_rng(3), dtype=dtype, kv_dtype=kv_dtype)[1])
    for o, lse in results[1:]:
        assert o.tobytes() == results[0][0].tobytes()
        assert lse.tobytes() == results[0][1].tobytes()


def test_strided_queries_are_copied_and_left_alone(rng):
    operands, (want, _) = small_call(rng)
    q = operands[0]
    wide = np.full((*q.shape[:2], 2 * q.shape[2]), np.nan, q.dtype)
    wide[:, :, ::2] = q
    views = [
        wide[:, :, ::2],
        np.asfortranarray(q),
        np.ascontiguousarray(q.swapaxes(0, 1)).swapaxes(0, 1),
        np.ascontiguousarray(q[::-1])[::-1],
    ]
    for view in views:
        assert not view.flags.c_contiguous
        before = view.copy()
        o = glm2_ops.flash_attention(view, *operands[1:])
        assert o.flags.c_contiguous
        assert np.array_equal(o, want)
        assert np.array_equal(view, before)


def test_operands_are_left_alone(rng):
    operands, _ = small_call(rng)
    before = [x.tobytes() for x in operands]
    glm2_ops.flash_attention(*operands, prefix_len=operands[5] // 2, window=9)
    assert [x.tobytes() for x in operands] == before


def test_read_only_operands_are_served(rng):
    operands, (want, _) = small_call(rng)
    for x in operands:
        x.flags.writeable = False
    assert np.array_equal(glm2_ops.flash_attention(*operands), want)


def test_two_python_threads_at_once(rng):
    glm2_ops.set_num_threads(2)
    calls = [small_call(rng, dtype=dtype, kv_dtype=kv_dtype) for dtype, kv_dtype in DTYPES[:2]]
    wrong = []

    def work(operands, want):
        for _ in range(60):
            o = glm2_ops.flash_attention(*operands)
            if not np.array_equal(o, want):
                wrong.append(o)

    threads = [threading.Thread(target=work, args=(call, want[0])) for call, want in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


FORK = """
import os, threading
import numpy as np
import glm2_ops

glm2_ops.set_num_threads(2)
rng = np.random.default_rng(1)
q = rng.standard_normal((300, 4, 16)).astype(np.float32)
cache = rng.standard_normal((20, 2, 16, 16)).astype(np.float32)
table = np.arange(20, dtype=np.int32)[None]
ends = np.array([0, 300], np.int32), np.array([300], np.int32)

def call():
    return glm2_ops.flash_attention(q, cache, cache, table, *ends)

want = call()  # the parent's workers exist before the fork
stop = threading.Event()
def keep_calling():
    while not stop.is_set():
        call()
caller = threading.Thread(target=keep_calling)
if BUSY:
    caller.start()  # a fork may then fall into the middle of a call
status = 0
for _ in range(5):
    child = os.fork()
    if child == 0:
        same = np.array_equal(call(), want) and np.array_equal(call(), want)
        os._exit(0 if same else 1)
    status |= os.waitpid(child, 0)[1]
stop.set()
if BUSY:
    caller.join()
assert status == 0, status
assert np.array_equal(call(), want)
"""


@pytest.mark.parametrize("busy", [False, True])
def test_a_forked_child_calls_the_operator(busy):
    """In a process of its own: forking one that has loaded MindSpore is not ours to defend."""
    code = FORK.replace("BUSY", str(busy))
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=30)
