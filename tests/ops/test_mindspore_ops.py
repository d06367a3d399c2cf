"""The operators as MindSpore cells in graph mode: the numpy operators, bit for bit."""

import numpy as np
import pytest

ms = pytest.importorskip("mindspore", reason="needs MindSpore")

from mindspore import Tensor, nn

import glm2_ops
from glm2_ops.mindspore import (
    FlashAttention,
    RmsNorm,
    RmsNormResidual,
    RopeAppend,
    Swiglu,
    dynamic,
)
from glm2_reference import rope_table
from glm2_reference.testing import cu_seqlens, random_block_table

pytestmark = pytest.mark.mindspore

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, ROTARY_DIM, PAGE_SIZE, MAX_POSITION = 6, 2, 32, 16, 16, 400
SIZES = {"num_heads": NUM_HEADS, "num_kv_heads": NUM_KV_HEADS, "rotary_dim": ROTARY_DIM}
WIDTH = (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM
DTYPES = [(np.float16, np.float16), (np.float32, np.float16), (np.float32, np.float32)]
dtype_pairs = pytest.mark.parametrize(("dtype", "kv_dtype"), DTYPES)


@pytest.fixture(autouse=True, scope="module")
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


def operands_of(rng, *, len_q, past, dtype=np.float16, kv_dtype=np.float16):
    """Return qkv, tables, caches, block_table, cu_seqlens_q and seq_len_kv in numpy."""
    seq_len_kv = np.array(len_q, np.int32) + np.array(past, np.int32)
    block_table, num_pages = random_block_table(rng, seq_len_kv, page_size=PAGE_SIZE)
    cos, sin = rope_table(max_position=MAX_POSITION, rotary_dim=ROTARY_DIM, base=10000.0)
    shape = (num_pages, NUM_KV_HEADS, PAGE_SIZE, HEAD_DIM)
    return [
        rng.standard_normal((sum(len_q), WIDTH)).astype(dtype), cos, sin,
        rng.standard_normal(shape).astype(kv_dtype), rng.standard_normal(shape).astype(kv_dtype),
        block_table, cu_seqlens(len_q), seq_len_kv,
    ]  # fmt: skip


def placeholders(dtype, kv_dtype):
    """Return what set_inputs takes for `operands_of`: every count of tokens and pages is dynamic."""
    x, cache = (ms.float16 if t is np.float16 else ms.float32 for t in (dtype, kv_dtype))
    pages = dynamic(cache, None, NUM_KV_HEADS, PAGE_SIZE, HEAD_DIM)
    table = dynamic(ms.float32, MAX_POSITION, ROTARY_DIM // 2)
    indices = [dynamic(ms.int32, *dims) for dims in ((None, None), (None,), (None,))]
    return [dynamic(x, None, WIDTH), table, table, pages, pages, *indices]


def tensors(*arrays):
    return [Tensor.from_numpy(array.copy()) for array in arrays]


@dtype_pairs
@pytest.mark.parametrize(
    "options", [{}, {"causal": False}, {"window": 5}, {"causal": False, "window": 9}]
)
def test_flash_attention_equals_numpy(rng, dtype, kv_dtype, options):
    _, _, _, *paged, ends, lengths = operands_of(
        rng, len_q=[3, 0, 1, 40], past=[20, 4, 33, 0], dtype=dtype, kv_dtype=kv_dtype
    )
    q = rng.standard_normal((44, NUM_HEADS, HEAD_DIM)).astype(dtype)
    prefix_len = np.array([7, 0, 34, 20], np.int32)
    operands = [q, *paged, ends, lengths]
    want = glm2_ops.flash_attention(*operands, prefix_len=prefix_len, scale=0.3, **options)
    cell = FlashAttention(scale=0.3, **options)
    got = cell(*tensors(*operands, prefix_len)).asnumpy()
    assert got.dtype == want.dtype
    assert np.array_equal(got, want)


@dtype_pairs
def test_rope_append_equals_numpy_and_writes_the_given_cache(rng, dtype, kv_dtype):
    operands = operands_of(
        rng, len_q=[3, 0, 1, 40], past=[20, 4, 31, 0], dtype=dtype, kv_dtype=kv_dtype
    )
    inputs = tensors(*operands)
    got = RopeAppend()(*inputs).asnumpy()
    want = glm2_ops.rope_append(*operands, **SIZES)
    assert got.dtype == want.dtype
    assert np.array_equal(got, want)
    for tensor, array in zip(inputs, operands, strict=True):
        assert np.array_equal(tensor.asnumpy(), array)


class AppendThenAttend(nn.Cell):
    def __init__(self):
        super().__init__()
        self.rope_append = RopeAppend()
        self.flash_attention = FlashAttention(scale=0.25)

    def construct(
        self, qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len
    ):
        q = self.rope_append(qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv)
        return self.flash_attention(
            q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len
        )


def test_any_number_of_tokens_compiles_once(rng, compilations):
    """Prefill, decodes and another batch size on one graph, each equal to numpy."""
    cell = AppendThenAttend()
    cell.set_inputs(*placeholders(np.float16, np.float16), dynamic(ms.int32, None))
    batches = [([5], [0]), ([1], [5]), ([1], [31]), ([300], [0]), ([2, 0, 7], [3, 9, 40])]
    for len_q, past in batches:
        operands = operands_of(rng, len_q=len_q, past=past)
        prefix_len = np.zeros(len(len_q), np.int32)
        inputs = tensors(*operands)
        got = cell(*inputs, *tensors(prefix_len)).asnumpy()
        q = glm2_ops.rope_append(*operands, **SIZES)
        want = glm2_ops.flash_attention(q, *operands[3:], prefix_len=prefix_len, scale=0.25)
        assert np.array_equal(got, want)
        assert np.array_equal(inputs[3].asnumpy(), operands[3])
        assert np.array_equal(inputs[4].asnumpy(), operands[4])
    assert compilations == ["AppendThenAttend"]


def test_without_placeholders_every_shape_compiles(rng, compilations):
    """The counter of the test above counts."""
    cell = AppendThenAttend()
    for tokens in (2, 3):
        operands = operands_of(rng, len_q=[tokens], past=[0])
        cell(*tensors(*operands, np.zeros(1, np.int32)))
    assert compilations == ["AppendThenAttend"] * 2


class UnusedAppend(nn.Cell):
    def __init__(self):
        super().__init__()
        self.rope_append = RopeAppend()

    def construct(self, qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv):
        self.rope_append(qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv)
        return qkv + 1


def test_an_append_whose_result_is_unused_still_writes(rng):
    operands = operands_of(rng, len_q=[5, 1], past=[3, 17])
    inputs = tensors(*operands)
    assert np.array_equal(UnusedAppend()(*inputs).asnumpy(), operands[0] + np.float16(1))
    before = [operands[3].copy(), operands[4].copy()]
    glm2_ops.rope_append(*operands, **SIZES)
    for tensor, array, old in zip(inputs[3:5], operands[3:5], before, strict=True):
        assert not np.array_equal(array, old)
        assert np.array_equal(tensor.asnumpy(), array)


class RepeatedAppend(nn.Cell):
    """Writes a, then b, then a again to the same slots."""

    def __init__(self):
        super().__init__()
        self.rope_append = RopeAppend()

    def construct(self, a, b, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv):
        indices = (block_table, cu_seqlens_q, seq_len_kv)
        first = self.rope_append(a, cos, sin, k_cache, v_cache, *indices)
        second = self.rope_append(b, cos, sin, k_cache, v_cache, *indices)
        third = self.rope_append(a, cos, sin, k_cache, v_cache, *indices)
        return first + second + third


def test_equal_appends_are_not_merged(rng):
    """Were the third call merged into the first, the cache would end with b."""
    operands = operands_of(rng, len_q=[5, 1], past=[3, 17])
    b = rng.standard_normal(operands[0].shape).astype(np.float16)
    inputs = tensors(operands[0], b, *operands[1:])
    RepeatedAppend()(*inputs).asnumpy()
    glm2_ops.rope_append(*operands, **SIZES)
    assert np.array_equal(inputs[4].asnumpy(), operands[3])
    assert np.array_equal(inputs[5].asnumpy(), operands[4])


def rms_norm_operands(rng, rows, dtype, hidden_size=80):
    """Return x, weight and residual."""
    shapes = ((rows, hidden_size), (hidden_size,), (rows, hidden_size))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rms_norm_equals_numpy(rng, dtype):
    x, weight, residual = rms_norm_operands(rng, 37, dtype)
    got = RmsNorm(eps=1e-5)(*tensors(x, weight)).asnumpy()
    assert got.dtype == dtype
    assert np.array_equal(got, glm2_ops.rms_norm(x, weight, eps=1e-5))
    pair = RmsNormResidual(eps=1e-5)(*tensors(x, weight, residual))
    want = glm2_ops.rms_norm(x, weight, eps=1e-5, residual=residual)
    for tensor, array in zip(pair, want, strict=True):
        assert tensor.asnumpy().dtype == dtype
        assert np.array_equal(tensor.asnumpy(), array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("width", [33, 9000])
def test_swiglu_equals_numpy(rng, dtype, width):
    x = rng.standard_normal((5, 2 * width)).astype(dtype)
    got = Swiglu()(*tensors(x)).asnumpy()
    assert got.dtype == dtype
    assert np.array_equal(got, glm2_ops.swiglu(x))


class NormsThenSwiglu(nn.Cell):
    def __init__(self):
        super().__init__()
        self.rms_norm = RmsNorm(eps=1e-5)
        self.rms_norm_residual = RmsNormResidual(eps=1e-3)
        self.swiglu = Swiglu()

    def construct(self, x, weight, residual):
        y, total = self.rms_norm_residual(self.rms_norm(x, weight), weight, residual)
        return y, self.swiglu(total)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_any_number_of_rows_normalises_in_one_graph(rng, compilations, dtype):
    cell = NormsThenSwiglu()
    rows = dynamic(ms.float16 if dtype is np.float16 else ms.float32, None, 80)
    weight = dynamic(rows.dtype, 80)
    cell.set_inputs(rows, weight, rows)
    for count in (5, 1, 1, 300, 3):
        x, weight, residual = rms_norm_operands(rng, count, dtype)
        got = [tensor.asnumpy() for tensor in cell(*tensors(x, weight, residual))]
        first = glm2_ops.rms_norm(x, weight, eps=1e-5)
        y, total = glm2_ops.rms_norm(first, weight, eps=1e-3, residual=residual)
        assert np.array_equal(got[0], y)
        assert np.array_equal(got[1], glm2_ops.swiglu(total))
    assert compilations == ["NormsThenSwiglu"]


@pytest.mark.parametrize("make", [RmsNorm, RmsNormResidual])
def test_eps_is_checked_when_the_cell_is_made(make):
    with pytest.raises(ValueError, match=r"eps is -1\.0; it is added under a square root"):
        make(eps=-1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 0.5, "window": 0}, "window is 0; expected a positive number of keys, or None"),
        ({"scale": float("inf")}, "scale is inf; expected a finite float32"),
    ],
)
def test_options_are_checked_when_the_cell_is_made(options, message):
    with pytest.raises(ValueError, match=message):
        FlashAttention(**options)
