"""The twin's check mode: runs an operator and says what hardware would punish."""

from __future__ import annotations

import atexit
import dataclasses
import operator
import sys
from collections.abc import Callable
from typing import Any

from glm2_ops._library import MODE, load_twin, using
from glm2_ops.attention import flash_attention, flash_attention_varlen
from glm2_ops.attention_grad import flash_attention_grad
from glm2_ops.layers import rms_norm, swiglu
from glm2_ops.rope import rope_append

OPERATORS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        flash_attention, flash_attention_varlen, flash_attention_grad, rope_append, rms_norm, swiglu,
    )
}  # fmt: skip
_LEVELS = ("gm", "workspace", "l1", "l0a", "l0b", "l0c", "ub")
_MOST_CORES = 1024
_MODEL_CYCLES_PER_US = 1800  # dav-2201 at 1.8 GHz


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something in a kernel that hardware would punish; equal ones are one, with a count.

    Attributes
    ----------
    rule : str
        Which check; ``docs/twin.md`` lists them.
    severity : "error" or "warning"
    kernel, core, role : str, int, str
        Where it ran; the first of its kind.
    file, line, call : str, int, str
        Where in the kernel's source; empty and 0 where no call is to blame.
    tensor, begin, end : str, int, int
        Bytes of a tensor in GM by its name, or of a memory of the core.
    got, wanted, advice : str
        What came, what was wanted, what to do.
    count : int
    text : str
        All of that in a line.
    """

    rule: str
    severity: str
    kernel: str
    core: int
    role: str
    file: str
    line: int
    call: str
    tensor: str
    begin: int
    end: int
    got: str
    wanted: str
    advice: str
    count: int
    text: str

    def __str__(self) -> str:
        return self.text


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes
    ----------
    findings : list of Finding
        Errors first.
    outputs : the operator's own result; None where the kernel hangs
    counters : list of dict
        As `counters` returns them, one a kernel.
    """

    findings: list[Finding]
    outputs: Any
    counters: list[dict[str, Any]]

    @property
    def errors(self) -> list[Finding]:
        """Findings that are no warnings."""
        return [finding for finding in self.findings if finding.severity == "error"]

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing found"


def _take_findings() -> list[Finding]:
    found = [Finding(**fields) for fields in load_twin("check").take_findings()]
    return sorted(found, key=lambda finding: finding.severity != "error")


def _count(
    kernel: str,
    calls: int,
    moves: list[Any],
    pipes: dict[str, int],
    cycles: float,
    busy: dict[str, float],
) -> dict[str, Any]:
    levels: dict[str, dict[str, dict[str, int]]] = {level: {} for level in _LEVELS}
    for source, target, tensor, nbytes, bursts in moves:
        for level, kind in ((source, "read_bytes"), (target, "write_bytes")):
            counts = levels[level].setdefault(
                tensor, {"read_bytes": 0, "write_bytes": 0, "bursts": 0}
            )
            counts[kind] += nbytes
            counts["bursts"] += bursts
    model = {
        "cycles": cycles,
        "microseconds": cycles / _MODEL_CYCLES_PER_US,
        "busy": {pipe: worked / cycles for pipe, worked in busy.items() if cycles > 0},
        "bound_by": max(busy, key=lambda pipe: busy[pipe], default=None),
    }
    return {
        "kernel": kernel, "calls": calls, **levels, "instructions": dict(pipes), "model": model
    }  # fmt: skip


def _take_counters() -> list[dict[str, Any]]:
    return [_count(*kernel) for kernel in load_twin("check").take_counters()]


