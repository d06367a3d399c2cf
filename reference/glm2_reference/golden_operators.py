"""Golden cases of the operators: rotary embedding, attention, the paged cache.

An array is named ``<case>.in.<name>`` or ``<case>.out.<name>``. In ``out``, ``golden_<name>`` is the
float64 result on exactly upcast inputs and ``plain_<name>`` the formula with the operators' rounding
points: the last two arguments of `glm2_reference.testing.assert_accurate`. Inputs are drawn and made
with operations that IEEE 754 rounds one way only, so that they are the same bits on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from glm2_reference import testing
from glm2_reference.attention import attention
from glm2_reference.checks import FloatArray, FloatDType
from glm2_reference.flash_attention import flash_attention
from glm2_reference.kv_cache import rope_append
from glm2_reference.rope import apply_rope, rope_table

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

DTYPES: dict[str, FloatDType] = {"float16": np.float16, "float32": np.float32}
# The dtypes of q and of the cache that operators serve.
_CACHE_DTYPES: dict[str, tuple[FloatDType, FloatDType]] = {
    "float16": (np.float16, np.float16),
    "float32_float16_cache": (np.float32, np.float16),
    "float32": (np.float32, np.float32),
}


def case(name: str, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Arrays:
    """Name the arrays of one case.

    Parameters
    ----------
    name : str
    inputs, outputs : mapping of str to array
        What is no array becomes one.

    Returns
    -------
    arrays : dict of str to array
        ``<name>.in.<key>`` of the inputs, then ``<name>.out.<key>`` of the outputs.
    """
    named = {f"{name}.in.{key}": np.asarray(value) for key, value in inputs.items()}
    return named | {f"{name}.out.{key}": np.asarray(value) for key, value in outputs.items()}


def rope_arrays(rng: np.random.Generator) -> Arrays:
    """Make the tables of both long-context modes, and rotate by them."""
    arrays: Arrays = {}
    # Few rows: an angle carries the rounding of a power, times its position.
    table = {"max_position": 32, "rotary_dim": 8}
    modes = {
        "plain": {"base": 10000.0, "position_scale": 1.0},
        "base_scaled": {"base": 10000.0 * 50, "position_scale": 1.0},
        "position_scaled": {"base": 10000.0, "position_scale": 16.0},
    }
    for name, scaling in modes.items():
        options: dict[str, Any] = table | scaling
        x = rng.standard_normal((6, 3, 16)).astype(np.float32)
        positions = rng.permutation(32)[:6]
        cos, sin = rope_table(**options)
        golden_cos, golden_sin = rope_table(**options, dtype=np.float64)
        outputs = {"cos": cos, "sin": sin, "golden_cos": golden_cos, "golden_sin": golden_sin}
        for dtype_name, dtype in DTYPES.items():
            rounded = x.astype(dtype)
            outputs[f"rotated_{dtype_name}"] = apply_rope(rounded, cos, sin, positions)
            outputs[f"golden_rotated_{dtype_name}"] = apply_rope(
                rounded.astype(np.float64), golden_cos, golden_sin, positions
            )
        arrays |= case(name, options | {"x": x, "positions": positions}, outputs)
    return arrays


def attention_arrays(rng: np.random.Generator) -> Arrays:
    """Attend densely: three ways to share K/V heads, four masks."""
    arrays: Arrays = {}
    masks: dict[str, dict[str, Any]] = {
        "causal": {"causal": True},
        "bidirectional": {"causal": False},
        "prefix": {"causal": True, "prefix_len": 14},
        "window": {"causal": True, "window": 3},
    }
    for name, num_kv_heads in {"mha": 4, "gqa": 2, "mqa": 1}.items():
        q, k, v = testing.random_qkv(
            rng, seq_len_q=6, seq_len_kv=17, num_heads=4, num_kv_heads=num_kv_heads,
            dtype=np.float16,
        )  # fmt: skip
        outputs: dict[str, FloatArray] = {}
        for mask, options in masks.items():
            golden, golden_lse = attention(*testing.upcast(q, k, v), **options)
            o, lse = attention(q, k, v, **options)
            plain, _ = attention(q, k, v, round_dtype=np.float16, **options)
            outputs |= {f"{mask}_o": o, f"{mask}_plain_o": plain, f"{mask}_golden_o": golden}
            outputs |= {f"{mask}_lse": lse, f"{mask}_golden_lse": golden_lse}
        arrays |= case(name, {"q": q, "k": k, "v": v, "options": json.dumps(masks)}, outputs)
    return arrays


def flash_attention_arrays(rng: np.random.Generator) -> Arrays:
    """Attend over a ragged batch and a paged cache that holds NaN where no token is."""
    arrays: Arrays = {}
    for name, (dtype, kv_dtype) in _CACHE_DTYPES.items():
        problem = testing.random_ragged(  # without queries, without keys, past a page, one decode
            rng, seq_lens_q=[6, 0, 2, 8, 1], seq_lens_kv=[6, 5, 0, 20, 17], num_heads=6,
            num_kv_heads=2, dtype=dtype, kv_dtype=kv_dtype,
        )  # fmt: skip
        # No output near 0: there one relative error would outweigh the other thousand.
        problem.v[:] += 4
        prefix_len = np.array([3, 5, 0, 0, 2], np.int32)
        options: dict[str, Any] = {"causal": True, "window": 6 if dtype != kv_dtype else None}
        block_table, num_pages = testing.random_block_table(
            rng, problem.seq_len_kv, page_size=16, spare_pages=1
        )
        k_cache, v_cache = (
            testing.paged_from_tnd(
                x, problem.cu_seqlens_kv, block_table, num_pages=num_pages, page_size=16
            )
            for x in (problem.k, problem.v)
        )
        operands = {
            "q": problem.q, "k_cache": k_cache, "v_cache": v_cache, "block_table": block_table,
            "cu_seqlens_q": problem.cu_seqlens_q, "seq_len_kv": problem.seq_len_kv,
        }  # fmt: skip
        golden, golden_lse = testing.ragged_attention(
            problem, prefix_len=prefix_len, dtype=np.float64, **options
        )
        plain, _ = testing.ragged_attention(
            problem, prefix_len=prefix_len, round_dtype=kv_dtype, **options
        )
        o, lse = flash_attention(
            *operands.values(), prefix_len=prefix_len, return_lse=True, **options
        )
        outputs = {
            "o": o, "plain_o": plain, "golden_o": golden, "lse": lse, "golden_lse": golden_lse,
        }  # fmt: skip
        inputs = operands | {"prefix_len": prefix_len, "options": json.dumps(options)}
        arrays |= case(name, inputs, outputs)
    return arrays


def rope_append_arrays(rng: np.random.Generator) -> Arrays:
    """Rotate and append to a paged cache whose other slots must not move."""
    arrays: Arrays = {}
    sizes = {"num_heads": 4, "num_kv_heads": 1, "rotary_dim": 8}
    for name, (dtype, kv_dtype) in _CACHE_DTYPES.items():
        cu_seqlens_q = testing.cu_seqlens([5, 0, 1, 4])
        seq_len_kv = np.array([19, 3, 1, 16], np.int32)
        block_table, num_pages = testing.random_block_table(
            rng, seq_len_kv, page_size=16, spare_pages=1
        )
        # Points of the unit circle by division: cos and sin differ between machines.
        t = rng.standard_normal((32, 4)).astype(np.float32)
        cos, sin = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
        qkv = rng.standard_normal((10, 96)).astype(dtype)
        k_cache, v_cache = (
            rng.standard_normal((num_pages, 1, 16, 16)).astype(kv_dtype) for _ in range(2)
        )
        inputs = {
            "qkv": qkv, "cos": cos, "sin": sin, "k_cache": k_cache.copy(),
            "v_cache": v_cache.copy(), "block_table": block_table, "cu_seqlens_q": cu_seqlens_q,
            "seq_len_kv": seq_len_kv, "sizes": json.dumps(sizes),
        }  # fmt: skip
        q = rope_append(
            qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, **sizes
        )
        positions = np.array([14, 15, 16, 17, 18, 0, 12, 13, 14, 15])
        heads = qkv.astype(np.float64).reshape(10, 6, 16)
        golden = apply_rope(heads, cos, sin, positions)
        outputs = {"q": q, "k_cache": k_cache, "v_cache": v_cache}
        outputs |= {"golden_q": golden[:, :4], "golden_k": golden[:, 4:5]}
        arrays |= case(name, inputs, outputs)
    return arrays
