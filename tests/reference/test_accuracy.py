import numpy as np
import pytest

from glm2_reference.testing import assert_accurate


@pytest.fixture
def golden(rng):
    return rng.standard_normal((20, 50))


def off_by(golden, ulps, dtype):
    """Round to dtype, then move every element by so many ulps of itself."""
    x = golden.astype(dtype)
    return (x.astype(float) + ulps * np.spacing(x).astype(float)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("level", ["L1", "L2"])
def test_the_rounded_golden_is_accurate(golden, dtype, level):
    x = golden.astype(dtype)
    assert_accurate(x, x, golden, level)
    assert_accurate(x, golden, golden, "L1")  # an exact plain does not forbid rounding


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_two_ulps_everywhere_are_not(golden, dtype):
    plain = golden.astype(dtype)
    with pytest.raises(AssertionError, match=r"less accurate than L1 .*mean .*limit 1.5") as caught:
        assert_accurate(off_by(golden, 2, dtype), plain, golden, "L1")
    for part in ("max ", "RMSE ", "worst at (", "golden "):
        assert part in str(caught.value)


def test_one_bad_element_fails_by_the_maximum(golden):
    plain, got = golden.astype(np.float32), golden.astype(np.float32)
    at = np.unravel_index(np.argmax(np.abs(golden)), golden.shape)
    got[at] *= np.float32(1 + 4e-7)
    with pytest.raises(AssertionError, match=rf"worst at \({at[0]}, {at[1]}\)"):
        assert_accurate(got, plain, golden, "L2")
    got[at] = plain[at] * np.float32(1 + 1.2e-7)
    assert_accurate(got, plain, golden, "L1")


def test_ratios_follow_the_definition():
    """By hand: RMS 1, so the floor for float32 is 2**-14; errors 2e-6 against 1e-6, one of four."""
    golden = np.array([1.0, -1.0, 1.0, -1.0])
    plain, got = golden.astype(np.float64), golden.astype(np.float64)
    plain[0] += 1e-6
    got[0] += 1.9e-6
    with pytest.raises(
        AssertionError, match=r"max 1.9e-06 / 1e-06 = 1.90 \(limit 2.0\), mean 4.75e-"
    ):
        assert_accurate(got, plain, golden, "L2")
    got[0] = golden[0] + 1.1e-6
    assert_accurate(got, plain, golden, "L2")


def test_near_zero_elements_are_measured_against_the_floor():
    golden = np.ones(1000)
    golden[0] = 0.0
    plain = got = golden.astype(np.float32)
    got = got.copy()
    got[0] = 2.0**-14 * 2.0**-25  # half of the half ulp that the maximum may always have
    assert_accurate(got, plain, golden, "L2")
    got[0] = 2.0**-14 * 2.0**-21
    with pytest.raises(AssertionError, match=r"worst at \(0,\)"):
        assert_accurate(got, plain, golden, "L2")


def test_a_golden_of_zeros_wants_zeros():
    zeros = np.zeros(4)
    assert_accurate(zeros.astype(np.float16), zeros, zeros, "L2")
    with pytest.raises(AssertionError, match="less accurate"):
        assert_accurate(np.full(4, 1e-6, np.float16), zeros, zeros, "L1")


def test_infinities_must_agree():
    golden = np.array([-np.inf, 1.0])
    good = golden.astype(np.float32)
    assert_accurate(good, good, golden, "L2")
    assert_accurate(good[:1], good[:1], golden[:1], "L2")
    for bad in ([0.0, 1.0], [np.inf, 1.0], [np.nan, 1.0], [-np.inf, np.nan], [-np.inf, np.inf]):
        with pytest.raises(AssertionError, match=r"got is .* at \(.*\), where golden is"):
            assert_accurate(np.array(bad, np.float32), good, golden, "L2")
    with pytest.raises(AssertionError, match="plain is nan"):
        assert_accurate(good, np.array([-np.inf, np.nan]), golden, "L2")


def test_misuse_is_refused():
    x = np.ones(3)
    with pytest.raises(TypeError, match="golden is float32; compute it in float64"):
        assert_accurate(x, x, x.astype(np.float32), "L2")
    with pytest.raises(AssertionError, match=r"got has shape \(3,\), plain \(2,\)"):
        assert_accurate(x, x[:2], x, "L2")


def test_empty_arrays_are_accurate():
    assert_accurate(np.zeros((0, 3), np.float16), np.zeros((0, 3)), np.zeros((0, 3)), "L1")
