"""``glm2 doctor``: is everything there, and do the operators compute what the reference says.

With ``--tiling``: how an operator cuts a call into tiles.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from glm2.commands import _tiling
from glm2.commands._checkpoint import checkpoint_checks
from glm2.commands._environment import Check, environment_checks, guarded, simd_check

if TYPE_CHECKING:
    from glm2_reference.testing import RaggedProblem

FloatArray = npt.NDArray[np.floating[Any]]

_NUM_HEADS, _NUM_KV_HEADS, _HEAD_DIM, _PAGE_SIZE = 16, 2, 128, 16
# name: (lengths of queries, lengths of keys), page edges among them.
# The accuracy rule compares statistics of rounding errors, which need this many elements to settle.
_PROBLEMS = {
    "prefill": ([37] * 10, [37] * 10),
    "decode": ([1] * 400, [48, 17, 16, 15, 1, 33, 64, 100] * 50),
    "ragged": ([5, 0, 16, 1] * 18, [21, 9, 16, 33] * 18),
}
_MARKS = {"ok": "ok  ", "info": "    ", "fail": "FAIL"}


def command(
    model: Annotated[
        str | None,
        typer.Argument(help="Checkpoint folder, hub id or short name to look at as well."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    tiling: _tiling.Operator = None,
    heads: _tiling.Heads = None,
    kv_heads: _tiling.KvHeads = None,
    head_dim: _tiling.HeadDim = None,
    rotary_dim: _tiling.RotaryDim = None,
    page_size: _tiling.PageSize = None,
    batch: _tiling.Batch = None,
    seq_len_q: _tiling.SeqLenQ = None,
    seq_len_kv: _tiling.SeqLenKv = None,
    hidden_size: _tiling.HiddenSize = None,
    ffn_hidden_size: _tiling.FfnHiddenSize = None,
    in_features: _tiling.InFeatures = None,
    out_features: _tiling.OutFeatures = None,
    weight_format: _tiling.WeightFormat = None,
    activation_bits: _tiling.ActivationBits = None,
    dtype: _tiling.Dtype = None,
    cache_dtype: _tiling.CacheDtype = None,
    residual: _tiling.Residual = None,
) -> None:
    """Check the installation, and a checkpoint if one is named; or explain an operator's tiling.

    Exit code 1 if something that is needed is broken, the checkpoint does not fit this machine, or
    the tiling refuses the shape.
    """
    options = {
        "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "rotary_dim": rotary_dim,
        "page_size": page_size, "batch": batch, "seq_len_q": seq_len_q, "seq_len_kv": seq_len_kv,
        "hidden_size": hidden_size, "ffn_hidden_size": ffn_hidden_size,
        "in_features": in_features, "out_features": out_features, "weight_format": weight_format,
        "activation_bits": activation_bits, "dtype": dtype,
        "cache_dtype": cache_dtype, "residual": residual,
    }  # fmt: skip
    given = {name: value for name, value in options.items() if value is not None}
    if tiling is None:
        _tiling.refuse_shape_without_operator(given)
        _check_installation(model, as_json=as_json)
        return
    if model is not None:
        msg = f"--tiling looks at an operator, and {model} is a checkpoint; give one of them"
        raise typer.BadParameter(msg)
    from glm2_reference.config import CHATGLM2_6B

    _tiling.print_tiling(tiling, given, CHATGLM2_6B, as_json=as_json)


def _check_installation(model: str | None, *, as_json: bool) -> None:
    """Run every check and print what it found."""
    with contextlib.redirect_stdout(sys.stderr):  # imported packages may print
        checks = [*environment_checks(), *_operator_checks()]
        if model is not None:
            checks += checkpoint_checks(model)
    failed = any(check.state == "fail" for check in checks)
    if as_json:
        listed = [dataclasses.asdict(check) for check in checks]
        typer.echo(json.dumps({"ok": not failed, "checks": listed}, indent=2))
    else:
        for check in checks:
            typer.echo(f"{_MARKS[check.state]} {check.name:<14} {check.detail}")
        typer.echo("Something is broken: see FAIL above." if failed else "All is well.")
    if failed:
        raise typer.Exit(1)


def _operator_checks() -> list[Check]:
    """Load the operators and test them; on a processor that lacks their SIMD they must not run."""
    operator = guarded("operators", _operator)
    if operator.state == "fail":
        return [operator]
    simd = guarded("simd", _simd)
    if simd.state == "fail":
        return [operator, simd]
    problems = [
        guarded(f"{name} {dtype}", functools.partial(_attention, name, dtype))
        for name in _PROBLEMS
        for dtype in ("float32", "float16")
    ]
    appends = [
        guarded(f"rope {dtype}", functools.partial(_rope_append, dtype))
        for dtype in ("float32", "float16")
    ]
    return [operator, simd, *problems, *appends]


def _operator() -> Check:
    """Tell how the operators were built."""
    import glm2_ops

    build = ", ".join(f"{key} {value}" for key, value in glm2_ops.build_info().items())
    return Check("operators", "ok", build)


def _simd() -> Check:
    """Compare their SIMD level with the processor."""
    import glm2_ops

    return simd_check(str(glm2_ops.build_info()["simd"]))


def _problem(name: str, dtype: str) -> RaggedProblem:
    """Draw the same random problem each time."""
    from glm2_reference.testing import random_ragged

    seq_lens_q, seq_lens_kv = _PROBLEMS[name]
    return random_ragged(
        np.random.default_rng(0),
        seq_lens_q=seq_lens_q,
        seq_lens_kv=seq_lens_kv,
        num_heads=_NUM_HEADS,
        num_kv_heads=_NUM_KV_HEADS,
        head_dim=_HEAD_DIM,
        dtype=np.float32 if dtype == "float32" else np.float16,
    )


def _attention(name: str, dtype: str) -> Check:
    """Compare flash_attention with dense attention in float64."""
    import glm2_ops
    from glm2_reference import testing

    problem = _problem(name, dtype)
    table, num_pages = testing.random_block_table(
        np.random.default_rng(1), problem.seq_len_kv, page_size=_PAGE_SIZE
    )
    k_cache, v_cache = (
        testing.paged_from_tnd(
            x, problem.cu_seqlens_kv, table, num_pages=num_pages, page_size=_PAGE_SIZE
        )
        for x in (problem.k, problem.v)
    )
    got = glm2_ops.flash_attention(
        problem.q, k_cache, v_cache, table, problem.cu_seqlens_q, problem.seq_len_kv
    )
    assert isinstance(got, np.ndarray)  # no lse was asked for
    golden, _ = testing.ragged_attention(problem, dtype=np.float64)
    plain, _ = testing.ragged_attention(problem, round_dtype=problem.k.dtype)
    testing.assert_accurate(got, plain, golden, "L1")
    return Check(f"{name} {dtype}", "ok", "flash_attention agrees with the reference")


def _rope_append(dtype: str) -> Check:
    """Compare rope_append with the reference in float64: rotated q, and what the cache holds."""
    import glm2_ops
    from glm2_reference import rope_append, rope_table, testing

    problem = _problem("ragged", dtype)
    table, num_pages = testing.random_block_table(
        np.random.default_rng(1), problem.seq_len_kv, page_size=_PAGE_SIZE
    )
    width = (_NUM_HEADS + 2 * _NUM_KV_HEADS) * _HEAD_DIM
    num_tokens = int(problem.cu_seqlens_q[-1])
    qkv = np.random.default_rng(2).standard_normal((num_tokens, width)).astype(dtype)
    cos, sin = rope_table(max_position=64, rotary_dim=_HEAD_DIM // 2, base=10000.0)

    def run(function: Callable[..., FloatArray], wanted: str) -> FloatArray:
        caches = [
            np.zeros((num_pages, _NUM_KV_HEADS, _PAGE_SIZE, _HEAD_DIM), wanted) for _ in range(2)
        ]
        q = function(
            qkv.astype(wanted), cos, sin, *caches, table, problem.cu_seqlens_q, problem.seq_len_kv,
            num_heads=_NUM_HEADS, num_kv_heads=_NUM_KV_HEADS, rotary_dim=_HEAD_DIM // 2,
        )  # fmt: skip
        return np.concatenate([x.reshape(-1) for x in (q, *caches)])

    testing.assert_accurate(
        run(glm2_ops.rope_append, dtype),
        run(rope_append, dtype),
        run(rope_append, "float64"),
        "L1",
    )
    return Check(f"rope {dtype}", "ok", "rope_append agrees with the reference")
