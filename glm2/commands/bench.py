"""``glm2 bench``: tokens a second of a checkpoint on this machine, and where a step's time goes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glm2.commands._options import CacheDtype, ModelName

if TYPE_CHECKING:
    from glm2.model import GLM2Model
    from glm2.step_profile import StepProfile

_PARTS = {
    "linear_s": "products with weights",
    "attention_s": "attention",
    "small_ops_s": "norms, rope_append, SwiGLU",
    "sampling_s": "sampling (top_k and top_p)",
    "rest_s": "MindSpore and Python",
}


def command(
    model: ModelName = None,
    context: Annotated[
        list[int] | None, typer.Option(min=0, help="Cached tokens of a decode step; repeatable.")
    ] = None,
    prefill: Annotated[
        list[int] | None, typer.Option(min=1, help="Tokens of a prompt; repeatable.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Sequences that decode together.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 10,
    budget: Annotated[
        float, typer.Option(min=0.1, help="Seconds that the runs of one line may take.")
    ] = 20.0,
    profile: Annotated[bool, typer.Option(help="Show where the time of a step goes.")] = False,
    cache_dtype: CacheDtype = "float16",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time a checkpoint: decode at a context, prefill of a prompt.

    The cache is filled with noise, which takes no longer to read than text. GLM2_NUM_THREADS sets the
    threads.
    """
    if cache_dtype not in ("float16", "float32"):
        msg = f"--cache-dtype is {cache_dtype!r}; expected float16 or float32"
        raise typer.BadParameter(msg)
    opened, opened_s = _open(model, cache_dtype)
    threads = _threads()
    contexts = [128] if context is None and prefill is None else context or []
    longest = max([*contexts, *(prefill or [])])
    if longest + 1 > opened.config.seq_length:
        msg = f"{longest} tokens and one more are past seq_length, {opened.config.seq_length}"
        raise typer.BadParameter(msg)
    results: dict[str, Any] = {"opened_s": opened_s, "threads": threads, "cases": []}
    if not as_json:
        typer.echo(f"opened in {opened_s:.2f} s; {threads} threads")
    for cached in contexts:
        _decode(opened, cached, batch, runs, budget, results, profile=profile, quiet=as_json)
    for length in prefill or []:
        _prefill(opened, length, runs, budget, results, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(results))


def _open(model: str | None, cache_dtype: str) -> tuple[GLM2Model, float]:
    """Open what --model names, or the demo weights; no tokenizer is needed."""
    from glm2.commands._options import demo_checkpoint
    from glm2.demo import cache_folder
    from glm2.hub import find_checkpoint
    from glm2.interrupts import deferred_interrupts

    folder = demo_checkpoint(None) if model is None else find_checkpoint(model)
    os.environ.setdefault("GLOG_v", "3")  # MindSpore warns on stderr about its own cache
    with deferred_interrupts():  # it starts threads when it is imported
        from glm2.model import GLM2Model
    started_s = time.perf_counter()
    opened = GLM2Model.from_pretrained(
        folder, cache_dtype=cache_dtype, graph_folder=cache_folder() / "graphs"
    )
    return opened, time.perf_counter() - started_s


def _threads() -> int:
    import glm2_ops

    return int(glm2_ops.build_info()["threads"])


def _decode(
    model: GLM2Model,
    context: int,
    batch: int,
    runs: int,
    budget_s: float,
    results: dict[str, Any],
    *,
    profile: bool,
    quiet: bool,
) -> None:
    """Time a decode step and perhaps its parts."""
    from glm2.speed import Speed, decode_step_s, filled_cache

    cache = filled_cache(model, context, batch=batch)
    speed = Speed.of(batch, _timed(lambda: decode_step_s(model, cache), runs, budget_s))
    case: dict[str, Any] = {"phase": "decode", "context": context, "batch": batch}
    case |= {"tokens_per_s": speed.median, "runs": speed.runs}
    if not quiet:
        typer.echo(
            f"decode   context {context:6d}  batch {batch:3d}  {speed.median:8.2f} tokens/s "
            f"(quartiles {speed.lower:.2f} to {speed.upper:.2f}, {speed.runs} runs)"
        )
    if profile:
        from glm2.step_profile import profile_step

        parts = profile_step(model, cache, runs=runs, budget_s=budget_s)
        case |= {"step_s": parts.step_s, "overhead": parts.overhead}
        case |= {name: getattr(parts, name) for name in _PARTS}
        if not quiet:
            _print_profile(parts)
    results["cases"].append(case)


def _print_profile(parts: StepProfile) -> None:
    """Print a line a part of a step."""
    for name, title in _PARTS.items():
        seconds = getattr(parts, name)
        typer.echo(f"    {title:<28} {1e3 * seconds:9.2f} ms  {100 * seconds / parts.step_s:5.1f}%")
    typer.echo(f"    {'a step':<28} {1e3 * parts.step_s:9.2f} ms")
    typer.echo(f"    outside products and attention: {100 * parts.overhead:.1f}%")


def _prefill(
    model: GLM2Model,
    length: int,
    runs: int,
    budget_s: float,
    results: dict[str, Any],
    *,
    quiet: bool,
) -> None:
    """Time a prompt."""
    from glm2.speed import Speed, prefill_s

    cache = model.new_cache(length)
    speed = Speed.of(length, _timed(lambda: prefill_s(model, cache, length), runs, budget_s))
    results["cases"].append(
        {"phase": "prefill", "seq_len": length, "tokens_per_s": speed.median, "runs": speed.runs}
    )
    if not quiet:
        typer.echo(
            f"prefill  tokens  {length:6d}             {speed.median:8.2f} tokens/s "
            f"(quartiles {speed.lower:.2f} to {speed.upper:.2f}, {speed.runs} runs)"
        )


def _timed(call: Callable[[], float], runs: int, budget_s: float) -> list[float]:
    """Call once for warmth, then until there are enough runs or they have taken too long."""
    call()
    seconds: list[float] = []
    while len(seconds) < runs and (not seconds or sum(seconds) < budget_s):
        seconds.append(call())
    return seconds
