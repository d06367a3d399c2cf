"""glm2_ops.quant_linear: integer sums exactly, the rest by the accuracy rule at level L2."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glm2_ops
import glm2_reference
from glm2_reference.quant import (
    dequantize_groups,
    quantize_groups,
    quantize_rows,
    quantize_tokens,
)
from glm2_reference.quant_linear import quant_linear
from glm2_reference.testing import assert_accurate

FORMATS = ["fp16", "int8", "int4", "int4-g128", "int4-g64", "int4-g32"]
INTEGER_FORMATS = FORMATS[1:]
DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32]
TOKENS = [1, 2, 3, 4, 7, 16, 17, 64, 129, 512]
GROUPS = {"int4-g128": 128, "int4-g64": 64, "int4-g32": 32}


def largest_of(fmt):
    return 119 if fmt.startswith("int4") else 127


@pytest.fixture(autouse=True)
def restore_threads():
    threads = glm2_ops.build_info()["threads"]
    yield
    glm2_ops.set_num_threads(threads)


def quantize(weight, fmt):
    """Return the values and the scale that a weight is packed and called with."""
    if fmt == "fp16":
        return weight.astype(np.float16), np.ones(len(weight), np.float32)
    if fmt in GROUPS:
        return quantize_groups(weight, group_size=GROUPS[fmt])
    return quantize_rows(weight, bits=int(fmt[3:]))


def draw(rng, tokens, rows, columns, fmt, dtype=np.float32):
    """Return x, quantised values, scale and the packed weight."""
    x = rng.standard_normal((tokens, columns), np.float32).astype(dtype)
    values, scale = quantize(rng.standard_normal((rows, columns), np.float32), fmt)
    return x, values, scale, glm2_ops.pack_weight(values, format=fmt)


def call(x, packed, scale, fmt, bits, **options):
    return glm2_ops.quant_linear(x, packed, scale, format=fmt, activation_bits=bits, **options)


def integer_tokens(rng, tokens, columns, largest):
    """Return tokens that are their own quantisation: each has an element of ``largest``."""
    x = rng.integers(-largest, largest + 1, (tokens, columns))
    x[np.arange(tokens), rng.integers(0, columns, tokens)] = largest * rng.choice([-1, 1], tokens)
    return x


def random_values(rng, rows, columns, fmt):
    """Return a weight of every value that its bits hold, and as often one of extremes alone."""
    low, high = (-128, 127) if fmt == "int8" else (-8, 7)
    if rng.integers(2):
        return rng.choice([low, high], (rows, columns)).astype(np.int8)
    return rng.integers(low, high + 1, (rows, columns)).astype(np.int8)


# ---- sums of integers, against numpy's int64 ----------------------------------------------------


@pytest.mark.parametrize("fmt", INTEGER_FORMATS)
@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(("rows", "columns"), [(16, 128), (50, 384), (129, 1152), (72, 2176)])
def test_integer_sums_are_exact(rng, fmt, tokens, rows, columns):
    x = integer_tokens(rng, tokens, columns, largest_of(fmt))
    values = random_values(rng, rows, columns, fmt)
    scale = np.ones((rows, columns // GROUPS[fmt]) if fmt in GROUPS else rows, np.float32)
    got = call(x.astype(np.float32), glm2_ops.pack_weight(values, format=fmt), scale, fmt, 8)
    want = x.astype(np.int64) @ values.astype(np.int64).T
    np.testing.assert_array_equal(got, want.astype(np.float32))


@settings(deadline=None, max_examples=250, derandomize=True, database=None)
@given(
    fmt=st.sampled_from(INTEGER_FORMATS),
    tokens=st.integers(1, 40) | st.integers(100, 300),
    rows=st.integers(1, 200),
    columns=st.integers(1, 40) | st.integers(40, 700),
    threads=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_integer_sums_of_any_shape(fmt, tokens, rows, columns, threads, seed):
    rng = np.random.default_rng(seed)
    if fmt in GROUPS:
        columns = max(1, columns // GROUPS[fmt]) * GROUPS[fmt]
    glm2_ops.set_num_threads(threads)
    x = integer_tokens(rng, tokens, columns, largest_of(fmt))
    values = random_values(rng, rows, columns, fmt)
    scale = np.ones((rows, columns // GROUPS[fmt]) if fmt in GROUPS else rows, np.float32)
    got = call(x.astype(np.float32), glm2_ops.pack_weight(values, format=fmt), scale, fmt, 8)
    want = x.astype(np.int64) @ values.astype(np.int64).T
    np.testing.assert_array_equal(got, want.astype(np.float32))


@pytest.mark.parametrize("fmt", ["int8", "int4"])
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_sums_of_the_longest_rows_do_not_overflow(fmt, tokens):
    columns = 16384
    largest, extreme = largest_of(fmt), -128 if fmt == "int8" else -8
    x = np.full((tokens, columns), -largest, np.float32)
    values = np.full((3, columns), extreme, np.int8)
    packed = glm2_ops.pack_weight(values, format=fmt)
    got = call(x, packed, np.ones(3, np.float32), fmt, 8)
    np.testing.assert_array_equal(got, np.float32(largest * -extreme * columns))


# ---- scaled results -----------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["int8", "int4"])
@pytest.mark.parametrize("tokens", TOKENS)
def test_eight_bit_tokens_with_a_scale_a_row_give_the_reference_bit_for_bit(rng, fmt, tokens):
    x, values, scale, packed = draw(rng, tokens, 70, 300, fmt)
    bias = rng.standard_normal(70).astype(np.float32)
    want = quant_linear(x, values, scale, bias, activation_bits=8, largest=largest_of(fmt))
    np.testing.assert_array_equal(call(x, packed, scale, fmt, 8, bias=bias), want)


def eight_bit_linear(x, values, scale, fmt):
    """Return the reference's result, a group's sum added after the other as the kernel does."""
    largest = largest_of(fmt)
    if fmt not in GROUPS:
        return quant_linear(x, values, scale, activation_bits=8, largest=largest)
    tokens, token_scale = quantize_tokens(x, largest=largest)
    total = np.zeros((len(x), len(values)), np.float32)
    for group in range(scale.shape[1]):
        columns = slice(group * GROUPS[fmt], (group + 1) * GROUPS[fmt])
        sums = tokens[:, columns].astype(np.int64) @ values[:, columns].astype(np.int64).T
        total += sums.astype(np.float32) * scale[:, group]
    return total * token_scale[:, None]


@pytest.mark.parametrize("fmt", list(GROUPS))
@pytest.mark.parametrize("tokens", TOKENS)
def test_eight_bit_tokens_with_a_scale_a_group_give_the_formula_bit_for_bit(rng, fmt, tokens):
    x, values, scale, packed = draw(rng, tokens, 70, 1408, fmt)
    want = eight_bit_linear(x, values, scale, fmt)
    np.testing.assert_array_equal(call(x, packed, scale, fmt, 8), want)


def golden_of(x, values, scale, bits, fmt):
    """Return float64 results of the exact formula, and those with the kernel's rounding points."""
    scales = scale.reshape(len(values), -1)
    exact = dequantized = values.astype(np.float64)
    if fmt != "fp16":
        exact = dequantized = (
            values.reshape(*scales.shape, -1) * scales[:, :, None].astype(np.float64)
        ).reshape(values.shape)
    if bits == 8:
        tokens, token_scale = quantize_tokens(x, largest=largest_of(fmt))
        x64 = tokens * token_scale[:, None].astype(np.float64)
        return x64 @ exact.T, eight_bit_linear(x, values, scale, fmt)
    rounded = x.astype(np.float32).astype(np.float16)
    if fmt in GROUPS:
        dequantized = dequantize_groups(values, scales).astype(np.float16)
        plain = rounded.astype(np.float32) @ dequantized.astype(np.float32).T
    else:
        plain = rounded.astype(np.float32) @ values.astype(np.float32).T * scale
    return x.astype(np.float64) @ exact.T, plain


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("tokens", [1, 3, 16, 33, 130])
def test_results_are_as_accurate_as_the_plain_formula(rng, fmt, bits, dtype, tokens):
    if fmt == "fp16" and bits == 8:
        pytest.skip("a float16 weight takes 16 bits")
    rows = 2000 if tokens < 16 else 300  # the rule wants some hundred results
    x, values, scale, packed = draw(rng, tokens, rows, 640, fmt, dtype)
    got = call(x, packed, scale, fmt, bits)
    assert (got.shape, got.dtype) == ((tokens, rows), x.dtype)
    golden, plain = golden_of(x, values, scale, bits, fmt)
    assert_accurate(got, plain.astype(dtype), golden, "L2")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_bias_and_residual_are_added_before_the_one_rounding(rng, fmt, dtype, tokens):
    x, _, scale, packed = draw(rng, tokens, 100, 256, fmt, dtype)
    bits = 16 if fmt == "fp16" else 8
    bias = rng.standard_normal(100).astype(np.float16)
    residual = (100 * rng.standard_normal((tokens, 100))).astype(dtype)
    exact = call(x.astype(np.float32), packed, scale, fmt, bits)
    want = exact + bias.astype(np.float32)
    with_bias = call(x, packed, scale, fmt, bits, bias=bias)
    np.testing.assert_array_equal(with_bias, want.astype(dtype))
    got = call(x, packed, scale, fmt, bits, bias=bias, residual=residual)
    np.testing.assert_array_equal(got, (want + residual.astype(np.float32)).astype(dtype))


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_token_gives_the_same_bits_alone_and_in_a_batch(rng, fmt):
    """Few tokens and many take different routes; sums of integers do not show which."""
    bits = 16 if fmt == "fp16" else 8
    x, _, scale, packed = draw(rng, 40, 96, 512, fmt)
    together = call(x, packed, scale, fmt, bits)
    for token in (0, 7, 39):
        alone = call(x[token : token + 1], packed, scale, fmt, bits)
        if fmt == "fp16":
            np.testing.assert_allclose(alone[0], together[token], rtol=1e-5, atol=1e-4)
        else:
            np.testing.assert_array_equal(alone[0], together[token])


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("bits", [8, 16])
def test_any_number_of_threads_gives_the_same_bits(rng, fmt, bits):
    if fmt == "fp16" and bits == 8:
        pytest.skip("a float16 weight takes 16 bits")
    for tokens in (1, 20):
        x, _, scale, packed = draw(rng, tokens, 272, 384, fmt)
        results = []
        for threads in (1, 2, 3, 7):
            glm2_ops.set_num_threads(threads)
            results.append(call(x, packed, scale, fmt, bits))
        for result in results[1:]:
            np.testing.assert_array_equal(result, results[0])


