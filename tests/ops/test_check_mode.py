"""Check mode: real kernels are clean over a fixed list of shapes, and its numbers are fast mode's."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

import glm2_ops
from glm2_ops.check_mode import OPERATORS
from glm2_reference.testing import cu_seqlens, paged_from_tnd, random_block_table, random_ragged

HALF, FLOAT, BFLOAT16 = np.float16, np.float32, ml_dtypes.bfloat16


def attention_case(lens_q, lens_kv, heads, dim, page_size, dtype, kv_dtype=None, **options):
    """Return what makes the operands of flash_attention."""
    prefix = options.pop("prefix_len", None)

    def make(rng):
        p = random_ragged(
            rng, seq_lens_q=lens_q, seq_lens_kv=lens_kv, num_heads=heads[0], num_kv_heads=heads[1],
            head_dim=dim, dtype=dtype, kv_dtype=kv_dtype or dtype,
        )  # fmt: skip
        table, pages = random_block_table(rng, p.seq_len_kv, page_size=page_size)
        caches = [
            paged_from_tnd(
                x, p.cu_seqlens_kv, table, num_pages=pages, page_size=page_size, fill=0.0
            )
            for x in (p.k, p.v)
        ]
        extra = {} if prefix is None else {"prefix_len": np.array(prefix, np.int32)}
        operands = (p.q, *caches, table, p.cu_seqlens_q, p.seq_len_kv)
        return operands, {**options, **extra}

    return "flash_attention", make


def varlen_case(lens_q, lens_kv, heads, dim, dtype, **options):
    """Return what makes the operands of flash_attention_varlen."""

    def make(rng):
        p = random_ragged(
            rng, seq_lens_q=lens_q, seq_lens_kv=lens_kv, num_heads=heads[0], num_kv_heads=heads[1],
            head_dim=dim, dtype=dtype,
        )  # fmt: skip
        return (p.q, p.k, p.v, p.cu_seqlens_q, p.cu_seqlens_kv), options

    return "flash_attention_varlen", make


def grad_case(lens_q, lens_kv, heads, dim, dtype, **options):
    """Return what makes the operands of flash_attention_grad, those of the forward among them."""
    _, forward = varlen_case(lens_q, lens_kv, heads, dim, dtype, return_lse=True, **options)

    def make(rng):
        (q, k, v, *offsets), forward_options = forward(rng)
        o, lse = glm2_ops.flash_attention_varlen(q, k, v, *offsets, **forward_options)
        do = rng.standard_normal(q.shape).astype(dtype)
        return (do, q, k, v, o, lse, *offsets), options

    return "flash_attention_grad", make


def rope_case(lens_q, lens_kv, heads, dim, rotary_dim, page_size, dtype, kv_dtype=None):
    """Return what makes the operands of rope_append."""

    def make(rng):
        num_heads, num_kv_heads = heads
        seq_len_kv = np.array(lens_kv, np.int32)
        table, pages = random_block_table(rng, seq_len_kv, page_size=page_size)
        shape = (pages, num_kv_heads, page_size, dim)
        caches = [rng.standard_normal(shape).astype(kv_dtype or dtype) for _ in range(2)]
        width = (num_heads + 2 * num_kv_heads) * dim
        qkv = rng.standard_normal((sum(lens_q), width)).astype(dtype)
        angles = rng.standard_normal((max(lens_kv), rotary_dim // 2))
        cos, sin = np.cos(angles).astype(FLOAT), np.sin(angles).astype(FLOAT)
        operands = (qkv, cos, sin, *caches, table, cu_seqlens(lens_q), seq_len_kv)
        return operands, {
            "num_heads": num_heads, "num_kv_heads": num_kv_heads, "rotary_dim": rotary_dim
        }  # fmt: skip

    return "rope_append", make


def rms_case(rows, hidden, dtype, *, residual=False):
    """Return what makes the operands of rms_norm."""

    def make(rng):
        x = rng.standard_normal((rows, hidden)).astype(dtype)
        weight = rng.standard_normal(hidden).astype(dtype)
        options = {"residual": x[::-1].copy()} if residual else {}
        return (x, weight), {"eps": 1e-5, **options}

    return "rms_norm", make


def swiglu_case(rows, width, dtype):
    """Return what makes the operand of swiglu."""
    return "swiglu", lambda rng: ((rng.standard_normal((rows, 2 * width)).astype(dtype),), {})


# Tiles, page edges, tails, empty sequences, parts of keys, dtypes, roles without rows.
CASES = [
    attention_case([64], [64], (8, 2), 64, 64, HALF, return_lse=True),
    attention_case([1], [4096], (32, 2), 128, 128, HALF),
    attention_case([1, 1], [1, 1500], (32, 2), 128, 128, HALF, return_lse=True),
    attention_case([7, 0, 20], [300, 15, 40], (32, 2), 128, 128, HALF),
    attention_case([300], [300], (32, 2), 128, 128, HALF),
    attention_case([5], [700], (4, 4), 64, 16, FLOAT, HALF, return_lse=True),
    attention_case([37, 0, 130], [50, 7, 131], (12, 4), 80, 48, FLOAT, HALF),
    attention_case([37, 0, 130], [50, 7, 131], (12, 4), 80, 48, FLOAT, return_lse=True),
    attention_case([7, 129], [500, 333], (6, 6), 256, 16, HALF, window=100),
    attention_case([7, 60], [400, 133], (6, 1), 144, 16, FLOAT, window=100, causal=False),
    attention_case([20], [20], (128, 1), 16, 16, BFLOAT16, return_lse=True),
    attention_case([9, 3], [9, 2000], (16, 1), 32, 64, BFLOAT16, prefix_len=[4, 100]),
    attention_case([3, 8], [1, 2], (4, 2), 32, 16, FLOAT, BFLOAT16, return_lse=True),
    attention_case([1] * 9, [17, 16, 15, 1, 33, 64, 100, 129, 257], (32, 2), 128, 16, HALF),
    varlen_case([64], [64], (4, 2), 64, HALF, return_lse=True),
    varlen_case([5, 0, 130], [70, 3, 130], (8, 2), 128, FLOAT),
    varlen_case([5, 17], [1030, 17], (2, 2), 32, BFLOAT16, causal=False),
    grad_case([64], [64], (4, 2), 64, HALF),
    grad_case([5, 0, 130], [70, 3, 130], (8, 2), 128, HALF),
    grad_case([5, 0, 130], [70, 3, 130], (4, 4), 80, FLOAT),
    grad_case([50, 20], [300, 20], (6, 1), 64, FLOAT, window=30),
    grad_case([1, 2, 3], [4, 300, 3], (32, 2), 128, BFLOAT16),
    grad_case([33], [290], (5, 5), 16, HALF, causal=False),
    grad_case([0, 9], [5, 9], (16, 1), 32, HALF),
    rope_case([7, 1, 20], [30, 150, 40], (32, 2), 128, 64, 128, HALF),
    rope_case([7, 1, 20], [30, 150, 40], (4, 4), 64, 0, 16, FLOAT, HALF),
    rope_case([70], [70], (6, 3), 80, 40, 16, FLOAT),
    rope_case([1] * 5, [1, 16, 17, 33, 64], (32, 2), 128, 64, 16, BFLOAT16),
    rope_case([100], [100], (2, 2), 256, 256, 16, FLOAT, BFLOAT16),
    rms_case(1, 4096, HALF),
    rms_case(37, 4096, HALF, residual=True),
    rms_case(70, 1000, FLOAT, residual=True),
    rms_case(5, 64, BFLOAT16, residual=True),
    rms_case(3, 100, HALF),
    rms_case(130, 100, FLOAT),
    swiglu_case(1, 13696, HALF),
    swiglu_case(37, 13696, HALF),
    swiglu_case(3, 100, FLOAT),
    swiglu_case(300, 33, HALF),
    swiglu_case(70, 1000, BFLOAT16),
]
IDS = [f"{index}-{name}" for index, (name, _) in enumerate(CASES)]


def bits(result):
    """Return the bytes of an operator's result."""
    parts = result if isinstance(result, tuple) else (result,)
    return [np.ascontiguousarray(part).tobytes() for part in parts]


