"""Quantisation against recorded torch results, hand-written loops and exact identities."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glm2_reference import (
    dequantize_groups,
    dequantize_rows,
    pack_int4,
    quant_linear,
    quantize_groups,
    quantize_rows,
    quantize_tokens,
    split_int4_digits,
    unpack_int4,
)

RECORDED = Path(__file__).parents[1] / "golden" / "published_quant.npz"
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32}
INT4_ROWS = hnp.arrays(
    np.int8,
    st.tuples(st.integers(0, 4), st.integers(0, 6).map(lambda n: 2 * n)),
    elements=st.integers(-8, 7),
)


@pytest.mark.parametrize(
    "case", ["float16 8", "float16 4", "bfloat16 8", "bfloat16 4", "float32 4"]
)
def test_quantize_rows_is_bit_exact_with_the_published_code(case):
    recorded = np.load(RECORDED)
    dtype, bits = case.split()
    weight = recorded[f"{case} weight"].astype(DTYPES[dtype])
    quantized, scale = quantize_rows(weight, bits=int(bits))
    assert (quantized.dtype, scale.dtype) == (np.int8, weight.dtype)
    assert np.array_equal(quantized, recorded[f"{case} quantized"])
    assert np.array_equal(scale.astype(np.float32), recorded[f"{case} scale"])
    back = dequantize_rows(quantized, scale)
    assert back.dtype == weight.dtype
    assert np.array_equal(back.astype(np.float32), recorded[f"{case} back"])


def test_quantize_rows_of_zeros_divides_by_nothing():
    quantized, scale = quantize_rows(np.zeros((2, 4), np.float16), bits=4)
    assert not quantized.any()
    assert not scale.any()
    assert not dequantize_rows(quantized, scale).any()


def test_pack_int4_puts_the_even_column_high_as_published():
    values = np.array([[1, -2, 7, -8]], np.int8)
    assert pack_int4(values, order="high_first").view(np.uint8).tolist() == [[0x1E, 0x78]]
    assert pack_int4(values, order="low_first").view(np.uint8).tolist() == [[0xE1, 0x87]]


@given(values=INT4_ROWS, order=st.sampled_from(["high_first", "low_first"]))
def test_unpack_int4_undoes_pack(values, order):
    packed = pack_int4(values, order=order)
    assert packed.shape == (len(values), values.shape[1] // 2)
    assert np.array_equal(unpack_int4(packed, order=order), values)
    for row, bytes_of_row in zip(values, packed.view(np.uint8), strict=True):
        for j, byte in enumerate(bytes_of_row.tolist()):
            first, second = (
                (byte >> 4, byte & 15) if order == "high_first" else (byte & 15, byte >> 4)
            )
            assert [first, second] == [int(v) % 16 for v in row[2 * j : 2 * j + 2]]


@given(
    seed=st.integers(0, 99),
    group_size=st.sampled_from([32, 64, 128]),
    scale=st.sampled_from([1e-6, 1.0, 1e4]),
)
def test_quantize_groups_matches_loops(seed, group_size, scale):
    weight = (np.random.default_rng(seed).standard_normal((3, 256)) * scale).astype(np.float32)
    weight[1, :group_size] = 0
    quantized, scales = quantize_groups(weight, group_size=group_size)
    assert scales.shape == (3, 256 // group_size)
    for row in range(3):
        for group in range(256 // group_size):
            part = weight[row, group * group_size : (group + 1) * group_size]
            wanted = np.float32(np.abs(part).max() / np.float32(7))
            assert scales[row, group] == wanted
            got = quantized[row, group * group_size : (group + 1) * group_size]
            assert got.tolist() == [round(float(x / wanted)) if wanted else 0 for x in part]
    error = np.abs(dequantize_groups(quantized, scales) - weight)
    assert (error.reshape(3, -1, group_size) <= scales[:, :, None] * 0.5001).all()


def test_smaller_groups_lose_less():
    weight = np.random.default_rng(0).standard_normal((16, 512)).astype(np.float32)
    weight[:, ::97] *= 8  # outliers
    rows, scale = quantize_rows(weight, bits=4)
    errors = [np.square(dequantize_rows(rows, scale) - weight).mean()]
    for group_size in (128, 64, 32):
        quantized, scales = quantize_groups(weight, group_size=group_size)
        errors.append(np.square(dequantize_groups(quantized, scales) - weight).mean())
    assert errors == sorted(errors, reverse=True)


@given(
    x=hnp.arrays(np.float32, (3, 8), elements=st.floats(-1e6, 1e6, width=32)),
    largest=st.sampled_from([127, 119]),
)
def test_quantize_tokens_keeps_the_largest_and_rounds_the_rest(x, largest):
    quantized, scale = quantize_tokens(x, largest=largest)
    assert np.abs(quantized).max(initial=0) <= largest
    for row, q, s in zip(x, quantized, scale, strict=True):
        assert s == np.float32(np.abs(row).max() / np.float32(largest))
        if s > 1e-30:
            assert np.abs(q).max() == largest
            assert np.abs(q * s - row).max() <= 0.5001 * s


def test_split_int4_digits_is_exact_for_every_value():
    x = np.arange(-128, 120, dtype=np.int8)
    high, low = split_int4_digits(x)
    assert np.array_equal(16 * high.astype(int) + low, x)
    for digit in (high, low):
        assert digit.dtype == np.int8
        assert -8 <= digit.min() <= digit.max() <= 7


@given(seed=st.integers(0, 50))
def test_two_digits_give_the_int8_product(seed):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(-119, 120, (2, 64)).astype(np.int8)
    weight = rng.integers(-8, 8, (5, 64)).astype(np.int8)
    high, low = (digit.astype(np.int32) for digit in split_int4_digits(tokens))
    wanted = tokens.astype(np.int64) @ weight.T.astype(np.int64)
    assert np.array_equal(16 * (high @ weight.T) + low @ weight.T, wanted)


@pytest.mark.parametrize("groups", [None, 1, 4])
def test_quant_linear_with_8_bit_activations_matches_loops(groups):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 64)).astype(np.float16)
    weight = rng.integers(-7, 8, (5, 64)).astype(np.int8)
    scale = rng.uniform(0.01, 0.02, (5,) if groups is None else (5, groups)).astype(np.float32)
    bias = rng.standard_normal(5).astype(np.float32)
    got = quant_linear(x, weight, scale, bias, activation_bits=8)
    size = 64 // (groups or 1)
    for t in range(3):
        token_scale = np.float32(np.abs(x[t].astype(np.float32)).max() / np.float32(127))
        tokens = [round(float(np.float32(v) / token_scale)) for v in x[t]]
        for o in range(5):
            total = 0.0
            for i in range(64):
                total += (
                    tokens[i]
                    * int(weight[o, i])
                    * float(scale[o] if groups is None else scale[o, i // size])
                )
            wanted = total * float(token_scale) + float(bias[o])
            assert got[t, o] == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_quant_linear_with_16_bit_activations_uses_the_dequantised_weight():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((4, 32)).astype(np.float32)
    quantized, scale = quantize_rows(rng.standard_normal((6, 32)).astype(np.float16), bits=8)
    got = quant_linear(x, quantized, scale, activation_bits=16)
    wanted = x.astype(np.float64) @ (quantized.astype(float) * scale.astype(float)[:, None]).T
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    close = quant_linear(x, quantized, scale, activation_bits=8)
    assert 0 < np.abs(close - wanted).max() / np.abs(wanted).max() < 0.02


def test_tokens_of_two_digits_are_quantised_to_119(rng):
    x = rng.standard_normal((3, 8)).astype(np.float32)
    weight = rng.integers(-7, 8, (5, 8)).astype(np.int8)
    got = quant_linear(x, weight, np.ones(5, np.float32), activation_bits=8, largest=119)
    for t, token in enumerate(x):
        scale = max(abs(float(value)) for value in token) / 119
        integers = [round(float(value) / scale) for value in token]
        for o, row in enumerate(weight):
            exact = sum(a * int(w) for a, w in zip(integers, row, strict=True)) * scale
            assert abs(got[t, o] - exact) <= 1e-5 * max(1.0, abs(exact))


WRONG = {
    "bits": (
        lambda: quantize_rows(np.ones((2, 2), np.float32), bits=3),
        "bits is 3; expected 8 or 4",
    ),
    "NaN": (
        lambda: quantize_rows(np.full((2, 2), np.nan, np.float16), bits=4),
        "hold NaN or infinity",
    ),
    "rank": (lambda: quantize_rows(np.ones(2, np.float32), bits=4), "expected 2 axes"),
    "odd row": (
        lambda: pack_int4(np.ones((1, 3), np.int8), order="high_first"),
        "rows have 3 values",
    ),
    "range": (
        lambda: pack_int4(np.array([[8, 0]], np.int8), order="low_first"),
        "4 bits hold -8 to 7",
    ),
    "order": (
        lambda: pack_int4(np.zeros((1, 2), np.int8), order="x"),
        "order is 'x'; expected 'high_first'",
    ),
    "group": (
        lambda: quantize_groups(np.ones((1, 6), np.float32), group_size=4),
        "group_size is 4; it must divide",
    ),
    "largest": (
        lambda: quantize_tokens(np.ones((1, 2), np.float32), largest=128),
        "largest is 128",
    ),
    "infinity": (
        lambda: quantize_tokens(np.full((1, 2), np.inf, np.float32)),
        "hold NaN or infinity",
    ),
    "digits": (
        lambda: split_int4_digits(np.array([120], np.int8)),
        "x holds 120; two int4 digits hold",
    ),
    "scale": (
        lambda: dequantize_rows(np.zeros((2, 2), np.int8), np.ones(3, np.float32)),
        "expected \\(2,\\), one a row",
    ),
    "inputs": (
        lambda: quant_linear(
            np.ones((1, 3), np.float32), np.ones((2, 4), np.int8), np.ones(2), activation_bits=8
        ),
        "both end in in_features",
    ),
    "scales": (
        lambda: quant_linear(
            np.ones((1, 4), np.float32),
            np.ones((2, 4), np.int8),
            np.ones((2, 3)),
            activation_bits=8,
        ),
        r"scale has shape \(2, 3\)",
    ),
    "activation bits": (
        lambda: quant_linear(
            np.ones((1, 4), np.float32), np.ones((2, 4), np.int8), np.ones(2), activation_bits=4
        ),
        "activation_bits is 4; expected 16 or 8",
    ),
    "bias": (
        lambda: quant_linear(
            np.ones((1, 4), np.float32),
            np.ones((2, 4), np.int8),
            np.ones(2),
            np.ones(3),
            activation_bits=8,
        ),
        "bias has shape",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()