def test_a_mapped_weight_is_used_where_it_lies(tmp_path, rng):
    x, _, scale, packed = draw(rng, 2, 48, 320, "int4")
    (tmp_path / "weight").write_bytes(b"\0" * 64 + packed.tobytes())
    mapped = np.memmap(tmp_path / "weight", np.uint8, "r", offset=64)
    want = call(x, packed, scale, "int4", 8)
    np.testing.assert_array_equal(call(x, mapped, scale, "int4", 8), want)


def test_tokens_of_zeros_and_no_tokens():
    packed = glm2_ops.pack_weight(np.ones((20, 64), np.int8), format="int4")
    scale = np.ones(20, np.float32)
    for tokens in (0, 1, 30):
        got = call(np.zeros((tokens, 64), np.float16), packed, scale, "int4", 8)
        np.testing.assert_array_equal(got, np.zeros((tokens, 20), np.float16))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("fmt", ["int8", "int4"])
def test_a_token_that_is_not_finite_spoils_its_own_row_alone(rng, bad, fmt):
    x, _, scale, packed = draw(rng, 3, 40, 128, fmt)
    want = call(x, packed, scale, fmt, 8)
    x[1, 5] = bad
    got = call(x, packed, scale, fmt, 8)
    assert not np.isfinite(got[1]).any()
    np.testing.assert_array_equal(got[::2], want[::2])


