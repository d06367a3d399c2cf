"""Keep MindSpore's compiled graphs between processes: a warm start skips the compilation.

A graph holds no weights (they are call arguments), so one serves every checkpoint of a shape. Each
graph has a folder of its own, named after all that it depends on. The first process compiles into a
private folder and renames it when the graph has run; later ones only read it, once they have seen
that its files are those that were written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import mindspore as ms

from glm2 import attention, layers, transformer
from glm2_ops import library_path
from glm2_ops.mindspore import attention as attention_cells
from glm2_ops.mindspore import custom
from glm2_ops.mindspore import layers as layer_cells
from glm2_ops.mindspore import quant as quant_cells
from glm2_ops.mindspore import rope as rope_cell
from glm2_reference.config import GLM2Config

_MANIFEST = "manifest.json"
_SOURCES = (
    transformer,
    attention,
    layers,
    attention_cells,
    custom,
    layer_cells,
    quant_cells,
    rope_cell,
)


def graph_key(config: GLM2Config, *dtypes: str) -> str:
    """Name everything that the compiled graph of a model depends on, in 32 hex digits."""
    facts = {
        "config": dataclasses.asdict(config),
        "dtypes": dtypes,
        "mindspore": ms.__version__,
        "library": str(library_path()),
        "program": str(Path(sys.argv[0]).resolve()),  # MindSpore hashes the files that it imports
        "sources": [
            hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()
            for module in _SOURCES
        ],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


@contextlib.contextmanager
def compile_cache(folder: Path, key: str) -> Generator[None, None, None]:
    """Compile with the cache ``folder / key``: read it, or make it if the block succeeds.

    In a program without a file (``python -c``, an interactive session) nothing is kept, for
    MindSpore's cache wants to read that file. Nor where ``folder`` cannot be written.

    Parameters
    ----------
    folder : Path
        Where all graphs are kept; created where it does not exist.
    key : str
        From `graph_key`.
    """
    if not Path(sys.argv[0]).is_file():
        yield
        return
    final = folder / key
    if _is_whole(final):
        with _environment(final):
            yield
        return
    shutil.rmtree(final, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder, prefix=".compiling-"))
    except OSError:  # a graph can be compiled each time: no reason to fail
        yield
        return
    try:
        with _environment(made):
            yield
        with contextlib.suppress(OSError):  # a full disk, or another process that was first
            (made / _MANIFEST).write_text(json.dumps(_hashes(made)), encoding="utf-8")
            made.rename(final)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below ``folder``, the manifest excepted."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }


def _is_whole(folder: Path) -> bool:
    """Whether ``folder`` holds the very files that its manifest lists."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        return bool(manifest) and _hashes(folder) == manifest
    except (OSError, ValueError, RecursionError):
        return False


@contextlib.contextmanager
def _environment(path: Path) -> Generator[None, None, None]:
    """Point MindSpore at ``path`` for as long as the block runs."""
    wanted = {
        "MS_COMPILER_CACHE_ENABLE": "1",
        "MS_COMPILER_CACHE_PATH": str(path),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
