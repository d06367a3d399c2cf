"""What the MindSpore cells say to operands that do not fit: never a crash, never a wrong result."""

import numpy as np
import pytest

ms = pytest.importorskip("mindspore", reason="needs MindSpore")

from mindspore import Tensor

from glm2_ops.mindspore import (
    FlashAttention,
    FlashAttentionGrad,
    FlashAttentionVarlen,
    RmsNorm,
    RmsNormResidual,
    RopeAppend,
    Swiglu,
    dynamic,
)

pytestmark = pytest.mark.mindspore


@pytest.fixture(autouse=True, params=["graph", "pynative"])
def mode(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where MindSpore leaves the graph that it could not compile
    ms.set_context(mode=ms.GRAPH_MODE if request.param == "graph" else ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


def floats(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def int32(*values):
    return np.array(values, np.int32)


def varlen():
    return {
        "q": floats(5, 4, 32), "k": floats(7, 2, 32), "v": floats(7, 2, 32),
        "cu_seqlens_q": int32(0, 2, 5), "cu_seqlens_kv": int32(0, 4, 7),
        "prefix_len": int32(0, 3),
    }  # fmt: skip


def grad():
    inputs = varlen()
    return {"do": floats(5, 4, 32), **dict(list(inputs.items())[:3]), "o": floats(5, 4, 32),
            "lse": floats(5, 4), **dict(list(inputs.items())[3:])}  # fmt: skip


def paged():
    return {
        "q": floats(5, 4, 32), "k_cache": floats(6, 2, 16, 32), "v_cache": floats(6, 2, 16, 32),
        "block_table": int32([0, 1], [4, -1]), "cu_seqlens_q": int32(0, 2, 5),
        "seq_len_kv": int32(20, 16), "prefix_len": int32(0, 3),
    }  # fmt: skip


def rope():
    inputs = paged()
    return {"qkv": floats(5, 8 * 32), "cos": floats(40, 8), "sin": floats(40, 8),
            **dict(list(inputs.items())[1:6])}  # fmt: skip


def norm():
    return {"x": floats(3, 8), "weight": floats(8)}


def norm_residual():
    return {**norm(), "residual": floats(3, 8)}


OPERATORS = {
    "flash_attention": (lambda: FlashAttention(scale=0.5), paged),
    "flash_attention_varlen": (lambda: FlashAttentionVarlen(scale=0.5), varlen),
    "flash_attention_grad": (lambda: FlashAttentionGrad(scale=0.5), grad),
    "rope_append": (RopeAppend, rope),
    "rms_norm": (lambda: RmsNorm(eps=1e-5), norm),
    "rms_norm residual": (lambda: RmsNormResidual(eps=1e-5), norm_residual),
    "swiglu": (Swiglu, lambda: {"x": floats(3, 8)}),
}


def call(cell, inputs):
    """Run the cell and wait for its results: an operator may fail after the call has returned."""
    outputs = cell(*[Tensor(x) for x in inputs.values()])
    for output in outputs if isinstance(outputs, tuple) else (outputs,):
        output.asnumpy()


@pytest.mark.parametrize("operator", OPERATORS)
def test_good_operands_pass(operator):
    make, operands = OPERATORS[operator]
    call(make(), operands())


WRONG_DTYPES = [
    ("flash_attention", "q", np.float64, "q has dtype float64; the operators serve float16"),
    ("flash_attention", "q", np.float16, "q is float16 and k_cache float32; the dtype of k_cache"),
    ("flash_attention", "v_cache", np.float16, "v_cache is float16 and k_cache float32; they must"),
    ("flash_attention", "seq_len_kv", np.int64, "seq_len_kv has dtype int64; expected int32"),
    ("flash_attention_varlen", "k", np.float64, "k has dtype float64; the operators serve"),
    ("flash_attention_varlen", "v", np.float16, "v is float16 and k float32; they must agree"),
    ("flash_attention_varlen", "cu_seqlens_q", np.int64, "cu_seqlens_q has dtype int64; expected"),
    ("flash_attention_grad", "do", np.float16, "do is float16 and q float32; they must agree"),
    ("flash_attention_grad", "k", np.float16, "k is float16 and q float32; they must agree"),
    ("flash_attention_grad", "lse", np.float16, "lse has dtype float16; expected float32"),
    ("rope_append", "qkv", np.int32, "qkv has dtype int32; the operators serve"),
    ("rope_append", "cos", np.float16, "cos has dtype float16; expected float32"),
    ("rms_norm", "x", np.float64, "x has dtype float64; the operators serve"),
    ("rms_norm", "weight", np.float16, "weight is float16 and x float32; they must agree"),
    ("rms_norm residual", "residual", np.float16, "residual is float16 and x float32"),
    ("swiglu", "x", np.int32, "x has dtype int32; the operators serve"),
]


@pytest.mark.parametrize(("operator", "name", "dtype", "message"), WRONG_DTYPES)
def test_wrong_dtypes_are_refused(operator, name, dtype, message):
    make, operands = OPERATORS[operator]
    inputs = operands()
    inputs[name] = inputs[name].astype(dtype)
    with pytest.raises(TypeError, match=message):
        call(make(), inputs)


WRONG_SHAPES = [
    ("flash_attention", {"q": floats(5, 3, 32)}, "q has 3 heads and k has 2; num_heads must be a"),
    ("flash_attention", {"q": floats(5, 4, 16)}, r"k_cache has shape \(6, 2, 16, 32\); expected"),
    ("flash_attention", {"v_cache": floats(6, 1, 16, 32)}, r"v_cache has shape .* with G = 2"),
    ("flash_attention", {"seq_len_kv": int32(1)}, r"seq_len_kv has shape \(1\); .* with B = 2"),
    ("flash_attention", {"q": floats(5, 128)}, r"q has shape \(5, 128\); expected \(T, N, D\)"),
    ("flash_attention_varlen", {"q": floats(5, 3, 32)}, "q has 3 heads and k has 2; num_heads"),
    ("flash_attention_varlen", {"k": floats(7, 0, 32), "v": floats(7, 0, 32)}, "and k has 0"),
    ("flash_attention_varlen", {"k": floats(7, 2, 16)}, r"k has shape .* with D = 32"),
    ("flash_attention_varlen", {"v": floats(6, 2, 32)}, r"v has shape .* with K = 7"),
    ("flash_attention_varlen", {"cu_seqlens_kv": int32(0, 7)}, r"cu_seqlens_kv .* with B = 2"),
    ("flash_attention_varlen", {"cu_seqlens_q": int32()}, r"cu_seqlens_q has shape .* is empty"),
    (
        "flash_attention_varlen",
        {"q": floats(5, 4, 24), "k": floats(7, 2, 24), "v": floats(7, 2, 24)},
        "head_dim is 24; it must be a multiple of 16 up to 256",
    ),
    ("flash_attention_grad", {"do": floats(4, 4, 32)}, r"q has shape .* with T = 4"),
    ("flash_attention_grad", {"lse": floats(5, 2)}, r"lse has shape \(5, 2\); .* with N = 4"),
    ("flash_attention_grad", {"o": floats(5, 4)}, r"o has shape \(5, 4\); expected \(T, N, D\)"),
    ("rope_append", {"qkv": floats(5, 100)}, "qkv has 100 columns and k_cache 2 heads of 32"),
    ("rope_append", {"qkv": floats(5, 7 * 32)}, "q has 3 heads and k has 2"),
    ("rope_append", {"sin": floats(40, 4)}, r"sin has shape \(40, 4\); .* with R = 8"),
    ("rms_norm", {"weight": floats(7)}, r"weight has shape \(7\); expected \(H\) with H = 8"),
    ("rms_norm", {"x": floats(3, 0), "weight": floats(0)}, "x has 0 columns; rms_norm serves 1"),
    ("rms_norm residual", {"residual": floats(2, 8)}, r"residual has shape .* with M = 3"),
    ("swiglu", {"x": floats(3, 7)}, "x has 7 columns; expected an even number"),
    ("swiglu", {"x": floats(7)}, r"x has shape \(7\); expected \(M, C\)"),
]


@pytest.mark.parametrize(("operator", "change", "message"), WRONG_SHAPES)
def test_wrong_shapes_are_refused(operator, change, message):
    make, operands = OPERATORS[operator]
    with pytest.raises(RuntimeError, match=message):
        call(make(), {**operands(), **change})


WRONG_VALUES = [
    ("flash_attention", {"cu_seqlens_q": int32(0, 2, 6)}, "ends at 6, but there are 5 tokens"),
    ("flash_attention", {"seq_len_kv": int32(33, 16)}, r"seq_len_kv\[0\] is 33; expected 0 to 32"),
    ("flash_attention", {"seq_len_kv": int32(-1, 16)}, r"seq_len_kv\[0\] is -1; expected 0 to 32"),
    ("flash_attention", {"block_table": int32([0, 6], [4, -1])}, r"block_table\[0, 1\] is 6, but"),
    ("flash_attention", {"seq_len_kv": int32(20, 17)}, r"block_table\[1, 1\] is -1, but sequence"),
    ("flash_attention", {"prefix_len": int32(0, 17)}, r"prefix_len\[1\] is 17; expected 0 to 16"),
    ("flash_attention_varlen", {"cu_seqlens_q": int32(1, 2, 5)}, r"\[0\] is 1; it must start at"),
    ("flash_attention_varlen", {"cu_seqlens_q": int32(0, 6, 5)}, r"\[2\] is 5 after 6; it must ne"),
    ("flash_attention_varlen", {"cu_seqlens_kv": int32(0, 4, 9)}, "cu_seqlens_kv ends at 9, but"),
    ("flash_attention_varlen", {"prefix_len": int32(0, 4)}, r"prefix_len\[1\] is 4; expected 0 to"),
    ("flash_attention_grad", {"cu_seqlens_q": int32(0, 2, 4)}, "cu_seqlens_q ends at 4, but"),
    ("flash_attention_grad", {"cu_seqlens_kv": int32(0, 8, 7)}, r"\[2\] is 7 after 8; it must"),
    ("flash_attention_grad", {"prefix_len": int32(-1, 0)}, r"prefix_len\[0\] is -1; expected 0"),
    ("rope_append", {"seq_len_kv": int32(1, 16)}, r"seq_len_kv\[0\] is 1, but sequence 0 has 2"),
    ("rope_append", {"cos": floats(19, 8), "sin": floats(19, 8)}, "but cos and sin have 19 posit"),
    ("rope_append", {"block_table": int32([0, 9], [4, -1])}, r"block_table\[0, 1\] is 9, but"),
    ("rope_append", {"block_table": int32([0, 1], [1, -1])}, "block_table has page 1 in 2 places"),
]


@pytest.mark.parametrize("mode", ["pynative"], indirect=True)  # 3 s each in graph mode, below
@pytest.mark.parametrize(("operator", "change", "message"), WRONG_VALUES)
def test_wrong_values_are_refused(operator, change, message):
    make, operands = OPERATORS[operator]
    with pytest.raises(RuntimeError, match=message):
        call(make(), {**operands(), **change})


@pytest.mark.parametrize("mode", ["graph"], indirect=True)
def test_a_graph_refuses_wrong_values():
    cell = FlashAttentionVarlen(scale=0.5)
    call(cell, varlen())
    with pytest.raises(RuntimeError, match="cu_seqlens_q ends at 6, but there are 5 tokens"):
        call(cell, {**varlen(), "cu_seqlens_q": int32(0, 2, 6)})


def test_a_shape_that_a_dynamic_graph_meets_later_is_refused():
    """Head counts that a graph learns at run time alone."""
    cell = FlashAttentionVarlen(scale=0.5)
    any_heads = dynamic(ms.float32, None, None, 32)
    cell.set_inputs(any_heads, any_heads, any_heads, *[dynamic(ms.int32, None)] * 3)
    call(cell, varlen())
    with pytest.raises(RuntimeError, match="q has 3 heads and k has 2"):
        call(cell, {**varlen(), "q": floats(5, 3, 32)})


def test_keys_of_another_dtype_have_no_gradient():
    """The pass forward serves 16-bit keys under a float32 query; the pass backward does not."""
    inputs = varlen()
    inputs["k"], inputs["v"] = (inputs[name].astype(np.float16) for name in "kv")
    cell = FlashAttentionVarlen(scale=0.5)
    call(cell, inputs)
    tensors = [Tensor(x) for x in inputs.values()]
    with pytest.raises(TypeError, match="k is float16 and q float32; they must agree"):
        ms.grad(cell)(*tensors)
