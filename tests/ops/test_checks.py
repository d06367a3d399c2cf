"""Every argument check of glm2_ops is made to fail; the next good call still works."""

import os
import subprocess
import sys

import numpy as np
import pytest

import glm2_ops
from glm2_ops import checks


def int32(*values):
    return np.array(values, np.int32)


def ones(*shape, dtype=np.float16):
    return np.ones(shape, dtype)


def strided(array):
    """Return an equal array that is not C-contiguous."""
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def caches(*shape, dtype=np.float16):
    return {"k_cache": ones(*shape, dtype=dtype), "v_cache": ones(*shape, dtype=dtype)}


def attention_arguments():
    return {
        "q": ones(3, 4, 32),
        **caches(5, 2, 16, 32),
        "block_table": int32([0, 1], [4, -1]),
        "cu_seqlens_q": int32(0, 2, 3),
        "seq_len_kv": int32(17, 16),
    }


def rope_arguments():
    return {
        "qkv": ones(3, 8 * 32),
        "cos": ones(40, 8, dtype=np.float32),
        "sin": ones(40, 8, dtype=np.float32),
        **caches(5, 2, 16, 32),
        "block_table": int32([0, 1], [4, -1]),
        "cu_seqlens_q": int32(0, 2, 3),
        "seq_len_kv": int32(17, 16),
        "num_heads": 4,
        "num_kv_heads": 2,
        "rotary_dim": 16,
    }


