"""glm2_ops.swiglu by the accuracy rule at level L2."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glm2_ops
import glm2_reference
from glm2_reference.testing import assert_accurate

DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32]
dtypes = pytest.mark.parametrize("dtype", DTYPES)


@pytest.fixture(autouse=True)
def restore_threads():
    threads = glm2_ops.build_info()["threads"]
    yield
    glm2_ops.set_num_threads(threads)


def draw(rng, rows, width, dtype, size=2.0):
    return (size * rng.standard_normal((rows, 2 * width), np.float32)).astype(dtype)


def assert_as_accurate_as_the_plain_formula(x):
    got = glm2_ops.swiglu(x)
    assert (got.dtype, got.shape) == (x.dtype, (x.shape[0], x.shape[1] // 2))
    golden = glm2_reference.swiglu(x.astype(np.float64))
    assert_accurate(got, glm2_reference.swiglu(x), golden, "L2")


# Rows shorter than a block, odd ones, some to a tile, a tile and more to a row, ChatGLM2's.
@dtypes
@pytest.mark.parametrize(
    ("rows", "width"),
    [
        (1000, 1), (500, 3), (300, 8), (300, 15), (300, 16), (300, 17), (70, 1000), (33, 4095),
        (33, 4096), (33, 4097), (9, 8193), (1, 13696), (17, 13696), (3, 30001),
    ],
)  # fmt: skip
def test_swiglu_is_as_accurate_as_the_plain_formula(rng, dtype, rows, width):
    assert_as_accurate_as_the_plain_formula(draw(rng, rows, width, dtype))


@settings(deadline=None, max_examples=80, derandomize=True, database=None)
@given(
    rows=st.integers(0, 40),
    width=st.integers(0, 100) | st.integers(0, 20000),
    dtype=st.sampled_from(DTYPES),
    threads=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_swiglu_of_any_shape(rows, width, dtype, threads, seed):
    """Small shapes are too few elements for the rule: each of five roundings is half an ulp."""
    x = draw(np.random.default_rng(seed), rows, width, dtype)
    glm2_ops.set_num_threads(threads)
    got = glm2_ops.swiglu(x)
    golden = glm2_reference.swiglu(x.astype(np.float64))
    info = ml_dtypes.finfo(dtype)
    ulps = 1 if np.dtype(dtype).itemsize == 2 else 5
    bound = ulps * info.eps * np.abs(golden) + info.smallest_subnormal
    assert (got.dtype, got.shape) == (np.dtype(dtype), golden.shape)
    np.testing.assert_array_less(np.abs(got.astype(np.float64) - golden), bound)


@dtypes
@pytest.mark.parametrize("shape", [(0, 2 * 13696), (0, 0), (3, 0), (0, 2)])
def test_nothing_gives_nothing(dtype, shape):
    got = glm2_ops.swiglu(np.zeros(shape, dtype))
    assert (got.dtype, got.shape) == (np.dtype(dtype), (shape[0], shape[1] // 2))


@dtypes
@pytest.mark.parametrize("size", [1e-3, 10, 40])
def test_magnitudes_far_from_one(rng, dtype, size):
    assert_as_accurate_as_the_plain_formula(draw(rng, 50, 500, dtype, size))


@dtypes
def test_gates_whose_exponentials_overflow(dtype):
    gate = np.array([-6e4, -1e3, -104, -90, -80, -20, 0, 20, 80, 1e3, 6e4], dtype)
    x = np.concatenate([gate, np.ones_like(gate)])[None]
    got = glm2_ops.swiglu(x)
    assert np.all(np.isfinite(got))
    golden = glm2_reference.swiglu(x.astype(np.float64))
    np.testing.assert_allclose(got, golden, rtol=2 * ml_dtypes.finfo(dtype).eps, atol=1e-6)
    assert np.array_equal(got[0, 8:], gate[8:])


@dtypes
def test_what_is_not_finite_is_that_of_the_reference(dtype):
    gate, value = np.meshgrid([-np.inf, -1, 0, 2, np.inf, np.nan], [-np.inf, 0, 3, np.nan])
    x = np.concatenate([gate.reshape(1, -1), value.reshape(1, -1)], axis=1).astype(dtype)
    with np.errstate(invalid="ignore"):
        want = glm2_reference.swiglu(x)
    got = glm2_ops.swiglu(x)
    assert np.array_equal(np.isnan(got), np.isnan(want))
    assert np.array_equal(np.isinf(got), np.isinf(want))


def test_an_overflow_of_float16_is_infinite():
    x = np.array([[300, -300, 300, 300]], np.float16)
    assert np.array_equal(glm2_ops.swiglu(x), np.array([[np.inf, 0]], np.float16))


@dtypes
@pytest.mark.parametrize(("rows", "width"), [(1001, 33), (40, 9000), (41, 8191)])
def test_the_result_does_not_depend_on_the_number_of_threads(rng, dtype, rows, width):
    x = draw(rng, rows, width, dtype)
    results = []
    for threads in (1, 2, 7):
        glm2_ops.set_num_threads(threads)
        results.append(glm2_ops.swiglu(x).tobytes())
    assert results[0] == results[1] == results[2]


def test_a_strided_input_is_copied(rng):
    x = draw(rng, 5, 20, np.float16)
    turned = np.asfortranarray(x)
    assert np.array_equal(glm2_ops.swiglu(turned), glm2_ops.swiglu(x))
    assert np.array_equal(turned, x)
