"""What moved between memories: bytes and bursts, by pair of levels and tensor."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from glm2_reference.memory_systems import MemorySystem


@dataclasses.dataclass
class Traffic:
    """What moved: bytes, and the contiguous runs that they came in."""

    bytes: int = 0
    bursts: int = 0


@dataclasses.dataclass(frozen=True)
class Event:
    """One step of a recorded run, and what the levels held after it."""

    kind: str  # load, store, allocate, free or compute
    label: str
    source: str
    target: str
    bytes: int
    used_bytes: dict[str, int]


class TrafficCounter:
    """Counters of one machine's moves.

    Parameters
    ----------
    system : MemorySystem

    Attributes
    ----------
    traffic : dict of (source level, target level, tensor name) to Traffic
    """

    def __init__(self, system: MemorySystem) -> None:
        self.system = system
        self.traffic: dict[tuple[str, str, str], Traffic] = {}
        self.times = 1  # what every count is multiplied by

    def charge(self, source: str, target: str, name: str, *, nbytes: int, bursts: int) -> None:
        """Count a move.

        Raises
        ------
        ValueError
            If nothing moves between the two levels on this machine.
        """
        self.check_move(source, target, name)
        counter = self.traffic.setdefault((source, target, name), Traffic())
        counter.bytes += nbytes * self.times
        counter.bursts += bursts * self.times

    def check_move(self, source: str, target: str, name: str) -> None:
        """Require that the machine can move from one level to the other.

        Raises
        ------
        ValueError
            If it cannot.
        """
        if (source, target) not in self.system.moves:
            msg = f"{name}: {self.system.name} cannot move from {source} to {target}"
            raise ValueError(msg)

    @contextlib.contextmanager
    def repeated(self, times: int) -> Iterator[None]:
        """Count what a block does ``times`` times, for heads that are all alike."""
        before = self.times
        self.times *= times
        try:
            yield
        finally:
            self.times = before

    def read_bytes(self, level: str, name: str | None = None) -> int:
        """Bytes that left a level, of one tensor or of all."""
        return sum(t.bytes for t in self._select(level, name, 0))

    def write_bytes(self, level: str, name: str | None = None) -> int:
        """Bytes that came into a level, of one tensor or of all."""
        return sum(t.bytes for t in self._select(level, name, 1))

    def moved_bytes(self, level: str | None = None) -> int:
        """Bytes read and written; of the outermost level if none is named."""
        level = level or self.system.outermost.name
        return self.read_bytes(level) + self.write_bytes(level)

    def bursts(self, level: str, name: str | None = None) -> int:
        """Contiguous runs read and written."""
        return sum(t.bursts for end in (0, 1) for t in self._select(level, name, end))

    def counters(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return read_bytes, write_bytes and bursts, by level and tensor."""
        result: dict[str, dict[str, dict[str, int]]] = {}
        for level in self.system.levels:
            names = sorted({key[2] for key in self.traffic if level.name in key[:2]})
            result[level.name] = {
                name: {
                    "read_bytes": self.read_bytes(level.name, name),
                    "write_bytes": self.write_bytes(level.name, name),
                    "bursts": self.bursts(level.name, name),
                }
                for name in names
            }
        return result

    def _select(self, level: str, name: str | None, end: int) -> list[Traffic]:
        self.system.level(level)
        return [
            traffic
            for key, traffic in self.traffic.items()
            if key[end] == level and name in (None, key[2])
        ]