CACHE_CASES = [
    ({"k_cache": [1.0]}, TypeError, "k_cache is a list; expected a numpy array"),
    ({"k_cache": ones(5, 2, 16)}, ValueError, r"k_cache has shape \(5, 2, 16\); expected 4 axes"),
    ({"v_cache": None}, TypeError, "v_cache is a NoneType; expected a numpy array"),
    (
        {"v_cache": ones(4, 2, 16, 32)},
        ValueError,
        r"v_cache has shape \(4, 2, 16, 32\); expected \(5, 2, 16, 32\), the shape of k_cache",
    ),
    (
        {"v_cache": ones(5, 2, 16, 32, dtype=np.float32)},
        TypeError,
        "k_cache is float16 and v_cache float32; they must agree",
    ),
    ({"k_cache": strided(ones(5, 2, 16, 32))}, ValueError, "k_cache is not C-contiguous; caches"),
    ({"v_cache": strided(ones(5, 2, 16, 32))}, ValueError, "v_cache is not C-contiguous; caches"),
    (caches(5, 2, 8, 32), ValueError, "page_size is 8; it must be a multiple of 16 from 16 to 256"),
    (caches(5, 2, 20, 32), ValueError, "page_size is 20; it must be a multiple"),
    (caches(5, 2, 272, 32), ValueError, "page_size is 272; it must be a multiple"),
    (caches(5, 2, 16, 32, dtype=np.float64), TypeError, "k_cache has dtype float64; the operators"),
]
INDEX_CASES = [
    ({"block_table": [[0, 1], [4, -1]]}, TypeError, "block_table is a list; expected a numpy arr"),
    (
        {"block_table": np.array([[0, 1], [4, -1]])},
        TypeError,
        "block_table has dtype int64; index arrays are int32",
    ),
    ({"block_table": int32(0, 1)}, ValueError, r"block_table has shape \(2,\); expected 2 axes"),
    (
        {"block_table": strided(int32([0, 1], [4, -1]))},
        ValueError,
        r"block_table is not C-contiguous; pass np.ascontiguousarray\(block_table\)",
    ),
    (
        {"block_table": int32([0, 1])},
        ValueError,
        r"block_table has shape \(1, 2\); expected \(2, 2\), one row per sequence",
    ),
    (
        {"block_table": int32([0, -1], [4, -1])},
        ValueError,
        r"block_table\[0, 1\] is -1, but sequence 0 has 17 tokens .*expected a page id of 0 to 4",
    ),
    ({"block_table": int32([0, 1], [5, -1])}, ValueError, r"block_table\[1, 0\] is 5, but"),
    ({"cu_seqlens_q": np.array([0, 2, 3])}, TypeError, "cu_seqlens_q has dtype int64"),
    ({"cu_seqlens_q": int32([0, 2, 3])}, ValueError, "cu_seqlens_q has .*; expected 1 axes"),
    ({"cu_seqlens_q": strided(int32(0, 2, 3))}, ValueError, "cu_seqlens_q is not C-contiguous"),
    (
        {"cu_seqlens_q": int32(1, 2, 3)},
        ValueError,
        r"cu_seqlens_q is \[1, 2, 3\]; it must start at 0",
    ),
    ({"cu_seqlens_q": int32()}, ValueError, r"cu_seqlens_q is \[\]; it must start at 0"),
    ({"cu_seqlens_q": int32(0, 4, 3)}, ValueError, r"is \[0, 4, 3\]; it must never fall"),
    (
        {"cu_seqlens_q": int32(0, 2, 2)},
        ValueError,
        "cu_seqlens_q ends at 2, but there are 3 tokens; they must agree",
    ),
    (
        {"cu_seqlens_q": int32(0, 3)},
        ValueError,
        r"seq_len_kv has shape \(2,\); expected \(1,\), one per sequence of cu_seqlens_q",
    ),
    ({"seq_len_kv": np.array([17, 16])}, TypeError, "seq_len_kv has dtype int64"),
    ({"seq_len_kv": strided(int32(17, 16))}, ValueError, "seq_len_kv is not C-contiguous"),
    (
        {"seq_len_kv": int32(33, 16)},
        ValueError,
        r"seq_len_kv\[0\] is 33; expected 0 to 32, what 2 pages of 16 in block_table hold",
    ),
    ({"seq_len_kv": int32(17, -1)}, ValueError, r"seq_len_kv\[1\] is -1; expected 0 to 32"),
]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        *CACHE_CASES,
        *INDEX_CASES,
        ({"q": [1]}, TypeError, r"q is a list; expected a numpy array \(T, N, D\)"),
        ({"q": ones(3, 4)}, ValueError, r"q has shape \(3, 4\); expected 3 axes, \(T, N, D\)"),
        (
            {"q": ones(3, 4, 32, dtype=int)},
            TypeError,
            "q has dtype int64; the operators serve float16, bfloat16, float32",
        ),
        (
            caches(5, 2, 16, 32, dtype=np.float32),
            TypeError,
            "q is float16 and k_cache float32; the dtype of k_cache must be that of q, or a 16-bit one",
        ),
        (
            {"q": ones(3, 4, 16)},
            ValueError,
            "k_cache has head_dim 32, but the queries have 16; they must agree",
        ),
        (caches(5, 0, 16, 32), ValueError, "k_cache has 0 KV heads; at least one is needed"),
        (
            {"q": ones(3, 3, 32)},
            ValueError,
            "q has 3 heads and k has 2; num_heads must be a multiple of num_kv_heads",
        ),
        ({"q": ones(3, 0, 32)}, ValueError, "q has 0 heads and k has 2"),
        ({"prefix_len": np.zeros(2)}, TypeError, "prefix_len has dtype float64; index arrays"),
        ({"prefix_len": int32(0)}, ValueError, r"prefix_len has .*; expected \(2,\), one per seq"),
        (
            {"prefix_len": int32(18, 0)},
            ValueError,
            r"prefix_len\[0\] is 18; expected 0 to 17, the keys of sequence 0",
        ),
        ({"prefix_len": int32(0, -1)}, ValueError, r"prefix_len\[1\] is -1; expected 0 to 16"),
        ({"window": 0}, ValueError, "window is 0; expected a positive number of keys, or None"),
        ({"causal": [1]}, TypeError, r"causal is \[1\]; expected True or False"),
        (
            {"q": ones(3, 4, 0), **caches(5, 2, 16, 0)},
            ValueError,
            "head_dim is 0; it must be a multiple of 16",
        ),
        ({"window": 2.5}, TypeError, "window is 2.5; expected an integer"),
        ({"window": True}, ValueError, "window is True; expected a positive"),
        ({"scale": "1"}, TypeError, "scale is '1'; expected a number"),
        ({"window": -5}, ValueError, "window is -5; expected a positive"),
        ({"window": 2**31}, ValueError, "window is 2147483648; expected a positive"),
        ({"scale": float("nan")}, ValueError, "scale is nan; expected a finite float32"),
        ({"scale": 1e39}, ValueError, r"scale is 1e\+39; expected a finite float32"),
        (
            {"q": ones(3, 4, 24), **caches(5, 2, 16, 24)},
            ValueError,
            "head_dim is 24; it must be a multiple of 16 up to 256",
        ),
        (
            {"q": ones(3, 4, 272), **caches(5, 2, 16, 272)},
            ValueError,
            "head_dim is 272; it must be a multiple of 16 up to 256",
        ),
        (
            {"q": ones(3, 258, 32)},
            ValueError,
            "the group size is 129; at most 128 heads may share one KV head",
        ),
        (
            {"q": ones(3, 256, 256), **caches(5, 2, 16, 256)},
            ValueError,
            "num_heads [*] head_dim is 65536; at most 65535",
        ),
    ],
)
def test_flash_attention_refuses(change, error, message):
    want = glm2_ops.flash_attention(**attention_arguments())
    with pytest.raises(error, match=message):
        glm2_ops.flash_attention(**(attention_arguments() | change))
    assert np.array_equal(glm2_ops.flash_attention(**attention_arguments()), want)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        *CACHE_CASES,
        *INDEX_CASES,
        ({"qkv": 3}, TypeError, r"qkv is a int; expected a numpy array \(T, \(N [+] 2G\) D\)"),
        ({"qkv": ones(3, 8, 32)}, ValueError, r"qkv has shape \(3, 8, 32\); expected 2 axes"),
        ({"qkv": ones(3, 256, dtype=int)}, TypeError, "qkv has dtype int64; the operators serve"),
        (
            caches(5, 2, 16, 32, dtype=np.float32),
            TypeError,
            "qkv is float16 and k_cache float32; the dtype of k_cache must be that of qkv",
        ),
        (
            {"qkv": ones(3, 255)},
            ValueError,
            r"expected \(3, 256\), \(num_heads [+] 2 num_kv_heads\) [*] head_dim",
        ),
        (
            {"num_kv_heads": 1},
            ValueError,
            r"k_cache has shape \(5, 2, 16, 32\); expected \(5, 1, 16, 32\), num_kv_heads",
        ),
        ({"num_heads": 3}, ValueError, "q has 3 heads and k has 2; num_heads must be a multiple"),
        ({"num_heads": 0}, ValueError, "q has 0 heads and k has 2"),
        (
            {"rotary_dim": 12},
            ValueError,
            "rotary_dim is 12; it must be a multiple of 8 up to head_dim = 32",
        ),
        ({"rotary_dim": 40}, ValueError, "rotary_dim is 40; it must be"),
        ({"rotary_dim": -8}, ValueError, "rotary_dim is -8; it must be"),
        ({"cos": ones(40)}, ValueError, r"cos has shape \(40,\); expected 2 axes, \(max_position,"),
        ({"sin": [0.0]}, TypeError, "sin is a list; expected a numpy array"),
        ({"cos": ones(40, 8)}, TypeError, "cos has dtype float16; expected float32"),
        (
            {"sin": ones(40, 8, dtype=np.float64)},
            TypeError,
            "sin has dtype float64; expected float32",
        ),
        (
            {"cos": ones(40, 4, dtype=np.float32)},
            ValueError,
            r"cos has shape \(40, 4\); expected \(40, 8\), rotary_dim / 2 columns",
        ),
        (
            {"sin": ones(39, 8, dtype=np.float32)},
            ValueError,
            r"sin has shape \(39, 8\); expected \(40, 8\)",
        ),
        (
            dict.fromkeys(["cos", "sin"], ones(16, 8, dtype=np.float32)),
            ValueError,
            "seq_len_kv reaches 17, but cos and sin have 16 positions; make longer tables",
        ),
        (
            {"seq_len_kv": int32(1, 16)},
            ValueError,
            r"seq_len_kv\[0\] is 1, but sequence 0 has 2 tokens in this call; the length counts",
        ),
        (
            {"block_table": int32([0, 1], [1, -1])},
            ValueError,
            r"block_table gives page 1 to sequences \[0, 1\], and this call writes to it; a page",
        ),
        (
            {"block_table": int32([0, 0], [2, -1]), "seq_len_kv": int32(17, 16)},
            ValueError,
            r"block_table gives page 0 to sequences \[0, 0\], and this call writes to it",
        ),
        (dict.fromkeys(["k_cache", "v_cache"], ones(5, 2, 16, 32)), ValueError, "cache overlap"),
        ({"rotary_dim": 8.0}, TypeError, r"rotary_dim is 8.0; expected an integer"),
        ({"num_heads": None}, TypeError, "num_heads is None; expected an integer"),
        ({"k_cache": read_only(ones(5, 2, 16, 32))}, ValueError, "k_cache is read-only; it is wr"),
        ({"v_cache": read_only(ones(5, 2, 16, 32))}, ValueError, "v_cache is read-only; it is wr"),
        (
            {"qkv": ones(3, 8 * 24), **caches(5, 2, 16, 24)},
            ValueError,
            "head_dim is 24; it must be a multiple of 16 up to 256",
        ),
    ],
)
def test_rope_append_refuses_and_writes_nothing(change, error, message):
    want = glm2_ops.rope_append(**rope_arguments())
    arguments = rope_arguments() | change
    before = [np.asarray(arguments[name]).copy() for name in ("k_cache", "v_cache")]
    with pytest.raises(error, match=message):
        glm2_ops.rope_append(**arguments)
    for name, copy in zip(("k_cache", "v_cache"), before, strict=True):
        assert np.array_equal(arguments[name], copy)
    assert np.array_equal(glm2_ops.rope_append(**rope_arguments()), want)


