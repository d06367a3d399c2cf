"""The packed form of weights: its layout against its description, round trips, wrong calls."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glm2_ops
from glm2_reference.quant import pack_int4

FORMATS = ["fp16", "int8", "int4", "int4-g128", "int4-g64", "int4-g32"]
COLUMNS = {"fp16": 16, "int8": 32, "int4": 64}  # of a fractal


def draw_weight(rng, rows, columns, fmt):
    if fmt == "fp16":
        return rng.standard_normal((rows, columns)).astype(np.float16)
    low, high = (-128, 128) if fmt == "int8" else (-8, 8)
    return rng.integers(low, high, (rows, columns)).astype(np.int8)


def described(weight, fmt):
    """Lay a weight out as the documentation says: stripes, fractals, rows of 32 bytes."""
    columns = COLUMNS[fmt.partition("-")[0]]
    padding = [(0, -size % unit) for size, unit in zip(weight.shape, (16, columns), strict=True)]
    weight = np.pad(weight, padding)
    fractals = weight.reshape(weight.shape[0] // 16, 16, -1, columns).swapaxes(1, 2)
    if fmt.startswith("int4"):
        fractals = pack_int4(fractals, order="low_first")
    return np.ascontiguousarray(fractals).view(np.uint8).reshape(-1)


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("rows", "columns"), [(16, 128), (1, 128), (17, 256), (40, 640)])
def test_the_layout_is_the_one_described(rng, fmt, rows, columns):
    weight = draw_weight(rng, rows, columns, fmt)
    packed = glm2_ops.pack_weight(weight, format=fmt)
    assert packed.size == glm2_ops.packed_size(rows, columns, format=fmt)
    np.testing.assert_array_equal(packed, described(weight, fmt))


@settings(deadline=None, max_examples=150, derandomize=True, database=None)
@given(
    fmt=st.sampled_from(["fp16", "int8", "int4"]),
    rows=st.integers(1, 70),
    columns=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_weight_comes_back(fmt, rows, columns, seed):
    weight = draw_weight(np.random.default_rng(seed), rows, columns, fmt)
    packed = glm2_ops.pack_weight(weight, format=fmt)
    np.testing.assert_array_equal(packed, described(weight, fmt))
    back = glm2_ops.unpack_weight(packed, out_features=rows, in_features=columns, format=fmt)
    assert back.dtype == weight.dtype
    np.testing.assert_array_equal(back.view(np.uint8), weight.view(np.uint8))


@pytest.mark.parametrize("order", ["high_first", "low_first"])
@pytest.mark.parametrize(("rows", "columns"), [(16, 64), (3, 2), (33, 70), (48, 192)])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_both_nibble_orders_give_the_same_packed_weight(rng, order, rows, columns, dtype):
    weight = draw_weight(rng, rows, columns, "int4")
    pairs = pack_int4(weight, order=order).view(dtype)
    packed = glm2_ops.pack_weight(pairs, format="int4", nibble_order=order)
    np.testing.assert_array_equal(packed, glm2_ops.pack_weight(weight, format="int4"))
    back = glm2_ops.unpack_weight(
        packed, out_features=rows, in_features=columns, format="int4", nibble_order=order
    )
    np.testing.assert_array_equal(back, pairs.view(np.int8))


def test_packing_into_a_part_of_a_file(tmp_path, rng):
    weight = draw_weight(rng, 20, 128, "int8")
    size = glm2_ops.packed_size(20, 128, format="int8")
    file = np.memmap(tmp_path / "weights", np.uint8, "w+", shape=size + 128)
    part = file[64 : 64 + size]
    assert glm2_ops.pack_weight(weight, format="int8", out=part) is part
    np.testing.assert_array_equal(file[64 : 64 + size], described(weight, "int8"))
    assert not file[:64].any()
    assert not file[64 + size :].any()


def test_a_transposed_weight_is_packed_as_it_is_indexed(rng):
    weight = draw_weight(rng, 128, 32, "int8").T
    packed = glm2_ops.pack_weight(weight, format="int8")
    np.testing.assert_array_equal(packed, described(weight, "int8"))


INT8 = np.zeros((4, 128), np.int8)


@pytest.mark.parametrize(
    ("weight", "options", "error", "message"),
    [
        (INT8, {"format": "int5"}, ValueError, "format is 'int5'; expected one of fp16, int8"),
        (INT8, {"format": "fp16"}, TypeError, "dtype int8; fp16 is packed from float16"),
        (INT8.astype(np.int32), {"format": "int8"}, TypeError, "dtype int32; int8 is packed from"),
        (
            INT8.view(np.uint8),
            {"format": "int4"},
            TypeError,
            "dtype uint8; int4 is packed from int8",
        ),
        (INT8[0], {"format": "int8"}, ValueError, "expected 2 axes"),
        (INT8[:0], {"format": "int8"}, ValueError, "out_features is 0"),
        (INT8[:, :0], {"format": "int8"}, ValueError, "in_features is 0"),
        (
            INT8[:, :96],
            {"format": "int4-g64"},
            ValueError,
            "in_features is 96; expected a multiple",
        ),
        (INT8, {"format": "int4", "nibble_order": "odd"}, ValueError, "nibble_order is 'odd'"),
        (INT8, {"format": "int8", "nibble_order": "high_first"}, ValueError, "fill whole bytes"),
        (INT8, {"format": "int8", "out": np.zeros(3, np.uint8)}, ValueError, r"expected \(2048,\)"),
        (INT8, {"format": "int8", "out": np.zeros(2048, np.int8)}, TypeError, "is uint8"),
        (INT8, {"format": "int8", "out": np.zeros(4096, np.uint8)[::2]}, ValueError, "contiguous"),
    ],
)
def test_a_wrong_weight_is_refused(weight, options, error, message):
    with pytest.raises(error, match=message):
        glm2_ops.pack_weight(weight, **options)


@pytest.mark.parametrize(("value", "named"), [(8, 8), (-9, -9), (100, 100)])
def test_a_value_that_does_not_fit_4_bits_is_refused(value, named):
    weight = np.zeros((33, 70), np.int8)
    weight[32, 69] = value
    with pytest.raises(ValueError, match=rf"weight holds {named}; values of 4 bits are -8 to 7"):
        glm2_ops.pack_weight(weight, format="int4")


def test_a_packed_weight_of_another_size_is_refused():
    packed = glm2_ops.pack_weight(INT8, format="int8")
    with pytest.raises(ValueError, match=r"packed has shape \(2048,\); expected \(4096,\)"):
        glm2_ops.unpack_weight(packed, out_features=17, in_features=128, format="int8")
    with pytest.raises(ValueError, match="it must be even"):
        glm2_ops.unpack_weight(
            packed[:1024], out_features=4, in_features=65, format="int4", nibble_order="low_first"
        )
    out = np.zeros(2048, np.uint8)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="out is read-only"):
        glm2_ops.pack_weight(INT8, format="int8", out=out)
    with pytest.raises(TypeError, match=r"in_features is 1\.5; expected an integer"):
        glm2_ops.packed_size(4, 1.5, format="int8")
