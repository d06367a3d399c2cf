"""``glm2 doctor --tiling``: how an operator cuts a call into tiles, here and on an NPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from glm2_reference.config import GLM2Config

Operator = Annotated[
    str | None,
    typer.Option(
        "--tiling",
        metavar="OP",
        help="Print only how OP cuts a call into tiles: flash_attention, flash_attention_grad, "
        "quant_matmul, rms_norm, rope_append or swiglu; the options below give the shape "
        "[default: ChatGLM2-6B's, one new token after 4095].",
    ),
]
Heads = Annotated[int | None, typer.Option(min=1, help="Query heads.")]
KvHeads = Annotated[int | None, typer.Option(min=1, help="K/V heads.")]
HeadDim = Annotated[int | None, typer.Option(min=1, help="Elements of a head.")]
RotaryDim = Annotated[int | None, typer.Option(min=0, help="Elements of a head that are rotated.")]
PageSize = Annotated[int | None, typer.Option(min=1, help="Tokens of a page of the cache.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Sequences, all of one length.")]
SeqLenQ = Annotated[int | None, typer.Option(min=0, help="New tokens of a sequence.")]
SeqLenKv = Annotated[int | None, typer.Option(min=0, help="Tokens of a sequence, old and new.")]
HiddenSize = Annotated[int | None, typer.Option(min=1, help="Elements of a row of rms_norm.")]
FfnHiddenSize = Annotated[int | None, typer.Option(min=1, help="Columns of swiglu's output.")]
WeightFormat = Annotated[
    str | None, typer.Option(help="fp16, int8, int4, int4-g128, int4-g64 or int4-g32.")
]
ActivationBits = Annotated[int | None, typer.Option(help="16 or 8: of tokens that are multiplied.")]
InFeatures = Annotated[int | None, typer.Option(min=1, help="Columns of quant_matmul's weight.")]
OutFeatures = Annotated[int | None, typer.Option(min=1, help="Rows of quant_matmul's weight.")]
Dtype = Annotated[str | None, typer.Option(help="float16, bfloat16 or float32.")]
CacheDtype = Annotated[str | None, typer.Option(help="Of the K/V cache [default: --dtype].")]
Residual = Annotated[bool | None, typer.Option(help="Whether rms_norm adds a residual first.")]

_TARGETS = {"twin": "this CPU (twin)", "npu": "an NPU (dav-2201)"}


def refuse_shape_without_operator(given: Mapping[str, Any]) -> None:
    """Shape options mean nothing to the checks of ``glm2 doctor``."""
    if given:
        msg = f"{', '.join(map(_flag, given))}: for --tiling OP; name the operator"
        raise typer.BadParameter(msg)


def print_tiling(
    operator: str, given: Mapping[str, Any], config: GLM2Config, *, as_json: bool
) -> None:
    """Print an operator's plans; exit code 1 if one of the targets refuses the shape."""
    from glm2_ops.tiling import PLANNED_OPERATORS

    if operator not in PLANNED_OPERATORS:
        msg = f"--tiling is {operator!r}; expected one of {', '.join(PLANNED_OPERATORS)}"
        raise typer.BadParameter(msg)
    options = _options_of(operator)
    unknown = [_flag(name) for name in given if name not in options]
    if unknown:
        msg = f"{operator} has no {' or '.join(unknown)}; it takes {', '.join(map(_flag, options))}"
        raise typer.BadParameter(msg)
    shape = {name: given.get(name, _default(name, given, config)) for name in options}
    plans = {target: _plan(operator, target, shape) for target in _TARGETS}
    if as_json:
        report = {"operator": operator, "shape": shape, "plans": plans}
        typer.echo(json.dumps(report, indent=2))
    else:
        typer.echo(f"{operator}: {', '.join(f'{key} {value}' for key, value in shape.items())}")
        for target, plan in plans.items():
            _print_plan(_TARGETS[target], plan)
    if any("error" in plan for plan in plans.values()):
        raise typer.Exit(1)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _options_of(operator: str) -> list[str]:
    """Return the options of this command that give an operator's shape."""
    heads = ["heads", "kv_heads", "head_dim"]
    return {
        "flash_attention": [*heads, "dtype", "cache_dtype", "batch", "seq_len_q", "seq_len_kv",
                            "page_size"],
        "flash_attention_grad": [*heads, "dtype", "batch", "seq_len_q", "seq_len_kv"],
        "quant_matmul": ["in_features", "out_features", "weight_format", "activation_bits", "dtype",
                         "batch", "seq_len_q"],
        "rms_norm": ["hidden_size", "dtype", "batch", "seq_len_q", "residual"],
        "rope_append": [*heads, "rotary_dim", "dtype", "cache_dtype", "batch", "seq_len_q",
                        "page_size"],
        "swiglu": ["ffn_hidden_size", "dtype", "batch", "seq_len_q"],
    }[operator]  # fmt: skip