def rms_norm_arguments():
    return {"x": ones(3, 32), "weight": ones(32), "eps": 1e-5, "residual": ones(3, 32)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": [[1.0]]}, TypeError, r"x is a list; expected a numpy array \(M, H\)"),
        ({"x": ones(32)}, ValueError, r"x has shape \(32,\); expected 2 axes, \(M, H\)"),
        ({"x": ones(3, 32, dtype=np.float64)}, TypeError, "x has dtype float64; the operators"),
        ({"x": ones(3, 0)}, ValueError, "x has 0 columns; rms_norm serves 1 to 11264"),
        ({"x": ones(1, 11265)}, ValueError, "x has 11265 columns; rms_norm serves 1 to 11264"),
        ({"weight": None}, TypeError, "weight is a NoneType; expected a numpy array"),
        ({"weight": ones(1, 32)}, ValueError, r"weight has shape \(1, 32\); expected 1 axes"),
        (
            {"weight": ones(31)},
            ValueError,
            r"weight has shape \(31,\); expected \(32,\), one per column of x",
        ),
        (
            {"weight": ones(32, dtype=np.float32)},
            TypeError,
            "weight is float32 and x float16; expected the same dtype",
        ),
        ({"residual": 1.0}, TypeError, "residual is a float; expected a numpy array"),
        (
            {"residual": ones(1, 32)},
            ValueError,
            r"residual has shape \(1, 32\); expected \(3, 32\), the shape of x",
        ),
        (
            {"residual": ones(3, 32, dtype=np.float32)},
            TypeError,
            "residual is float32 and x float16; expected the same dtype",
        ),
        ({"eps": None}, TypeError, "eps is None; expected a number"),
        ({"eps": True}, TypeError, "eps is True; expected a number"),
        ({"eps": -1e-5}, ValueError, "eps is -1e-05; it is added under a square root, so it must"),
        ({"eps": float("nan")}, ValueError, "eps is nan; expected a finite float32"),
        ({"eps": 1e39}, ValueError, r"eps is 1e\+39; expected a finite float32"),
    ],
)
def test_rms_norm_refuses(change, error, message):
    want = glm2_ops.rms_norm(**rms_norm_arguments())
    with pytest.raises(error, match=message):
        glm2_ops.rms_norm(**(rms_norm_arguments() | change))
    assert np.array_equal(glm2_ops.rms_norm(**rms_norm_arguments()), want)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (None, TypeError, r"x is a NoneType; expected a numpy array \(M, 2F\)"),
        (ones(4), ValueError, r"x has shape \(4,\); expected 2 axes, \(M, 2F\)"),
        (ones(2, 4, dtype=np.int32), TypeError, "x has dtype int32; the operators serve float16"),
        (ones(2, 5), ValueError, "x has 5 columns; expected an even number, gate and value side"),
    ],
)
def test_swiglu_refuses(x, error, message):
    with pytest.raises(error, match=message):
        glm2_ops.swiglu(x)


