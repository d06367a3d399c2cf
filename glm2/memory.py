"""How much memory this process may still take."""

from __future__ import annotations

import re
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """Return the bytes that can be allocated before the system starts killing; None if unknown.

    The smaller of what the machine has free, reclaimable page cache and swap included, and what
    the container's limit (cgroup v2) leaves.
    """
    found = _numbers(Path("/proc/meminfo"), r"^(\w+):\s+(\d+) kB$")
    rooms = []
    if "MemAvailable" in found:
        rooms.append(1024 * (found["MemAvailable"] + found.get("SwapFree", 0)))
    limited = _cgroup_room()
    if limited is not None:
        rooms.append(limited)
    return min(rooms) if rooms else None


def total_bytes() -> int | None:
    """Return the machine's memory in bytes; None if unknown."""
    found = _numbers(Path("/proc/meminfo"), r"^(\w+):\s+(\d+) kB$")
    return 1024 * found["MemTotal"] if "MemTotal" in found else None


def _cgroup_room() -> int | None:
    """Return limit minus use of this process's cgroup, where it has a limit."""
    match = re.search(r"^0::/?(.*)$", _read(Path("/proc/self/cgroup")), re.MULTILINE)
    if match is None:
        return None
    folder = _CGROUPS / match[1]
    limit, used = (_read(folder / name).strip() for name in ("memory.max", "memory.current"))
    if not limit.isdigit() or not used.isdigit():
        return None
    cached = _numbers(folder / "memory.stat", r"^(\w+) (\d+)$").get("file", 0)
    return max(0, int(limit) - int(used) + cached)


def _numbers(path: Path, pattern: str) -> dict[str, int]:
    """Read a table of names and numbers; an absent file is an empty one."""
    return {name: int(value) for name, value in re.findall(pattern, _read(path), re.MULTILINE)}


def _read(path: Path) -> str:
    """Return a file of the system, or nothing where there is none or it may not be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
