"""The package's quantisation against the reference's, bit for bit, and the published recordings."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2.quantization import dequantize, quantize_groups, quantize_rows
from glm2_reference import quant

RECORDED = np.load(Path(__file__).parents[1] / "golden/published_quant.npz")
DTYPES = {"float16": np.float16, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def same(got, wanted):
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert got.tobytes() == wanted.tobytes()


def without_wrap(values, weight, bits):
    """Where published code wraps a number to the other sign, the largest value instead."""
    return np.where((weight > 0) & (values < 0), np.int8(2 ** (bits - 1) - 1), values)


@pytest.mark.parametrize(
    ("dtype", "bits"), [("float16", 8), ("float16", 4), ("bfloat16", 8), ("bfloat16", 4)]
)
def test_rows_match_published(dtype, bits):
    recorded = {
        key: RECORDED[f"{dtype} {bits} {key}"] for key in ("weight", "quantized", "scale", "back")
    }
    weight = recorded["weight"].astype(DTYPES[dtype])
    got = quantize_rows(weight, bits=bits)
    same(got.scale, recorded["scale"].astype(DTYPES[dtype]))
    same(got.values, without_wrap(recorded["quantized"], weight, bits))
    kept = got.values == recorded["quantized"]
    assert kept.all() or (dtype, bits, (~kept).sum()) == ("bfloat16", 8, 1)  # one wrapped
    same(dequantize(got)[kept], recorded["back"].astype(DTYPES[dtype])[kept])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_rows_and_groups_match_the_reference(data):
    dtype = DTYPES[data.draw(st.sampled_from(sorted(DTYPES)))]
    group_size = data.draw(st.sampled_from([32, 64, 128]))
    shape = data.draw(st.integers(1, 9)), group_size * data.draw(st.integers(1, 3))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    # Sizes of trained weights: rows from 1e-3 to 30, some of them zero.
    sizes = 10 ** rng.uniform(-3, 1.5, (shape[0], 1)) * rng.integers(0, 5, (shape[0], 1)).clip(0, 1)
    weight = (rng.standard_normal(shape) * sizes).astype(dtype)
    for bits in (8, 4):
        got, (values, scale) = (
            quantize_rows(weight, bits=bits),
            quant.quantize_rows(weight, bits=bits),
        )
        values = without_wrap(values, weight, bits)
        same(got.values, values)
        same(got.scale, scale)
        same(dequantize(got), quant.dequantize_rows(values, scale))
    got = quantize_groups(weight, group_size=group_size)
    values, scale = quant.quantize_groups(weight, group_size=group_size)
    same(got.values, values)
    same(got.scale, scale)
    same(dequantize(got), quant.dequantize_groups(values, scale))


def test_every_float16_quotient_is_rounded_as_float16():
    """A row that pairs one scale with every positive float16 below it."""
    largest = np.float16(3.7)
    numbers = np.arange(largest.view(np.uint16) + 1, dtype=np.uint16).view(np.float16)
    for bits in (8, 4):
        got = quantize_rows(numbers[None], bits=bits)
        quotient = numbers / (largest / np.float16(127 if bits == 8 else 7))
        assert quotient.dtype == np.float16
        same(got.values[0], np.rint(quotient).astype(np.int8))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_no_integer_stands_for_are_errors(bad):
    weight = np.ones((3, 32), np.float16)
    weight[1, 7] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize_rows(weight, bits=8)
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize_groups(weight, group_size=32)


def test_rows_of_almost_nothing_are_clipped():
    """A scale of the smallest float16 is far from absmax / 7; wrapped values would change their sign."""
    weight = (np.array([[10, -10, 3]]) * 2.0**-24).astype(np.float16)
    same(quantize_rows(weight, bits=4).values, np.array([[7, -8, 3]], np.int8))