def test_a_page_that_is_only_read_may_be_shared():
    """Two sequences with one prompt: its pages are whole, and both write after them."""
    arguments = rope_arguments() | {
        "block_table": int32([0, 1], [0, 2]),
        "seq_len_kv": int32(18, 17),
    }
    glm2_ops.rope_append(**arguments)


def test_a_page_that_no_sequence_needs_may_be_anything():
    want = glm2_ops.flash_attention(**attention_arguments())
    arguments = attention_arguments() | {"block_table": int32([0, 1], [4, 99])}
    assert np.array_equal(glm2_ops.flash_attention(**arguments), want)


def test_tables_may_be_empty_where_nothing_rotates():
    table = ones(1, 0, dtype=np.float32)
    glm2_ops.rope_append(**(rope_arguments() | {"cos": table, "sin": table, "rotary_dim": 0}))


def test_check_window_spells_none_as_the_kernels_do():
    assert checks.check_window(None) == 0
    assert checks.check_window(7) == 7


def test_set_num_threads_refuses_none():
    with pytest.raises(ValueError, match="count is 0; expected 1 to 1024 threads"):
        glm2_ops.set_num_threads(0)
    assert glm2_ops.build_info()["threads"] >= 1


def test_machine_peaks_are_those_of_a_processor():
    peaks = glm2_ops.machine_peaks(read_bytes=2**26)
    assert 0.5 < peaks["fma_gflops"] < 1e5
    assert 0.05 < peaks["read_gbps"] < 1e4
    with pytest.raises(ValueError, match="read_bytes is 5; expected 1 MiB"):
        glm2_ops.machine_peaks(read_bytes=5)
    with pytest.raises(MemoryError, match="there is no memory for"):
        glm2_ops.machine_peaks(read_bytes=2**60)


