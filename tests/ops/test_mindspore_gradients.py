"""The MindSpore cells that train: values and gradients, in graph mode and PyNative.

Values are the numpy operators', bit for bit. Gradients are held to the accuracy rule against the
reference's float64 ones, 16-bit to level L2 and float32 to L1: its sums of few elements add in a row,
numpy's in parallel. Those of attention are the numpy operator's bit for bit, too.
"""

import ml_dtypes
import numpy as np
import pytest

ms = pytest.importorskip("mindspore", reason="needs MindSpore")

from mindspore import Tensor, nn, ops

import glm2_ops
import glm2_reference
from glm2_ops.mindspore import (
    FlashAttentionGrad,
    FlashAttentionVarlen,
    RmsNorm,
    RmsNormResidual,
    Swiglu,
    dynamic,
)
from glm2_reference.layer_gradients import rms_norm_gradients, swiglu_gradients
from glm2_reference.testing import assert_accurate, random_ragged, upcast

pytestmark = pytest.mark.mindspore

BFLOAT16 = ml_dtypes.bfloat16
MS_DTYPES = {np.float16: ms.float16, BFLOAT16: ms.bfloat16, np.float32: ms.float32}
LEVELS = {np.float16: "L2", BFLOAT16: "L2", np.float32: "L1"}
dtypes = pytest.mark.parametrize("dtype", MS_DTYPES)
NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, SCALE = 6, 2, 32, 0.2


@pytest.fixture(params=["graph", "pynative"])
def mode(request):
    ms.set_context(mode=ms.GRAPH_MODE if request.param == "graph" else ms.PYNATIVE_MODE)
    yield request.param
    ms.set_context(mode=ms.GRAPH_MODE)


def tensor(array):
    """Return a Tensor of the array's bits; numpy has no bfloat16 that MindSpore would read."""
    if array.dtype == BFLOAT16:
        return Tensor(array.astype(np.float32), ms.bfloat16)
    return Tensor.from_numpy(array.copy())


def tensors(*arrays):
    return [tensor(array) for array in arrays]


def numpy(tensor):
    if tensor.dtype == ms.bfloat16:
        return tensor.float().asnumpy().astype(BFLOAT16)
    return tensor.asnumpy()


class Weighted(nn.Cell):
    """A scalar whose gradient with respect to the outputs of ``cell`` is ``gradients``."""

    def __init__(self, cell, num_inputs):
        super().__init__()
        self.cell = cell
        self.num_inputs = num_inputs

    def construct(self, *args):
        outputs = self.cell(*args[: self.num_inputs])
        if not isinstance(outputs, tuple):
            outputs = (outputs,)
        total = 0.0
        for i in range(len(outputs)):
            gradient = ops.cast(args[self.num_inputs + i], ms.float32)
            total += ops.sum(ops.cast(outputs[i], ms.float32) * gradient)
        return total


class Step(nn.Cell):
    """Value and gradients of `Weighted`, as one graph in graph mode."""

    def __init__(self, cell, num_inputs, positions):
        super().__init__()
        self.step = ms.value_and_grad(Weighted(cell, num_inputs), positions)

    def construct(self, *args):
        return self.step(*args)


def problem(rng, len_q, past, dtype, num_heads=NUM_HEADS, num_kv_heads=NUM_KV_HEADS):
    """Draw a ragged batch, and the gradient of o; every query sees two keys or more."""
    ragged = random_ragged(
        rng, seq_lens_q=len_q, seq_lens_kv=[q + p for q, p in zip(len_q, past, strict=True)],
        num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=HEAD_DIM, dtype=dtype,
    )  # fmt: skip
    do = rng.standard_normal(ragged.q.shape).astype(dtype)
    return [ragged.q, ragged.k, ragged.v], [ragged.cu_seqlens_q, ragged.cu_seqlens_kv], do


LEN_Q, PAST = [70, 0, 1, 40], [60, 4, 33, 90]
PREFIX_LEN = np.array([80, 0, 34, 0], np.int32)
OPTIONS = [{}, {"causal": False}, {"window": 9}, {"causal": False, "window": 9}]