# ---- wrong calls --------------------------------------------------------------------------------

X = np.zeros((2, 128), np.float32)
PACKED = glm2_ops.pack_weight(np.zeros((32, 128), np.int8), format="int8")
SCALE = np.ones(32, np.float32)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"format": "int3"}, ValueError, "format is 'int3'; expected one of fp16"),
        ({"format": "int4"}, ValueError, r"weight has shape \(4096,\); expected \(2048,\)"),
        ({"format": "int4-g128"}, ValueError, "scale has shape"),
        ({"format": "fp16"}, ValueError, "activation_bits is 8; a float16 weight takes 16"),
        ({"activation_bits": 4}, ValueError, "activation_bits is 4; expected 16 or 8"),
        ({"activation_bits": 8.0}, TypeError, "activation_bits is 8.0; expected an integer"),
        ({"x": X.astype(np.float64)}, TypeError, "x has dtype float64"),
        ({"x": X[0]}, ValueError, "expected 2 axes"),
        ({"x": X[:, :0]}, ValueError, "x has 0 columns"),
        ({"x": X[:, :96]}, ValueError, r"weight has shape \(4096,\); expected \(3072,\)"),
        ({"x": np.zeros((1, 16385), np.float32)}, ValueError, "serves 1 to 16384"),
        ({"x": X.tolist()}, TypeError, "x is a list"),
        ({"weight": PACKED.view(np.int8)}, TypeError, "a packed weight is uint8"),
        ({"weight": PACKED[:-1]}, ValueError, "what packed_size gives"),
        ({"weight": np.repeat(PACKED, 2)[::2]}, ValueError, "weight is not C-contiguous"),
        ({"scale": SCALE.astype(np.float16)}, TypeError, "scale has dtype float16"),
        ({"scale": SCALE[:, None]}, ValueError, "expected 1 axes"),
        ({"scale": SCALE[:0]}, ValueError, "out_features is 0"),
        ({"bias": np.zeros(31, np.float32)}, ValueError, "one a row of the weight"),
        ({"bias": np.zeros(32, np.int32)}, TypeError, "bias has dtype int32"),
        ({"residual": np.zeros((2, 31), np.float32)}, ValueError, "the shape of the result"),
        (
            {"residual": np.zeros((2, 32), np.float16)},
            TypeError,
            "residual is float16 and x float32",
        ),
    ],
)
def test_a_wrong_call_is_refused(changes, error, message):
    arguments = {"x": X, "weight": PACKED, "scale": SCALE, "bias": None, "format": "int8"}
    arguments |= {"activation_bits": 8, "residual": None} | changes
    positional = [arguments.pop(name) for name in ("x", "weight", "scale", "bias")]
    with pytest.raises(error, match=message):
        glm2_ops.quant_linear(*positional, **arguments)


def test_the_reference_has_the_same_name_and_order():
    assert glm2_reference.quant_linear is quant_linear
