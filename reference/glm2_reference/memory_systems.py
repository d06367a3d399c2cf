"""The machines that schedules are counted on: their memories, outermost first, and what may move.

Figures are public ones, rounded, and peaks; only the CPU's were measured, on two AVX2 cores.
"""

from __future__ import annotations

import dataclasses
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Level:
    """One kind of memory.

    Parameters
    ----------
    name : str
        "hbm", "sram", "gm", "l1", ...
    capacity_bytes : int
        What one core may hold in it; of the whole device for the outermost level.
    bandwidth_gbps : float
        GB/s (1e9) of the whole device, reads and writes together.
    computes : bool
        Whether arithmetic can read and write it. What lies elsewhere must be loaded first.
    """

    name: str
    capacity_bytes: int
    bandwidth_gbps: float
    computes: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemorySystem:
    """The memories of one machine.

    Parameters
    ----------
    name, title : str
        What a command line takes, and what a reader sees.
    levels : tuple of Level
        Outermost first.
    moves : frozenset of (str, str)
        Pairs of levels that data can move between, from and to.
    matmul_gflops : float
        Peak of 16-bit matrix products (32-bit on the CPU), of the whole device.

    References
    ----------
    A100: Dao et al. 2022, figure 1, and the vendor's data sheet. Ascend A2: the vendor's public
    documentation of the 910B (24 cores at 1.8 GHz; UB without the 8 KB that instructions use).
    """

    name: str
    title: str
    levels: tuple[Level, ...]
    moves: frozenset[tuple[str, str]]
    matmul_gflops: float

    @property
    def outermost(self) -> Level:
        """The level that inputs and outputs lie in."""
        return self.levels[0]

    @property
    def compute_level(self) -> Level:
        """The first level that arithmetic works in."""
        return next(level for level in self.levels if level.computes)

    def level(self, name: str) -> Level:
        """Return the level called ``name``.

        Raises
        ------
        ValueError
            If there is none.
        """
        for level in self.levels:
            if level.name == name:
                return level
        names = ", ".join(level.name for level in self.levels)
        msg = f"{self.name} has no memory called {name!r}; it has {names}"
        raise ValueError(msg)


def _both_ways(*pairs: tuple[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(pairs) | {(dst, src) for src, dst in pairs}


A100: Final = MemorySystem(
    name="a100",
    title="A100 (HBM, SRAM of one multiprocessor)",
    levels=(
        Level(name="hbm", capacity_bytes=40 * GIB, bandwidth_gbps=1555),
        Level(name="sram", capacity_bytes=192 * KIB, bandwidth_gbps=19_000, computes=True),
    ),
    moves=_both_ways(("hbm", "sram")),
    matmul_gflops=312_000,
)

ASCEND_A2: Final = MemorySystem(
    name="ascend_a2",
    title="Ascend A2 (GM, L2, and L1, L0, UB of one core)",
    levels=(
        Level(name="gm", capacity_bytes=64 * GIB, bandwidth_gbps=1600),
        Level(name="l2", capacity_bytes=192 * MIB, bandwidth_gbps=7000),
        Level(name="l1", capacity_bytes=512 * KIB - 256, bandwidth_gbps=16_600),
        Level(name="l0a", capacity_bytes=64 * KIB, bandwidth_gbps=11_000, computes=True),
        Level(name="l0b", capacity_bytes=64 * KIB, bandwidth_gbps=5500, computes=True),
        Level(name="l0c", capacity_bytes=128 * KIB, bandwidth_gbps=11_000, computes=True),
        Level(name="ub", capacity_bytes=184 * KIB, bandwidth_gbps=22_000, computes=True),
    ),
    moves=frozenset({
        *((outer, inner) for outer in ("gm", "l2") for inner in ("l1", "ub")),
        *((inner, outer) for outer in ("gm", "l2") for inner in ("l0c", "ub")),
        *(("l1", "l0a"), ("l1", "l0b"), ("l0c", "l1")),
    }),
    matmul_gflops=354_000,
)  # fmt: skip

CPU: Final = MemorySystem(
    name="cpu",
    title="CPU (DRAM, L2 of one core; two AVX2 cores)",
    levels=(
        Level(name="dram", capacity_bytes=16 * GIB, bandwidth_gbps=39),
        Level(name="cache", capacity_bytes=1 * MIB, bandwidth_gbps=200, computes=True),
    ),
    moves=_both_ways(("dram", "cache")),
    matmul_gflops=204,
)

SYSTEMS: Final = {system.name: system for system in (A100, ASCEND_A2, CPU)}