@pytest.mark.parametrize(("name", "make"), CASES, ids=IDS)
def test_real_kernels_are_clean(name, make):
    operands, options = make(np.random.default_rng(1))
    for cores in (1, 4):
        report = glm2_ops.check(name, *operands, cores=cores, seed=cores, **options)
        assert [str(finding) for finding in report.errors] == []
        assert report.outputs is not None


@pytest.mark.parametrize(("name", "make"), CASES, ids=IDS)
def test_numbers_are_those_of_fast_mode(name, make):
    # The fast twin has larger memories than hardware, so other tiles, and sums depend on tiles.
    operands, options = make(np.random.default_rng(1))
    report = glm2_ops.check(name, *operands, schedules=0, hardware_tiling=False, **options)
    checked = [np.copy(x) for x in operands]  # rope_append writes its caches
    operands, options = make(np.random.default_rng(1))
    assert bits(report.outputs) == bits(OPERATORS[name](*operands, **options))
    assert [x.tobytes() for x in checked] == [x.tobytes() for x in operands]


def test_check_takes_functions_and_refuses_what_is_none():
    x = np.ones((3, 64), np.float32)
    report = glm2_ops.check(glm2_ops.swiglu, x)
    assert report.errors == []
    np.testing.assert_array_equal(report.outputs, glm2_ops.swiglu(x))
    with pytest.raises(ValueError, match="op is 'softmax'; expected one of flash_attention"):
        glm2_ops.check("softmax", x)
    with pytest.raises(ValueError, match="cores is 0; expected 1 to 1024"):
        glm2_ops.check("swiglu", x, cores=0)
    with pytest.raises(ValueError, match="schedules is -1; expected 0 to"):
        glm2_ops.check("swiglu", x, schedules=-1)
    with pytest.raises(TypeError, match="float64"):
        glm2_ops.check("swiglu", x.astype(np.float64))