@dtypes
@pytest.mark.parametrize("options", OPTIONS)
def test_varlen_equals_numpy(rng, mode, dtype, options):  # noqa: ARG001
    operands, offsets, _ = problem(rng, LEN_Q, PAST, dtype)
    want = glm2_ops.flash_attention_varlen(
        *operands, *offsets, prefix_len=PREFIX_LEN, scale=SCALE, return_lse=True, **options
    )
    cell = FlashAttentionVarlen(scale=SCALE, return_lse=True, **options)
    got = [numpy(x) for x in cell(*tensors(*operands, *offsets, PREFIX_LEN))]
    for x, y in zip(got, want, strict=True):
        assert x.dtype == y.dtype
        assert np.array_equal(x, y)


def test_varlen_takes_16_bit_keys_under_a_float32_query(rng):
    operands, offsets, _ = problem(rng, LEN_Q, PAST, np.float32)
    operands[1:] = [x.astype(np.float16) for x in operands[1:]]
    want = glm2_ops.flash_attention_varlen(*operands, *offsets, scale=SCALE)
    none = np.zeros(len(LEN_Q), np.int32)
    got = FlashAttentionVarlen(scale=SCALE)(*tensors(*operands, *offsets, none))
    assert np.array_equal(numpy(got), want)


@dtypes
@pytest.mark.parametrize("options", OPTIONS)
def test_attention_trains(rng, mode, dtype, options):  # noqa: ARG001
    operands, offsets, do = problem(rng, LEN_Q, PAST, dtype, num_heads=48, num_kv_heads=24)
    options = {**options, "scale": SCALE}
    everything = {**options, "prefix_len": PREFIX_LEN}
    step = Step(FlashAttentionVarlen(**options), 6, (0, 1, 2))
    value, got = step(*tensors(*operands, *offsets, PREFIX_LEN, do))

    o, lse = glm2_ops.flash_attention_varlen(*operands, *offsets, return_lse=True, **everything)
    assert float(value) == pytest.approx(
        float((o.astype(np.float64) * do.astype(np.float64)).sum()), rel=1e-4, abs=1e-2
    )
    bits = glm2_ops.flash_attention_grad(do, *operands, o, lse, *offsets, **everything)
    golden_o, golden_lse = glm2_reference.flash_attention_varlen(
        *upcast(*operands), *offsets, return_lse=True, **everything
    )
    golden = glm2_reference.flash_attention_grad(
        *upcast(do, *operands), golden_o, golden_lse, *offsets, **everything
    )
    plain_o, plain_lse = glm2_reference.flash_attention_varlen(
        *operands, *offsets, return_lse=True, **everything
    )
    plain = glm2_reference.flash_attention_grad(
        do, *operands, plain_o, plain_lse, *offsets, **everything
    )
    for x, same, y, z in zip(map(numpy, got), bits, plain, golden, strict=True):
        assert x.dtype == dtype
        assert np.array_equal(x, same)
        assert_accurate(x, y, z, LEVELS[dtype])


def test_attention_gradient_is_a_slope(rng, mode):  # noqa: ARG001
    """Against finite differences of the float64 reference: no formula for the gradient at all."""
    operands, offsets, do = problem(rng, [3, 0, 4], [2, 5, 1], np.float32)
    prefix_len = np.array([4, 0, 0], np.int32)
    step = Step(FlashAttentionVarlen(scale=SCALE), 6, (0, 1, 2))
    _, got = step(*tensors(*operands, *offsets, prefix_len, do))
    exact = list(upcast(*operands))

    def loss():
        o = glm2_reference.flash_attention_varlen(
            *exact, *offsets, prefix_len=prefix_len, scale=SCALE
        )
        return float((o * do).sum())

    for x, grad in zip(exact, got, strict=True):
        flat, slopes = x.reshape(-1), numpy(grad).reshape(-1)
        for index in rng.integers(0, flat.size, 10):
            kept, values = flat[index], []
            for delta in (1e-5, -1e-5):
                flat[index] = kept + delta
                values.append(loss())
            flat[index] = kept
            slope = (values[0] - values[1]) / 2e-5
            assert slopes[index] == pytest.approx(slope, rel=1e-4, abs=1e-5)


