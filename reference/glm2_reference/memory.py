"""Memory: named levels with capacities, in which every byte that moves is counted.

A schedule places its inputs in the outermost level, loads tiles of them, computes on tiles, and
stores results back. What it may not do raises: computing on a tensor that was not loaded, using a
tile after it was freed, or allocating more than a level holds.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from glm2_reference.buffers import (
    Buffer,
    Region,
    check_live,
    check_same_shape,
    check_sizes,
    count_bursts,
    region_shape,
)
from glm2_reference.checks import FloatArray, FloatDType
from glm2_reference.memory_systems import MemorySystem
from glm2_reference.traffic import Event, TrafficCounter


class MemoryLimitError(ValueError):
    """A tile does not fit in the level that it was wanted in."""


class Memory(TrafficCounter):
    """The memories of one core, with counters.

    Parameters
    ----------
    system : MemorySystem
    compute : bool
        False traces: nothing is computed and tensors have no data, so that full shapes take seconds.
    limited : bool
        False lifts the capacities; `peak_bytes` then tells what would have been needed.
    record : bool
        Keep every step in ``events``.
    dtype : float dtype
        Of tiles that are allocated, not loaded.

    Attributes
    ----------
    flops : int
        Of matrix products: 2 m n k each. Elementwise work is not counted.
    used_bytes, peak_bytes : dict of level name to int
    events : list of Event
    """

    def __init__(
        self,
        system: MemorySystem,
        *,
        compute: bool = True,
        limited: bool = True,
        record: bool = False,
        dtype: FloatDType = np.float64,
    ) -> None:
        super().__init__(system)
        self.computing = compute
        self.limited = limited
        self.dtype = np.dtype(dtype)
        self.flops = 0
        self.used_bytes = {level.name: 0 for level in system.levels}
        self.peak_bytes = dict(self.used_bytes)
        self.events: list[Event] = []
        self._record = record
        self._levels = {level.name: level for level in system.levels}
        self._live: list[Buffer] = []
        self._tiles: dict[str, int] = {}

    def name_tiles(self, **sizes: int) -> None:
        """Say which tile sizes are in use, so that an overflow can name what to lower."""
        self._tiles = sizes

    # ---- tensors and tiles ---------------------------------------------------------------------

    def place(
        self,
        name: str,
        data: FloatArray | None = None,
        *,
        shape: tuple[int, ...] | None = None,
        element_bytes: int | None = None,
        level: str | None = None,
    ) -> Buffer:
        """Put a tensor where inputs and outputs lie, without traffic.

        Parameters
        ----------
        name : str
        data : float array or None
            Not copied: stores write into it. None makes it of ``shape``: zeros, or in a trace nothing.
        shape : tuple of int
            Needed without ``data``.
        element_bytes : int or None
            None means the array's own.
        level : str or None
            None means the outermost.

        Raises
        ------
        ValueError
            If neither data nor a shape came, or both and they disagree.
        MemoryLimitError
            If the level is full.
        """
        if data is None:
            if shape is None:
                msg = f"{name} has neither data nor a shape; pass one of them"
                raise ValueError(msg)
            data = np.zeros(check_sizes(name, shape), self.dtype) if self.computing else None
        elif shape not in (None, data.shape):
            msg = f"{name} has shape {data.shape}, but {shape} was asked for; they must agree"
            raise ValueError(msg)
        else:
            shape = data.shape
        if element_bytes is None:
            element_bytes = self.dtype.itemsize if data is None else data.dtype.itemsize
        where = level or self.system.outermost.name
        return self._add(Buffer(name, where, shape, element_bytes, data))

    def allocate(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        level: str,
        element_bytes: int,
        fill: float = 0.0,
    ) -> Buffer:
        """Make a tile of ``fill`` in a level, without traffic.

        Raises
        ------
        MemoryLimitError
            If the level does not hold it beside what is there.
        """
        check_sizes(name, shape)
        data = np.full(shape, fill, self.dtype) if self.computing else None
        buffer = self._add(Buffer(name, level, shape, element_bytes, data))
        self._log("allocate", name, "", level, buffer.nbytes)
        return buffer

    def load(self, source: Buffer, region: Region = (), *, level: str) -> Buffer:
        """Copy a region of a tensor into a new tile.

        Parameters
        ----------
        source : Buffer
        region : tuple of slice
            Of its leading axes; the others are taken whole.
        level : str
            Where the tile goes.

        Raises
        ------
        MemoryLimitError
            If the level does not hold the tile.
        ValueError
            If the source was freed, or nothing moves between the two levels.
        """
        check_live(source)
        self.check_move(source.level, level, source.name)
        shape = region_shape(source.shape, region)
        data = None if source.data is None else np.empty(shape, source.data.dtype)
        tile = self._add(Buffer(source.name, level, shape, source.element_bytes, data))
        self.copy(source, region, tile)
        return tile

    def store(self, source: Buffer, target: Buffer, region: Region = ()) -> None:
        """Copy a tile into a region of a tensor; the tensor's dtype rounds it.

        Raises
        ------
        ValueError
            If one of the two was freed, their shapes differ, or nothing moves between their levels.
        """
        check_live(source, target)
        check_same_shape(source, target, region)
        bursts = count_bursts(target.shape, region)
        nbytes = math.prod(source.shape) * target.element_bytes
        self.charge(source.level, target.level, target.name, nbytes=nbytes, bursts=bursts)
        if source.data is not None and target.data is not None:
            target.data[region] = source.data
        self._log("store", target.name, source.level, target.level, nbytes)

    def copy(self, source: Buffer, region: Region, tile: Buffer) -> None:
        """Copy a region of a tensor into a tile that is there already; errors are those of `store`."""
        check_live(source, tile)
        check_same_shape(tile, source, region)
        nbytes = math.prod(tile.shape) * source.element_bytes
        bursts = count_bursts(source.shape, region)
        self.charge(source.level, tile.level, source.name, nbytes=nbytes, bursts=bursts)
        if source.data is not None and tile.data is not None:
            tile.data[...] = source.data[region]
        self._log("load", source.name, source.level, tile.level, nbytes)

    def free(self, *buffers: Buffer) -> None:
        """Give back what tiles take.

        Raises
        ------
        ValueError
            If one was freed before.
        """
        for buffer in buffers:
            check_live(buffer)
            if buffer not in self._live:
                msg = f"{buffer.name} is not of this memory; free it where it was made"
                raise ValueError(msg)
            buffer.live = False
            self._live.remove(buffer)
            self.used_bytes[buffer.level] -= buffer.nbytes
            self._log("free", buffer.name, buffer.level, "", buffer.nbytes)

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Free at the end of a block what was made inside it."""
        before = set(map(id, self._live))
        try:
            yield
        finally:
            self.free(*[buffer for buffer in self._live if id(buffer) not in before])

    # ---- work ----------------------------------------------------------------------------------

    def compute(
        self, label: str, function: Callable[..., Any], *buffers: Buffer, flops: int = 0
    ) -> None:
        """Run ``function`` on the tiles' arrays, in place; a trace only counts its FLOPs.

        Raises
        ------
        ValueError
            If a tile was freed, or lies where nothing computes.
        """
        check_live(*buffers)
        for buffer in buffers:
            if not self._levels[buffer.level].computes:
                msg = (
                    f"{label}: {buffer.name} is in {buffer.level}, where nothing computes; load it"
                )
                raise ValueError(msg)
        self.flops += flops * self.times
        if self.computing:
            function(*(buffer.data for buffer in buffers))
        self._log("compute", label, "", "", 0)

    @contextlib.contextmanager
    def repeated(self, times: int) -> Iterator[None]:
        """Count what a block does ``times`` times, for heads that are all alike.

        Raises
        ------
        ValueError
            If the memory computes: then every head must be walked.
        """
        if self.computing:
            msg = "repeated() is for traces; with data, walk every head"
            raise ValueError(msg)
        with super().repeated(times):
            yield

    # ---- inside --------------------------------------------------------------------------------

    def _add(self, buffer: Buffer) -> Buffer:
        level = self.system.level(buffer.level)
        used = self.used_bytes[level.name] + buffer.nbytes
        if self.limited and used > level.capacity_bytes:
            raise MemoryLimitError(self._overflow(buffer, used, level.capacity_bytes))
        self.used_bytes[level.name] = used
        self.peak_bytes[level.name] = max(self.peak_bytes[level.name], used)
        self._live.append(buffer)
        return buffer

    def _overflow(self, wanted: Buffer, used: int, capacity: int) -> str:
        held = [buffer for buffer in (*self._live, wanted) if buffer.level == wanted.level]
        parts = ", ".join(f"{buffer.name} {buffer.nbytes}" for buffer in held)
        sizes = ", ".join(f"{name}={size}" for name, size in self._tiles.items())
        advice = " or ".join(self._tiles) or "the tiles"
        return (
            f"{wanted.level} needs {used} bytes{f' for {sizes}' if sizes else ''} ({parts}), "
            f"but holds {capacity}; lower {advice}"
        )

    def _log(self, kind: str, label: str, source: str, target: str, nbytes: int) -> None:
        if self._record:
            event = Event(kind, label, source, target, nbytes, dict(self.used_bytes))
            self.events.append(event)
