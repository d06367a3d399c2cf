"""Explains how an operator's call is cut into tiles, by the tiling that the call itself uses."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from glm2_ops import checks
from glm2_ops._library import native

Target = Literal["twin", "npu"]
_DTYPES = ("float16", "bfloat16", "float32")
_MOST = 2**31 - 1  # of a dimension, and of all tokens together: they are int32 to the kernels


def tiling_plan(operator: str, target: Target, **shape: Any) -> dict[str, Any]:
    """Return the tiles of one call, the memory that they take and why they are not larger.

    Parameters
    ----------
    operator : str
        A key of `PLANNED_OPERATORS`.
    target : "twin" or "npu"
        This CPU with the threads that calls use, or an AI processor with 24 cores of dav-2201.
    **shape
        The options that `PLANNED_OPERATORS` lists for the operator, every one of them: dimensions,
        dtype and weight format names, ``seq_lens_q`` and ``seq_lens_kv`` (tokens of each sequence), ``residual``.

    Returns
    -------
    plan : dict
        ``tiles``; ``cores`` of ``cores_available``; ``task_slots``; ``memory``: for each of ub, l1,
        l0a, l0b and l0c that the kernel uses, ``used_bytes``, ``capacity_bytes`` and ``buffers``,
        and for ub_combine, which is UB once more, when split keys are combined;
        ``workspace_bytes_per_core`` and ``workspace_bytes``; ``reason``; ``split``: None, or of the
        sequences whose keys are cut ``keys_per_part``, ``sequences``, their ``parts`` together and
        the parts' ``workspace_bytes``, which those of all cores include.

    Raises
    ------
    ValueError
        If the operator, the target or the options are not known, or the tiling refuses the shape.
    TypeError
        If a dimension is not an integer.
    """
    if operator not in PLANNED_OPERATORS:
        msg = f"operator is {operator!r}; expected one of {', '.join(PLANNED_OPERATORS)}"
        raise ValueError(msg)
    if target not in get_args(Target):
        msg = f"target is {target!r}; expected 'twin' or 'npu'"
        raise ValueError(msg)
    options = PLANNED_OPERATORS[operator]
    if set(shape) != set(options):
        msg = f"{operator} takes {', '.join(options)}; got {', '.join(sorted(shape)) or 'nothing'}"
        raise ValueError(msg)
    for name, value in shape.items():
        _check(name, value)
    plan: dict[str, Any] = _PLANS[operator](target == "npu", **shape)
    return plan


def _check(name: str, value: Any) -> None:
    """Refuse what the native function would read as something else."""
    if name.endswith("dtype"):
        if value not in _DTYPES:
            msg = f"{name} is {value!r}; expected one of {', '.join(_DTYPES)}"
            raise ValueError(msg)
    elif name == "weight_format":
        if value not in checks.WEIGHT_FORMATS:
            msg = f"{name} is {value!r}; expected one of {', '.join(checks.WEIGHT_FORMATS)}"
            raise ValueError(msg)
    elif name.startswith("seq_lens"):
        if not value or any(not 0 <= length <= _MOST for length in value) or sum(value) > _MOST:
            msg = f"{name} is {value!r}; expected lengths of at most {_MOST} tokens together"
            raise ValueError(msg)
    elif name != "residual" and not 0 <= value <= _MOST:
        msg = f"{name} is {value}; expected 0 to {_MOST}"
        raise ValueError(msg)


def _offsets(lengths: Sequence[int]) -> list[int]:
    """Return where each sequence starts, and the end of the last."""
    return [0, *itertools.accumulate(lengths)]


def _flash_attention(npu: bool, **shape: Any) -> dict[str, Any]:
    lengths = shape.pop("seq_lens_q"), shape.pop("seq_lens_kv")
    _check_pairs(*lengths)
    return native.plan_flash_attention(
        npu, cu_seqlens_q=_offsets(lengths[0]), seq_len_kv=list(lengths[1]), **shape
    )


def _flash_attention_grad(npu: bool, **shape: Any) -> dict[str, Any]:
    lengths = shape.pop("seq_lens_q"), shape.pop("seq_lens_kv")
    _check_pairs(*lengths)
    return native.plan_flash_attention_grad(
        npu, cu_seqlens_q=_offsets(lengths[0]), cu_seqlens_kv=_offsets(lengths[1]), **shape
    )


def _check_pairs(seq_lens_q: Sequence[int], seq_lens_kv: Sequence[int]) -> None:
    if len(seq_lens_q) != len(seq_lens_kv):
        msg = (
            f"seq_lens_q has {len(seq_lens_q)} sequences and seq_lens_kv has {len(seq_lens_kv)}; "
            "expected as many"
        )
        raise ValueError(msg)


def _quant_matmul(npu: bool, weight_format: str, **shape: Any) -> dict[str, Any]:
    storage, group_size = weight_format.partition("-")[0], checks.WEIGHT_FORMATS[weight_format]
    return native.plan_quant_matmul(npu, storage=storage, group_size=group_size, **shape)


_HEADS = ("num_heads", "num_kv_heads", "head_dim")
_LENGTHS = ("seq_lens_q", "seq_lens_kv")
PLANNED_OPERATORS: dict[str, tuple[str, ...]] = {
    "flash_attention": ("dtype", "cache_dtype", *_HEADS, "page_size", *_LENGTHS),
    "flash_attention_grad": ("dtype", *_HEADS, *_LENGTHS),
    "quant_matmul": (
        "dtype",
        "weight_format",
        "activation_bits",
        "num_rows",
        "in_features",
        "out_features",
    ),
    "rms_norm": ("dtype", "num_rows", "hidden_size", "residual"),
    "rope_append": ("dtype", "cache_dtype", "num_tokens", *_HEADS, "rotary_dim", "page_size"),
    "swiglu": ("dtype", "num_rows", "width"),
}
_PLANS: dict[str, Callable[..., dict[str, Any]]] = {
    "flash_attention": _flash_attention,
    "flash_attention_grad": _flash_attention_grad,
    "quant_matmul": _quant_matmul,
    "rms_norm": native.plan_rms_norm,
    "rope_append": native.plan_rope_append,
    "swiglu": native.plan_swiglu,
}