def _default(name: str, given: Mapping[str, Any], config: GLM2Config) -> Any:
    """Return what an option is where it was not given."""
    seq_len_q = given.get("seq_len_q", 1)
    return {
        "heads": config.num_heads,
        "kv_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "rotary_dim": given.get("head_dim", config.head_dim) // 2,
        "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.ffn_hidden_size,
        "in_features": config.hidden_size,
        "out_features": 2 * config.ffn_hidden_size,
        "weight_format": "int4",
        "activation_bits": 16 if given.get("weight_format") == "fp16" else 8,
        "page_size": 128,
        "batch": 1,
        "seq_len_q": 1,
        "seq_len_kv": 4096 if seq_len_q == 1 else seq_len_q,
        "dtype": "float16",
        "cache_dtype": given.get("dtype", "float16"),
        "residual": False,
    }[name]


def _plan(operator: str, target: Any, shape: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan, or the tiling's refusal as its "error"."""
    from glm2_ops.tiling import PLANNED_OPERATORS, tiling_plan

    values: dict[str, Callable[[], Any]] = {
        "num_heads": lambda: shape["heads"],
        "num_kv_heads": lambda: shape["kv_heads"],
        "seq_lens_q": lambda: [shape["seq_len_q"]] * shape["batch"],
        "seq_lens_kv": lambda: [shape["seq_len_kv"]] * shape["batch"],
        "num_rows": lambda: shape["seq_len_q"] * shape["batch"],
        "num_tokens": lambda: shape["seq_len_q"] * shape["batch"],
        "width": lambda: shape["ffn_hidden_size"],
    }
    arguments = {
        name: values[name]() if name in values else shape[name]
        for name in PLANNED_OPERATORS[operator]
    }
    try:
        return tiling_plan(operator, target, **arguments)
    except ValueError as error:
        return {"error": str(error)}


def _print_plan(target: str, plan: Mapping[str, Any]) -> None:
    """Print one target's plan, a line a fact."""
    typer.echo(f"\n{target}")
    if "error" in plan:
        typer.echo(f"  refused    {plan['error']}")
        return
    slots = plan["task_slots"]
    lines = {
        "tiles": ", ".join(f"{name} {value}" for name, value in plan["tiles"].items()),
        "cores": f"{plan['cores']} of {plan['cores_available']}, "
        f"{slots} task{'s' if slots > 1 else ''} in flight",
    }
    for name, memory in plan["memory"].items():
        used, capacity = memory["used_bytes"], memory["capacity_bytes"]
        buffers = "; ".join(f"{key} {value:,}" for key, value in memory["buffers"].items())
        lines[name] = f"{used:,} of {capacity:,} bytes ({used / capacity:.0%}): {buffers}"
    if (split := plan["split"]) is not None:
        sequences = split["sequences"]
        lines["split"] = (
            f"keys of {sequences} sequence{'s' if sequences > 1 else ''} cut every "
            f"{split['keys_per_part']:,}, into {split['parts']} parts in all, which take "
            f"{split['workspace_bytes']:,} bytes of workspace"
        )
    each, total = plan["workspace_bytes_per_core"], plan["workspace_bytes"]
    lines["workspace"] = f"{each:,} bytes a core, {total:,} in all" if total else "none"
    lines["why"] = plan["reason"]
    for name, text in lines.items():
        typer.echo(f"  {name:<10} {text}")
