"""Finds the compiled operators and says how they were built."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import operator
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

_MODULES = {"fast": "_native", "check": "_native_check"}
_MAX_THREADS = 1024


def _check_environment() -> None:
    mode = os.environ.get("GLM2_TWIN", "fast")
    if mode not in _MODULES:
        msg = f"GLM2_TWIN is {mode!r}, but this build has {' and '.join(_MODULES)}; unset it"
        raise ImportError(msg)
    threads = os.environ.get("GLM2_NUM_THREADS", "1")
    if not (threads.isascii() and threads.isdigit() and 1 <= int(threads) <= _MAX_THREADS):
        msg = f"GLM2_NUM_THREADS is {threads!r}; expected 1 to {_MAX_THREADS}, or leave it unset"
        raise ImportError(msg)


def load_twin(mode: str) -> ModuleType:
    """Return the native module of a mode of the twin, "fast" or "check".

    Raises
    ------
    ImportError
        If it was not built, or for another machine.
    """
    try:
        return importlib.import_module(f"glm2_ops.{_MODULES[mode]}")
    except ImportError as error:
        cause = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        msg = (
            f"glm2_ops was built without its native module, or for another machine{cause}; "
            "reinstall with `pip install --force-reinstall --no-deps .` "
            "and GLM2_PURE_PYTHON unset"
        )
        raise ImportError(msg) from error


_check_environment()
MODE = os.environ.get("GLM2_TWIN", "fast")
_default = load_twin(MODE)
_module: ContextVar[ModuleType | None] = ContextVar("glm2_ops_twin", default=None)


@contextlib.contextmanager
def using(module: ModuleType) -> Iterator[None]:
    """Let `native` mean another mode's module inside of a block."""
    token = _module.set(module)
    try:
        yield
    finally:
        _module.reset(token)


if TYPE_CHECKING:
    from glm2_ops import _native as native
else:

    class _Native:
        """The native module in use."""

        def __getattr__(self, name: str) -> Any:
            return getattr(_module.get() or _default, name)

    native = _Native()


def library_path() -> Path:
    """Return the shared library that MindSpore's custom operators are loaded from."""
    name = "libglm2_ops_check.so" if MODE == "check" else "libglm2_ops.so"
    return Path(str(_default.__file__)).with_name(name)  # beside it in editable installs too


def build_info() -> dict[str, Any]:
    """Return how the operators were built.

    Returns
    -------
    info : dict
        ``version``, ``simd`` (instruction set), ``compiler``, ``twin`` (mode) and ``threads``
        (logical cores that a call may use).
    """
    return {"version": importlib.metadata.version("glm2"), **native.build_info()}


def machine_peaks(*, read_bytes: int = 2**30) -> dict[str, float]:
    """Measure what this processor can do at most, on the threads that calls use.

    Parameters
    ----------
    read_bytes : int
        Memory that is allocated and read, five times over; well beyond the caches.

    Returns
    -------
    peaks : dict
        ``fma_gflops``: float32 multiply-adds in registers, GFLOP/s. ``read_gbps``: reading memory in
        four sequential streams a thread, GB/s (1e9).

    Raises
    ------
    ValueError
        If ``read_bytes`` is less than 1 MiB.
    MemoryError
        If they cannot be had.
    """
    if operator.index(read_bytes) < 2**20:
        msg = f"read_bytes is {read_bytes}; expected 1 MiB or more, and well beyond the caches"
        raise ValueError(msg)
    peaks = native.machine_peaks(operator.index(read_bytes))
    if peaks["read_gbps"] == 0:
        msg = f"there is no memory for {read_bytes} bytes to read; lower read_bytes"
        raise MemoryError(msg)
    return peaks


def set_num_threads(count: int) -> None:
    """Set how many logical cores later calls may use; `GLM2_NUM_THREADS` sets the default.

    Raises
    ------
    ValueError
        If ``count`` is not 1 to 1024.
    TypeError
        If it is not an integer.
    """
    if not 1 <= operator.index(count) <= _MAX_THREADS:
        msg = f"count is {count}; expected 1 to {_MAX_THREADS} threads"
        raise ValueError(msg)
    native.set_num_threads(operator.index(count))


__all__ = [
    "MODE",
    "build_info",
    "library_path",
    "load_twin",
    "machine_peaks",
    "native",
    "set_num_threads",
    "using",
]