def test_gradients_of_views_are_read_as_they_are(rng):
    """In PyNative, q a transposed view and the gradient of a plain sum, which is broadcast."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        operands, offsets, _ = problem(rng, LEN_Q, PAST, np.float32)
        cell = FlashAttentionVarlen(scale=SCALE)
        rest = tensors(*operands[1:], *offsets, PREFIX_LEN)
        turned = tensor(np.ascontiguousarray(operands[0].swapaxes(0, 1)))
        grad = ms.grad(lambda x: ops.sum(cell(ops.transpose(x, (1, 0, 2)), *rest)))
        got = numpy(grad(turned)).swapaxes(0, 1)
    finally:
        ms.set_context(mode=ms.GRAPH_MODE)
    options = {"prefix_len": PREFIX_LEN, "scale": SCALE}
    o, lse = glm2_ops.flash_attention_varlen(*operands, *offsets, return_lse=True, **options)
    want = glm2_ops.flash_attention_grad(np.ones_like(o), *operands, o, lse, *offsets, **options)
    assert np.array_equal(got, want[0])


def test_lse_carries_no_gradient(rng, mode):  # noqa: ARG001
    operands, offsets, do = problem(rng, LEN_Q, PAST, np.float32)
    cell = FlashAttentionVarlen(scale=SCALE, return_lse=True)
    of_lse = rng.standard_normal((sum(LEN_Q), NUM_HEADS)).astype(np.float32)
    inputs = tensors(*operands, *offsets, PREFIX_LEN)
    with_lse = Step(cell, 6, (0, 1, 2))(*inputs, *tensors(do, of_lse))[1]
    without = Step(FlashAttentionVarlen(scale=SCALE), 6, (0, 1, 2))(*inputs, tensor(do))[1]
    for x, y in zip(with_lse, without, strict=True):
        assert np.array_equal(numpy(x), numpy(y))


@dtypes
def test_grad_cell_equals_numpy(rng, mode, dtype):  # noqa: ARG001
    operands, offsets, do = problem(rng, LEN_Q, PAST, dtype)
    options = {"scale": SCALE, "causal": False, "window": 20}
    o, lse = glm2_ops.flash_attention_varlen(*operands, *offsets, return_lse=True, **options)
    want = glm2_ops.flash_attention_grad(
        do, *operands, o, lse, *offsets, prefix_len=PREFIX_LEN, **options
    )
    got = FlashAttentionGrad(**options)(*tensors(do, *operands, o, lse, *offsets, PREFIX_LEN))
    for x, y in zip(got, want, strict=True):
        assert np.array_equal(numpy(x), y)


# ---- rms_norm and swiglu ------------------------------------------------------------------------


def rms_norm_case(rng, dtype, rows, hidden_size=160):
    """Return x, weight, residual and the gradients of y and total."""
    shapes = ((rows, hidden_size), (hidden_size,), *[(rows, hidden_size)] * 3)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@dtypes
def test_rms_norm_trains(rng, mode, dtype):  # noqa: ARG001
    x, weight, _, dy, _ = rms_norm_case(rng, dtype, 1500)
    step = Step(RmsNorm(eps=1e-5), 2, (0, 1))
    got = step(*tensors(x, weight, dy))[1]
    golden = rms_norm_gradients(*upcast(dy, x, weight), eps=1e-5)
    plain = rms_norm_gradients(*(a.astype(np.float32) for a in (dy, x, weight)), eps=1e-5)
    for name, y, z in zip(("dx", "dweight"), plain, golden, strict=True):
        g = numpy(got[0 if name == "dx" else 1])
        assert g.dtype == dtype
        assert_accurate(g, y.astype(dtype), z, LEVELS[dtype])


@dtypes
def test_rms_norm_with_a_residual_trains(rng, mode, dtype):  # noqa: ARG001
    x, weight, residual, dy, dtotal = rms_norm_case(rng, dtype, 1500)
    step = Step(RmsNormResidual(eps=1e-5), 3, (0, 1, 2))
    got = [numpy(g) for g in step(*tensors(x, weight, residual, dy, dtotal))[1]]
    total = x + residual  # rounded, as the operator normalises it
    golden = list(rms_norm_gradients(*upcast(dy, total, weight), eps=1e-5))
    golden[0] += dtotal.astype(np.float64)
    plain = list(rms_norm_gradients(*(a.astype(np.float32) for a in (dy, total, weight)), eps=1e-5))
    plain[0] += dtotal.astype(np.float32)
    for g, y, z in zip(got, plain, golden, strict=False):
        assert g.dtype == dtype
        assert_accurate(g, y.astype(dtype), z, LEVELS[dtype])
    assert np.array_equal(got[2], got[0])


@dtypes
def test_swiglu_trains(rng, mode, dtype):  # noqa: ARG001
    x = (4 * rng.standard_normal((370, 2 * 90))).astype(dtype)
    dy = rng.standard_normal((370, 90)).astype(dtype)
    x[0, :3] = [-60, 60, 0]  # where exp would overflow or vanish
    got = Step(Swiglu(), 1, 0)(*tensors(x, dy))[1]
    golden = swiglu_gradients(*upcast(dy, x))
    plain = swiglu_gradients(dy.astype(np.float32), x.astype(np.float32))
    assert numpy(got).dtype == dtype
    assert_accurate(numpy(got), plain.astype(dtype), golden, LEVELS[dtype])


# ---- One graph for any number of tokens ----------------------------------------------------------


@dtypes
def test_any_batch_trains_in_one_graph(rng, compilations, dtype):
    """Token counts, key counts and batch sizes vary; the gradients stay the numpy operator's."""
    x = MS_DTYPES[dtype]
    query, key = dynamic(x, None, NUM_HEADS, HEAD_DIM), dynamic(x, None, NUM_KV_HEADS, HEAD_DIM)
    index = dynamic(ms.int32, None)
    step = Step(FlashAttentionVarlen(scale=SCALE), 6, (0, 1, 2))
    step.set_inputs(query, key, key, index, index, index, query)
    for len_q, past in ([[5], [2]], [[1], [40]], [[300], [1]], [[2, 0, 7], [3, 9, 40]]):
        operands, offsets, do = problem(rng, len_q, past, dtype)
        prefix_len = np.array([q // 2 for q in len_q], np.int32)
        got = step(*tensors(*operands, *offsets, prefix_len, do))[1]
        options = {"prefix_len": prefix_len, "scale": SCALE}
        o, lse = glm2_ops.flash_attention_varlen(*operands, *offsets, return_lse=True, **options)
        want = glm2_ops.flash_attention_grad(do, *operands, o, lse, *offsets, **options)
        for a, b in zip(got, want, strict=True):
            assert np.array_equal(numpy(a), b)
    assert compilations == ["Step"]


class NormThenSwiglu(nn.Cell):
    def __init__(self):
        super().__init__()
        self.norm = RmsNormResidual(eps=1e-5)
        self.swiglu = Swiglu()

    def construct(self, x, weight, residual):
        y, total = self.norm(x, weight, residual)
        return self.swiglu(y), total


def test_any_number_of_rows_trains_in_one_graph(rng, compilations):
    step = Step(NormThenSwiglu(), 3, (0, 1, 2))
    rows = dynamic(ms.float32, None, 160)
    step.set_inputs(rows, dynamic(ms.float32, 160), rows, dynamic(ms.float32, None, 80), rows)
    for count in (5, 1, 1, 300, 3):
        x, weight, residual, dy, dtotal = rms_norm_case(rng, np.float32, count)
        dy = dy[:, :80].copy()
        _, got = step(*tensors(x, weight, residual, dy, dtotal))
        exact = upcast(x, weight, residual, dy, dtotal)
        total = exact[0] + exact[2]
        y = glm2_reference.rms_norm(total, exact[1], eps=1e-5)
        dx, dweight = rms_norm_gradients(swiglu_gradients(exact[3], y), total, exact[1], eps=1e-5)
        for g, want in zip(got, (dx + exact[4], dweight, dx + exact[4]), strict=True):
            np.testing.assert_allclose(numpy(g), want, rtol=1e-4, atol=1e-5)
    assert compilations == ["Step"]
