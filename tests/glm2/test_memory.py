"""How much memory is free, read from made-up system files."""

from __future__ import annotations

import re

import pytest

import glm2.memory
from glm2.memory import available_bytes, total_bytes


@pytest.fixture
def system(monkeypatch):
    """``system(name=text)`` puts up system files by name, other characters as underscores."""

    def build(**files):
        def read(path):
            return files.get(re.sub(r"\W", "_", path.name), "")

        monkeypatch.setattr(glm2.memory, "_read", read)

    return build


MEMINFO = "MemTotal:  2000 kB\nMemFree: 1 kB\nMemAvailable:  1000 kB\nSwapFree:  24 kB\n"


def test_machine_alone(system):
    system(meminfo=MEMINFO)
    assert available_bytes() == 1024 * 1024
    assert total_bytes() == 2000 * 1024


def test_container_limit_is_smaller(system):
    system(
        meminfo=MEMINFO,
        cgroup="0::/job\n",
        memory_max="500000\n",
        memory_current="400000\n",
        memory_stat="anon 100\nfile 300000\n",
    )
    assert available_bytes() == 400_000  # page cache can be dropped


@pytest.mark.parametrize("limit", ["max\n", ""])
def test_container_without_a_limit(system, limit):
    system(meminfo=MEMINFO, cgroup="0::/\n", memory_max=limit, memory_current="5\n")
    assert available_bytes() == 1024 * 1024


def test_unknown_system(system):
    system()
    assert available_bytes() is None
    assert total_bytes() is None


def test_this_machine():
    assert available_bytes() > 0
    assert total_bytes() > 10**8
