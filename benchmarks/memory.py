"""Peak memory of one call, in a process of its own. Linux with glibc only."""

from __future__ import annotations

import ctypes
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _resident_bytes(field: str) -> int:
    match = re.search(rf"^{field}:\s*(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def _grow(prepare: Callable[..., Callable[[], Any]], small: Any, args: Any) -> int:
    prepare(*small)()  # imports, pools and caches are not this call's
    call = prepare(*args)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not serve the call
    CLEAR_REFS.write_text("5")  # the peak starts anew
    before = _resident_bytes("VmRSS")
    result = call()
    peak = _resident_bytes("VmHWM")
    del result
    return peak - before


def peak_growth(prepare: Callable[..., Callable[[], Any]], small: Any, args: Any) -> int | None:
    """Return by how many bytes the resident memory grows at most during a call.

    Parameters
    ----------
    prepare : callable
        A module's function. ``prepare(*args)()`` is the call; what prepare allocates does not count.
    small, args : tuple
        Of a call that warms up, and of the one that is measured.

    Returns
    -------
    bytes : int or None
        Results of the call count, inputs do not. None where the system does not tell.
    """
    if not CLEAR_REFS.exists():
        return None
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grow, (prepare, small, args))
