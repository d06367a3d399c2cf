"""QuantLinear in MindSpore: the numpy operator bit for bit, on weights that are mapped files."""

import numpy as np
import pytest

ms = pytest.importorskip("mindspore", reason="needs MindSpore")

from mindspore import Tensor, nn

import glm2_ops
from glm2_ops.mindspore import QuantLinear, dynamic
from glm2_reference.quant import quantize_groups, quantize_rows

pytestmark = pytest.mark.mindspore

FORMATS = ["fp16", "int8", "int4", "int4-g128", "int4-g32"]
ROWS, COLUMNS = 48, 256


@pytest.fixture(autouse=True, params=["graph", "pynative"])
def mode(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MindSpore leaves the graph that it could not compile
    ms.set_context(mode=ms.GRAPH_MODE if request.param == "graph" else ms.PYNATIVE_MODE)
    yield request.param
    ms.set_context(mode=ms.GRAPH_MODE)


def packed_weight(rng, fmt):
    weight = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    if fmt == "fp16":
        values, scale = weight.astype(np.float16), np.ones(ROWS, np.float32)
    elif "-g" in fmt:
        values, scale = quantize_groups(weight, group_size=int(fmt.partition("-g")[2]))
    else:
        values, scale = quantize_rows(weight, bits=int(fmt[3:]))
    return glm2_ops.pack_weight(values, format=fmt), scale


def bits_of(fmt):
    return 16 if fmt == "fp16" else 8


def tensors(*arrays):
    return [Tensor.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(
    ("with_bias", "with_residual"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_the_cell_gives_what_the_numpy_operator_does(rng, fmt, dtype, with_bias, with_residual):
    packed, scale = packed_weight(rng, fmt)
    bits = bits_of(fmt)
    cell = QuantLinear(format=fmt, activation_bits=bits, bias=with_bias, residual=with_residual)
    for tokens in (1, 5):
        x = rng.standard_normal((tokens, COLUMNS)).astype(dtype)
        bias = rng.standard_normal(ROWS).astype(np.float32) if with_bias else None
        residual = rng.standard_normal((tokens, ROWS)).astype(dtype) if with_residual else None
        want = glm2_ops.quant_linear(
            x, packed, scale, bias, format=fmt, activation_bits=bits, residual=residual
        )
        inputs = tensors(x, packed, scale)
        inputs.append(None if bias is None else Tensor.from_numpy(bias))
        inputs.append(None if residual is None else Tensor.from_numpy(residual))
        got = cell(*inputs)
        assert got.shape == want.shape
        np.testing.assert_array_equal(got.asnumpy(), want)


class Layer(nn.Cell):
    """A projection whose weight is a call argument."""

    def __init__(self, fmt):
        super().__init__()
        self.linear = QuantLinear(format=fmt, activation_bits=bits_of(fmt))

    def construct(self, x, weight, scale):
        return self.linear(x, weight, scale)


def mapped(path, array):
    path.write_bytes(b"\0" * 64 + array.tobytes())
    return np.memmap(path, np.uint8, "r", offset=64)


@pytest.mark.parametrize("fmt", ["int4", "int8"])
def test_one_graph_serves_other_weights_and_any_number_of_tokens(
    rng, fmt, tmp_path, mode, compilations
):
    layer = Layer(fmt)
    layer.set_inputs(
        dynamic(ms.float32, None, COLUMNS),
        dynamic(ms.uint8, glm2_ops.packed_size(ROWS, COLUMNS, format=fmt)),
        dynamic(ms.float32, ROWS),
    )
    for tokens in (3, 1, 40):
        packed, scale = packed_weight(rng, fmt)
        x = rng.standard_normal((tokens, COLUMNS)).astype(np.float32)
        weight = mapped(tmp_path / f"weight-{tokens}", packed)
        got = layer(*tensors(x, weight, scale)).asnumpy()
        want = glm2_ops.quant_linear(x, packed, scale, format=fmt, activation_bits=8)
        np.testing.assert_array_equal(got, want)
    if mode == "graph":
        assert compilations == ["Layer"]


def test_a_mapped_weight_is_not_copied(rng, tmp_path, mode):
    """What the process has resident beyond the file's own pages does not grow with the weight."""
    if mode != "graph":
        pytest.skip("the production path is graph mode")
    rows = 16384  # 32 MB of int8
    values = np.tile(rng.integers(-100, 100, (16, 2048)).astype(np.int8), (rows // 16, 1))
    weight = mapped(tmp_path / "weight", glm2_ops.pack_weight(values, format="int8"))
    layer = Layer("int8")
    x, scale = np.ones((1, 2048), np.float32), np.ones(rows, np.float32)
    inputs = tensors(x, weight, scale)
    before = anonymous_bytes()
    for _ in range(3):
        layer(*inputs).asnumpy()
    assert anonymous_bytes() - before < weight.size / 2


def anonymous_bytes():
    with open("/proc/self/status") as status:  # noqa: PTH123
        line = next(line for line in status if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.zeros(64, np.uint8)}, "weight has shape .64,.; expected .12288,."),
        ({"x": np.ones((2, 3, 4), np.float32)}, "x has shape"),
        ({"scale": np.ones((ROWS, 2), np.float32)}, "scale has shape"),
    ],
)
def test_operands_that_do_not_fit_are_refused(rng, changes, message):
    packed, scale = packed_weight(rng, "int8")
    operands = {"x": np.ones((2, COLUMNS), np.float32), "weight": packed, "scale": scale} | changes
    cell = QuantLinear(format="int8", activation_bits=8)
    with pytest.raises(RuntimeError, match=message):
        cell(*tensors(*operands.values())).asnumpy()


def test_dtypes_that_are_not_served_are_refused(rng):
    packed, scale = packed_weight(rng, "int8")
    cell = QuantLinear(format="int8", activation_bits=8)
    with pytest.raises(TypeError, match="weight has dtype int8; expected uint8"):
        cell(*tensors(np.ones((1, COLUMNS), np.float32), packed.view(np.int8), scale))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"format": "int5", "activation_bits": 8}, ValueError, "format is 'int5'"),
        ({"format": "fp16", "activation_bits": 8}, ValueError, "a float16 weight takes 16"),
        ({"format": "int4", "activation_bits": 8, "bias": 1}, TypeError, "bias is 1"),
    ],
)
def test_options_that_are_not_served_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        QuantLinear(**options)
