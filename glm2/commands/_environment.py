"""What ``glm2 doctor`` finds out about the machine and the installed packages."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from glm2 import __version__
from glm2.demo import cache_folder, demo_folder
from glm2.memory import available_bytes, total_bytes

State = Literal["ok", "info", "fail"]

_NEEDED = ("mindspore", "numpy", "sentencepiece", "safetensors", "ml_dtypes", "typer", "rich")
_OPTIONAL = ("gguf", "tokenizers")
# Processor flags, as /proc/cpuinfo names them, that code built for a level needs.
_SIMD_FLAGS = {
    "x86-64-v3": ("avx2", "bmi2", "f16c", "fma"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "avx2": ("avx2", "f16c", "fma"),
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "neon": ("asimd",),
    "generic": (),
}


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the report; "fail" means that something needed is broken."""

    name: str
    state: State
    detail: str


def environment_checks() -> list[Check]:
    """Look at Python, packages, processor, memory, accelerator and cache folder."""
    python = f"{platform.python_version()} ({sys.executable})"
    supported = (3, 10) <= sys.version_info[:2] <= (3, 12)
    wanted = "" if supported else "; MindSpore's wheels need Python 3.10 to 3.12"
    return [
        Check("glm2", "ok", __version__),
        Check("python", "ok" if supported else "fail", python + wanted),
        *(_package(name, needed=True) for name in _NEEDED),
        *(_package(name, needed=False) for name in _OPTIONAL),
        Check("processor", "info", f"{_processor_name()}, {os.cpu_count()} logical cores"),
        _memory(),
        _accelerator(),
        guarded("cache", _cache),
    ]


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """Run a check that may find anything: whatever it raises is what it found."""
    try:
        return check()
    except Exception as error:  # noqa: BLE001 (whatever breaks is the finding)
        return Check(name, "fail", f"{type(error).__name__}: {error}")


def simd_check(built_for: str) -> Check:
    """Compare the SIMD level that the operators were built for with this processor.

    ``built_for`` is a level of the table above, or processor flags joined by "+" or ",".
    """
    flags = processor_flags()
    needed = _SIMD_FLAGS.get(built_for, tuple(re.split(r"[^a-z0-9_]+", built_for.lower())))
    missing = [flag for flag in needed if flag not in flags]
    if missing:
        detail = (
            f"the operators were built for {built_for}, but this processor lacks "
            f"{', '.join(missing)}; install again on this machine"
        )
        return Check("simd", "fail", detail)
    return Check("simd", "ok", f"built for {built_for}, which this processor has")


def processor_flags() -> frozenset[str]:
    """Return the feature flags of the first processor, empty where the system does not tell."""
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


def _read(path: str) -> str:
    """Return a text file of the system, or nothing where there is none."""
    return Path(path).read_text(errors="replace") if Path(path).is_file() else ""


def _package(name: str, *, needed: bool) -> Check:
    """Import a package and tell its version."""
    try:
        importlib.import_module(name)
        version = importlib.metadata.version(name)
    except ImportError as error:
        if needed:
            return Check(name, "fail", f"{error}; run pip install glm2 again")
        return Check(name, "info", 'not installed; the demo weights need pip install "glm2[demo]"')
    return Check(name, "ok", version)


def _processor_name() -> str:
    """Return the processor's model name."""
    match = re.search(r"^model name\s*:(.*)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _memory() -> Check:
    """Tell how much memory there is."""
    available, total = available_bytes(), total_bytes()
    if available is None or total is None:
        return Check("memory", "info", "unknown: no /proc/meminfo")
    return Check("memory", "info", f"{available / 1e9:.1f} GB available of {total / 1e9:.1f} GB")


def _accelerator() -> Check:
    """Look for an NPU and for CANN, the software that runs it."""
    devices = sorted(path.name for path in Path("/dev").glob("davinci[0-9]*"))
    variables = [os.environ.get(key, "") for key in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")]
    homes = [path for path in (*variables, "/usr/local/Ascend") if path and Path(path).is_dir()]
    npu = f"NPU: {', '.join(devices)}" if devices else "no NPU"
    cann = f"CANN: {homes[0]}" if homes else "no CANN"
    note = "" if devices and homes else "; operators run on the CPU twin"
    return Check("accelerator", "info", f"{npu}; {cann}{note}")


def _cache() -> Check:
    """Tell where built files are kept and whether there is room."""
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_bytes = shutil.disk_usage(existing).free
    demo = "demo weights built" if demo_folder().is_dir() else "demo weights not built yet"
    detail = f"{folder}, {demo}, {free_bytes / 1e9:.1f} GB free"
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Check("cache", "fail", f"{detail}; {existing} is not a folder one can write to")
    return Check("cache", "ok", detail)
