import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2_reference import embedding, linear, rms_norm, softmax, swiglu

TOLERANCE = {np.float16: 1e-3, np.float32: 1e-6, np.float64: 1e-14}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE))


def loop_rms_norm(x, weight, eps):
    out = np.empty(x.shape)
    for i, row in enumerate(x.astype(np.float64)):
        mean_square = sum(value * value for value in row) / len(row)
        for j, value in enumerate(row):
            out[i, j] = float(weight[j]) * value / math.sqrt(mean_square + eps)
    return out


@DTYPES
def test_rms_norm_matches_loops(rng, dtype):
    x, weight = rng.standard_normal((3, 10)).astype(dtype), rng.standard_normal(10).astype(dtype)
    out = rms_norm(x, weight, eps=1e-5)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, loop_rms_norm(x, weight, 1e-5), rtol=TOLERANCE[dtype])


@DTYPES
def test_rms_norm_normalises_the_rounded_sum_with_a_residual(rng, dtype):
    x, residual = rng.standard_normal((2, 3, 10)).astype(dtype)
    weight = np.ones(10, dtype)
    out, total = rms_norm(x, weight, eps=1e-5, residual=residual)
    for i in range(3):
        for j in range(10):
            assert total[i, j] == dtype(float(x[i, j]) + float(residual[i, j]))
    np.testing.assert_allclose(out, loop_rms_norm(total, weight, 1e-5), rtol=TOLERANCE[dtype])


def test_rms_norm_of_large_float16_does_not_overflow():
    x = np.full((1, 8), 60000, np.float16)
    np.testing.assert_array_equal(rms_norm(x, np.ones(8, np.float16), eps=1e-5), np.ones((1, 8)))


def test_rms_norm_of_zeros_is_zero():
    np.testing.assert_array_equal(rms_norm(np.zeros((1, 4)), np.ones(4), eps=1e-5), 0)


@DTYPES
def test_linear_matches_loops(rng, dtype):
    x = rng.standard_normal((3, 5)).astype(dtype)
    weight = rng.standard_normal((4, 5)).astype(dtype)
    bias = rng.standard_normal(4).astype(dtype)
    want = np.empty((3, 4))
    for i in range(3):
        for j in range(4):
            products = [float(a) * float(b) for a, b in zip(x[i], weight[j], strict=True)]
            want[i, j] = math.fsum([*products, float(bias[j])])
    out = linear(x, weight, bias)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, want, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    without = linear(x, weight)
    np.testing.assert_allclose(without, want - bias, rtol=1e-2 if dtype == np.float16 else 1e-5)


def test_linear_accumulates_float16_in_float32():
    out = linear(np.ones((1, 4096), np.float16), np.ones((1, 4096), np.float16))
    assert out[0, 0] == 4096  # float16 sums of ones stop at 2048


@DTYPES
def test_swiglu_matches_loops(rng, dtype):
    x = (4 * rng.standard_normal((3, 6))).astype(dtype)
    want = np.empty((3, 3))
    for i in range(3):
        for j in range(3):
            gate = float(x[i, j])
            want[i, j] = gate / (1 + math.exp(-gate)) * float(x[i, j + 3])
    out = swiglu(x)
    assert out.dtype == dtype
    np.testing.assert_allclose(out, want, rtol=TOLERANCE[dtype])


def test_swiglu_of_large_gates_does_not_overflow():
    np.testing.assert_array_equal(
        swiglu(np.array([[1000.0, -1000.0, 2.0, 2.0]], np.float32)), [[2000.0, 0.0]]
    )


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=8))
def test_softmax_matches_loops(row):
    top = max(row)
    weights = [math.exp(score - top) for score in row]
    want = [weight / math.fsum(weights) for weight in weights]
    np.testing.assert_allclose(softmax(np.array([row]))[0], want, rtol=1e-13, atol=1e-300)


def test_softmax_of_a_row_without_scores_is_zero():
    scores = np.array([[-np.inf, -np.inf], [-np.inf, 3.0]], np.float32)
    np.testing.assert_array_equal(softmax(scores), [[0, 0], [0, 1]])
    assert softmax(np.zeros((2, 0), np.float16)).shape == (2, 0)


def test_embedding_takes_rows(rng):
    weight = rng.standard_normal((7, 3)).astype(np.float16)
    out = embedding(np.array([6, 0, 6]), weight)
    assert out.dtype == np.float16
    for row, i in zip(out, [6, 0, 6], strict=True):
        assert row.tolist() == weight[i].tolist()


ONE = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: embedding(np.array([1.0]), ONE),
            TypeError,
            "ids have dtype float64; expected int",
        ),
        (
            lambda: embedding(np.array([[1]]), ONE),
            ValueError,
            r"ids has shape \(1, 1\); expected 1",
        ),
        (lambda: embedding(np.array([2]), ONE), ValueError, "ids contain 2; expected 0 to 1"),
        (lambda: embedding(np.array([-1]), ONE), ValueError, "ids contain -1; expected 0 to 1"),
        (lambda: linear(ONE, ONE[:, :3]), ValueError, "both must end in in_features"),
        (lambda: linear(ONE, ONE[0]), ValueError, r"weight has shape \(4,\); expected 2 axes"),
        (lambda: linear(ONE, ONE, ONE[0]), ValueError, r"bias has shape \(4,\); expected \(2,\)"),
        (
            lambda: rms_norm(ONE, ONE, eps=1e-5),
            ValueError,
            r"weight has shape \(2, 4\), but x ends",
        ),
        (
            lambda: rms_norm(ONE, ONE[0].astype(np.float16), eps=1e-5),
            TypeError,
            "weight is float16 and x float32; expected the same dtype",
        ),
        (
            lambda: rms_norm(ONE, ONE[0], eps=1e-5, residual=ONE.astype(np.float64)),
            TypeError,
            "residual is float64 and x float32",
        ),
        (
            lambda: rms_norm(ONE, ONE[0], eps=1e-5, residual=ONE[:1]),
            ValueError,
            r"residual has shape \(1, 4\); expected \(2, 4\), the shape of x",
        ),
        (
            lambda: rms_norm(ONE.astype(np.int32), ONE[0], eps=1e-5),
            TypeError,
            "x has dtype int32; expected one of float16",
        ),
        (lambda: swiglu(ONE[:, :3]), ValueError, "x has 3 columns; expected an even number"),
        (lambda: swiglu(ONE[0]), ValueError, r"x has shape \(4,\); expected 2 axes, \(M, 2F\)"),
        (lambda: softmax(np.ones((1, 2), bool)), TypeError, "scores has dtype bool"),
    ],
)
def test_layers_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