def check(
    op: str | Callable[..., Any],
    *inputs: Any,
    seed: int = 0,
    schedules: int = 2,
    cores: int = 3,
    physical_cores: int = 24,
    hardware_tiling: bool = True,
    **options: Any,
) -> CheckReport:
    """Run an operator on the twin's check mode.

    The kernel runs in order under all checks; then again, with other rubbish in its memories; then
    in adversarial schedules that delay each call as long as its flags allow. All must come to the
    same bits.

    Parameters
    ----------
    op : str or function of glm2_ops
        "flash_attention", for example.
    *inputs, **options
        What the operator takes. What it writes in place is written.
    seed : int
        Of the first adversarial schedule; equal seeds are equal schedules.
    schedules : int
        How many of them; 0 leaves out everything but the checked pass.
    cores : int
        Logical cores that the operator may use.
    physical_cores : int
        AI cores of the machine that is stood in for.
    hardware_tiling : bool
        Whether tilings are those of hardware. False: those of the fast twin, to compare bits with it;
        its memories are larger, so that tiles may then break the rule "capacity".

    Returns
    -------
    report : CheckReport

    Raises
    ------
    ValueError, TypeError
        What the operator raises, or if a setting is out of range.
    """
    name = op if isinstance(op, str) else op.__name__
    if name not in OPERATORS:
        msg = f"op is {name!r}; expected one of {', '.join(sorted(OPERATORS))}"
        raise ValueError(msg)
    settings = {"seed": seed, "schedules": schedules}
    settings.update(cores=cores, physical_cores=physical_cores)
    for setting, value in settings.items():
        least = 1 if "cores" in setting else 0
        most = 2**31 if setting == "seed" else _MOST_CORES
        if not least <= operator.index(value) <= most:
            msg = f"{setting} is {value}; expected {least} to {most}"
            raise ValueError(msg)
    twin = load_twin("check")
    _take_findings()
    _take_counters()
    threads = twin.build_info()["threads"]
    twin.set_num_threads(operator.index(cores))
    twin.set_check_options(
        seed=seed,
        schedules=schedules,
        physical_cores=physical_cores,
        hardware_tiling=hardware_tiling,
    )
    outputs = None
    try:
        with using(twin):
            outputs = OPERATORS[name](*inputs, **options)
    except RuntimeError:  # it hangs: a finding says where
        findings = _take_findings()
        if not any(finding.rule == "hang" for finding in findings):
            raise
        return CheckReport(findings, None, _take_counters())
    finally:
        twin.set_num_threads(threads)
        twin.set_check_options(seed=0, schedules=2, physical_cores=24, hardware_tiling=True)
    return CheckReport(_take_findings(), outputs, _take_counters())


def findings() -> list[Finding]:
    """Return what check mode has found since the last call, in a process with GLM2_TWIN=check.

    Raises
    ------
    RuntimeError
        In another process: `check` is for that.
    """
    _require_check_mode("findings")
    return _take_findings()


def counters() -> list[dict[str, Any]]:
    """Return what kernels moved since the last call, in a process with GLM2_TWIN=check.

    Returns
    -------
    counters : list of dict, one a kernel
        ``kernel``, ``calls``; for each of gm, workspace, l1, l0a, l0b, l0c, ub a dict of tensors with
        ``read_bytes``, ``write_bytes`` and ``bursts``: contiguous runs in GM, fractals between L1 and
        L0; ``instructions`` by pipe. Scalar accesses are instructions and no moves. ``model``, the
        pipe-time model of dav-2201, not a measurement: ``cycles`` and ``microseconds`` of all calls,
        the part of them that each kind of pipe is ``busy``, and which one bounds it.

    Raises
    ------
    RuntimeError
        In another process: the fast twin does not count. `check` returns counters too.
    """
    _require_check_mode("counters")
    return _take_counters()


def _require_check_mode(name: str) -> None:
    if MODE != "check":
        msg = f"glm2_ops.{name}() wants a process with GLM2_TWIN=check; or use glm2_ops.check(op, ...)"
        raise RuntimeError(msg)


def _print_findings() -> None:
    """Print what is left at the end of a process in check mode, errors before warnings."""
    left = _take_findings()
    errors = sum(finding.severity == "error" for finding in left)
    print(f"glm2 check mode: {errors} errors, {len(left) - errors} warnings", file=sys.stderr)  # noqa: T201
    for finding in left:
        print(finding, file=sys.stderr)  # noqa: T201


if MODE == "check":
    atexit.register(_print_findings)