def import_error(code, **environment):
    """Run ``code`` in a fresh interpreter and return what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr


def test_an_unknown_twin_mode_is_refused_at_import():
    stderr = import_error("import glm2_ops", GLM2_TWIN="quick")
    assert (
        "ImportError: GLM2_TWIN is 'quick', but this build has fast and check; unset it" in stderr
    )


def test_a_missing_native_module_is_explained_at_import():
    code = "import sys; sys.modules['glm2_ops._native'] = None; import glm2_ops"
    stderr = import_error(code)
    assert "glm2_ops was built without its native module, or for another machine" in stderr
    assert "reinstall with `pip install --force-reinstall --no-deps .`" in stderr


def test_the_number_of_threads_comes_from_the_environment():
    code = "import glm2_ops; print(glm2_ops.build_info()['threads'])"
    for text, threads in (("3", "3"), (None, str(len(os.sched_getaffinity(0))))):
        env = {name: value for name, value in os.environ.items() if name != "GLM2_NUM_THREADS"}
        if text is not None:
            env["GLM2_NUM_THREADS"] = text
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == threads


@pytest.mark.parametrize("text", ["0", "-1", "many", "1025", "", "2.0"])
def test_an_impossible_number_of_threads_is_refused_at_import(text):
    stderr = import_error("import glm2_ops", GLM2_NUM_THREADS=text)
    assert f"ImportError: GLM2_NUM_THREADS is {text!r}; expected 1 to 1024" in stderr