def test_findings_are_objects_with_everything_in_them():
    # One float a row and core: neighbours in 32 bytes, which is a warning for DataCopyPad.
    name, make = attention_case([8], [8], (4, 4), 16, 16, HALF, return_lse=True)
    operands, options = make(np.random.default_rng(0))
    report = glm2_ops.check(name, *operands, cores=4, **options)
    (finding,) = [x for x in report.findings if x.rule == "gm_granule"]
    assert (finding.severity, finding.kernel, finding.tensor) == (
        "warning", "flash_attention", "lse",
    )  # fmt: skip
    assert finding.file == "ascend_ops/flash_attention/op_kernel/flash_attention_output.h"
    assert finding.line > 0
    assert finding.call == "DataCopyPad"
    assert finding.end - finding.begin == 32
    assert finding.count > 1
    assert finding.file in str(finding)
    assert "wanted: one writer" in str(finding)
    assert str(finding) in str(report)


def run(code, **environment):
    """Run ``code`` in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip


SWIGLU = (
    "import numpy as np, glm2_ops\n"
    "x = np.linspace(-1, 1, 200, dtype=np.float32).reshape(1, 200)\n"
    "print(glm2_ops.build_info()['twin'], glm2_ops.swiglu(x).tobytes().hex()[:80])\n"
)


def test_one_environment_variable_checks_a_whole_process():
    fast, checked = run(SWIGLU), run(SWIGLU, GLM2_TWIN="check")
    assert fast.stdout.split()[0] == "fast"
    assert checked.stdout.split() == ["check", fast.stdout.split()[1]]
    assert "glm2 check mode: 0 errors" in checked.stderr
    assert "glm2 check mode" not in fast.stderr
    code = SWIGLU + "print(glm2_ops.counters()[0]['kernel'], len(glm2_ops.findings()) > 0)\n"
    assert run(code, GLM2_TWIN="check").stdout.splitlines()[1] == "swiglu True"
    code = "from glm2_ops import library_path; print(library_path().name)"
    assert run(code, GLM2_TWIN="check").stdout.strip() == "libglm2_ops_check.so"


def test_fast_mode_neither_finds_nor_counts():
    for function in (glm2_ops.findings, glm2_ops.counters):
        with pytest.raises(RuntimeError, match=r"GLM2_TWIN=check; or use glm2_ops\.check"):
            function()
