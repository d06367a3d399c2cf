"""glm2_ops.rms_norm by the accuracy rule at level L2, and its total bit for bit."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glm2_ops
import glm2_reference
from glm2_reference.testing import assert_accurate, upcast

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32]
dtypes = pytest.mark.parametrize("dtype", DTYPES)
EPS = 1e-5


@pytest.fixture(autouse=True)
def restore_threads():
    threads = glm2_ops.build_info()["threads"]
    yield
    glm2_ops.set_num_threads(threads)


def draw(rng, shape, dtype, size=1.0):
    """Return x, weight and residual."""
    x, residual = (size * rng.standard_normal(shape, np.float32) for _ in range(2))
    weight = 1 + 0.5 * rng.standard_normal(shape[1], np.float32)
    return x.astype(dtype), weight.astype(dtype), residual.astype(dtype)


def assert_within_ulps(got, golden, ulps):
    """Require relative errors of ``ulps``, or half the smallest subnormal."""
    info = ml_dtypes.finfo(got.dtype)
    bound = ulps * info.eps * np.abs(golden) + info.smallest_subnormal
    np.testing.assert_array_less(np.abs(got.astype(np.float64) - golden), bound)


# Whole vectors, their edges, rows of one element; odd rows, whose ends share a block of UB or GM;
# one repeat of every row (short rows), all repeats of a row (long ones); the longest row.
@dtypes
@pytest.mark.parametrize(
    "hidden_size",
    [1, 2, 7, 8, 15, 16, 17, 63, 64, 65, 127, 128, 130, 512, 1000, 2039, 2040, 2048, 4096, 4097],
)
def test_rms_norm_is_as_accurate_as_the_plain_formula(rng, dtype, hidden_size):
    # The error of a row's root mean square is common to the row: the rule wants many rows.
    shape = (1000 if hidden_size < 100 else 150, hidden_size)
    x, weight, residual = draw(rng, shape, dtype)
    got = glm2_ops.rms_norm(x, weight, eps=EPS)
    assert (got.shape, got.dtype) == (x.shape, x.dtype)
    plain = glm2_reference.rms_norm(x, weight, eps=EPS)
    assert_accurate(got, plain, glm2_reference.rms_norm(*upcast(x, weight), eps=EPS), "L2")

    got, total = glm2_ops.rms_norm(x, weight, eps=EPS, residual=residual)
    plain, want_total = glm2_reference.rms_norm(x, weight, eps=EPS, residual=residual)
    assert (total.shape, total.dtype) == (x.shape, x.dtype)
    assert np.array_equal(total, want_total)
    golden = glm2_reference.rms_norm(*upcast(total, weight), eps=EPS)
    assert_accurate(got, plain, golden, "L2")


@settings(deadline=None, max_examples=80, derandomize=True, database=None)
@given(
    rows=st.integers(0, 70),
    hidden_size=st.integers(1, 300) | st.integers(1, 11264),
    dtype=st.sampled_from(DTYPES),
    threads=st.integers(1, 5),
    with_residual=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_rms_norm_of_any_shape(rows, hidden_size, dtype, threads, with_residual, seed):
    """Few rows are too few for the rule: a product, a quotient and the mean are good to 4 ulps."""
    x, weight, residual = draw(np.random.default_rng(seed), (rows, hidden_size), dtype)
    glm2_ops.set_num_threads(threads)
    if with_residual:
        got, h = glm2_ops.rms_norm(x, weight, eps=EPS, residual=residual)
        assert np.array_equal(h, x + residual)
    else:
        got, h = glm2_ops.rms_norm(x, weight, eps=EPS), x
    golden = glm2_reference.rms_norm(*upcast(h, weight), eps=EPS) if rows else np.zeros(x.shape)
    assert got.dtype == dtype
    assert_within_ulps(got, golden, ulps=1 if np.dtype(dtype).itemsize == 2 else 4)


@dtypes
def test_no_rows_give_none(dtype):
    x, weight = np.zeros((0, 4096), dtype), np.ones(4096, dtype)
    assert glm2_ops.rms_norm(x, weight, eps=EPS).shape == (0, 4096)
    y, total = glm2_ops.rms_norm(x, weight, eps=EPS, residual=x)
    assert y.shape == total.shape == (0, 4096)
    assert total.dtype == dtype


@dtypes
@pytest.mark.parametrize("size", [1e-7, 1e-3, 1e3, 3e4])
def test_magnitudes_far_from_one(rng, dtype, size):
    """From below sqrt(eps), where eps decides, to where the square of a float16 overflows it."""
    x, weight, _ = draw(rng, (200, 513), dtype)
    x = (np.clip(x, -2, 2) * np.float32(size)).astype(dtype)
    got = glm2_ops.rms_norm(x, weight, eps=EPS)
    plain = glm2_reference.rms_norm(x, weight, eps=EPS)
    assert_accurate(got, plain, glm2_reference.rms_norm(*upcast(x, weight), eps=EPS), "L2")


def test_float32_up_to_where_squares_overflow(rng):
    x, weight, _ = draw(rng, (200, 512), np.float32, size=1e17)
    got = glm2_ops.rms_norm(x, weight, eps=EPS)
    plain = glm2_reference.rms_norm(x, weight, eps=EPS)
    assert_accurate(got, plain, glm2_reference.rms_norm(*upcast(x, weight), eps=EPS), "L2")


@dtypes
@pytest.mark.parametrize("shape", [(3, 65), (3, 4096)])
def test_zero_rows_nan_and_infinity_stay_in_their_rows(dtype, shape):
    x = np.ones(shape, dtype)
    x[0] = 0
    x[1, 5] = np.nan
    got = glm2_ops.rms_norm(x, np.ones(shape[1], dtype), eps=EPS)
    assert np.all(got[0] == 0)
    assert np.all(np.isnan(got[1]))
    assert_within_ulps(got[2], np.full(shape[1], (1 + EPS) ** -0.5), ulps=4)
    x[1] = 1
    x[1, 5] = np.inf
    with np.errstate(invalid="ignore"):
        want = glm2_reference.rms_norm(x, np.ones(shape[1], dtype), eps=EPS)
    assert np.array_equal(
        glm2_ops.rms_norm(x, np.ones(shape[1], dtype), eps=EPS)[1], want[1], equal_nan=True
    )


def test_a_sum_that_overflows_float16_is_infinite():
    x = np.full((1, 64), 60000, np.float16)
    y, total = glm2_ops.rms_norm(x, np.ones(64, np.float16), eps=EPS, residual=x)
    assert np.all(np.isposinf(total))
    assert np.all(np.isnan(y))


def test_eps_may_be_zero_and_moves_the_result(rng):
    x, weight, _ = draw(rng, (300, 64), np.float32)
    for eps in (0, 0.0, 1e-5, 3):
        got = glm2_ops.rms_norm(x, weight, eps=eps)
        plain = glm2_reference.rms_norm(x, weight, eps=eps)
        assert_accurate(got, plain, glm2_reference.rms_norm(*upcast(x, weight), eps=eps), "L2")


@dtypes
@pytest.mark.parametrize("hidden_size", [33, 4097])
def test_the_result_does_not_depend_on_the_number_of_threads(rng, dtype, hidden_size):
    x, weight, residual = draw(rng, (1001, hidden_size), dtype)
    results = []
    for threads in (1, 2, 7):
        glm2_ops.set_num_threads(threads)
        pair = glm2_ops.rms_norm(x, weight, eps=EPS, residual=residual)
        results.append([array.tobytes() for array in pair])
    assert results[0] == results[1] == results[2]


def test_strided_inputs_are_copied_and_none_is_written(rng):
    x, weight, residual = draw(rng, (5, 40), np.float16)
    want = glm2_ops.rms_norm(x, weight, eps=EPS, residual=residual)
    turned = [np.asfortranarray(x), np.repeat(weight, 2)[::2], np.asfortranarray(residual)]
    before = [array.tobytes() for array in turned]
    got = glm2_ops.rms_norm(turned[0], turned[1], eps=EPS, residual=turned[2])
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
    assert [array.tobytes() for array in turned] == before


def test_a_residual_may_be_x_itself(rng):
    x, weight, _ = draw(rng, (5, 40), np.float32)
    y, total = glm2_ops.rms_norm(x, weight, eps=EPS, residual=x)
    assert np.array_equal(total, 2 * x)
    assert np.array_equal(y, glm2_ops.rms_norm(2 * x, weight, eps=EPS))
