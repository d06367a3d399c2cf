"""A checkpoint folder that appears whole or not at all, and whose building can be resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from glm2.safetensors_writer import replacing, write_json

MANIFEST = "glm2-manifest.json"
_BLOCK_BYTES = 1 << 22
_SPARE_BYTES = 100_000_000  # on the disk, besides what is written


@dataclasses.dataclass
class PartialFolder:
    """A folder being built, under the name of the final one and ``.partial``.

    Parameters
    ----------
    path : Path
        Where files go until all are there.
    job : mapping
        What is built from what, as JSON. A folder of another job is never gone on with.
    files : dict of str to str
        SHA-256 of the files that are whole.
    """

    path: Path
    job: Mapping[str, Any]
    files: dict[str, str]

    def add(self, name: str, write: Callable[[Path], str]) -> None:
        """Have ``write(path)`` make a file and return its SHA-256; read it back and compare.

        Raises
        ------
        OSError
            If the disk does not give back what was written.
        """
        sha256 = write(self.path / name)
        if file_sha256(self.path / name) != sha256:
            msg = f"{self.path / name} reads back other bytes than were written; check the disk"
            raise OSError(msg)
        self.files[name] = sha256
        self._write_manifest()

    def copy(self, source: Path) -> None:
        """Copy a small file under its own name."""
        with replacing(self.path / source.name) as file:
            file.write(source.read_bytes())

    def check_room(self, total_bytes: int) -> None:
        """Refuse to start what would fill the disk.

        Raises
        ------
        OSError
            If it has no room for ``total_bytes`` of files, those that are there already left out.
        """
        paths = (self.path / name for name in self.files)
        there = sum(path.stat().st_size for path in paths if path.is_file())
        needed = total_bytes - there + _SPARE_BYTES
        free_bytes = shutil.disk_usage(self.path).free
        if free_bytes < needed:
            msg = (
                f"{self.path} needs {needed / 1e9:.1f} GB more and its disk has "
                f"{free_bytes / 1e9:.1f} GB free; make room, or choose a folder on another disk"
            )
            raise OSError(msg)

    def has(self, name: str) -> bool:
        """Whether an earlier run made the file whole; one that has changed since is made again."""
        path = self.path / name
        if name in self.files and path.is_file() and file_sha256(path) == self.files[name]:
            return True
        self.files.pop(name, None)
        return False

    def _write_manifest(self) -> None:
        write_json(self.path / MANIFEST, {"job": self.job, "sha256": self.files})


@contextlib.contextmanager
def partial_folder(
    target: Path, job: Mapping[str, Any], *, wait: bool = False
) -> Iterator[PartialFolder]:
    """Build a folder under a temporary name and rename it when the block succeeds.

    Files are written beside their names and renamed, and listed with their hash in a manifest, so
    that whatever a kill leaves, the next run of the same job goes on with whole files only. The
    manifest stays: it says how the folder was made.

    Parameters
    ----------
    target : Path
        The folder to make. It must not exist, or be empty.
    job : mapping
        JSON values that say what is built from what.
    wait : bool
        Wait for another process that is building it; if it succeeds, that is a FileExistsError.

    Raises
    ------
    FileExistsError
        If ``target`` holds files, or ``target.partial`` those of another job.
    BlockingIOError
        If another process is building it, and ``wait`` is false.
    """
    job = json.loads(json.dumps(job))
    _refuse_existing(target)
    path = target.absolute().with_name(f"{target.absolute().name}.partial")
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path, wait=wait):
        _refuse_existing(target)  # another process may have built it just now
        folder = PartialFolder(path, job, _resumed(path, job))
        folder._write_manifest()
        yield folder
        path.rename(target)


def _refuse_existing(target: Path) -> None:
    """Refuse to write where something is."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        msg = (
            f"{target} already exists and is not an empty folder; choose another name or delete it"
        )
        raise FileExistsError(msg)


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a folder; the system frees it when a process dies."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            msg = f"another process is writing {path}; wait until it has ended"
            raise BlockingIOError(msg) from error
        yield
    finally:
        os.close(handle)


def _resumed(path: Path, job: Mapping[str, Any]) -> dict[str, str]:
    """Read which files an interrupted run of the same job has made, and remove what it had not."""
    manifest = path / MANIFEST
    if not manifest.is_file():
        leftovers = [
            entry for entry in path.iterdir() if not entry.name.startswith(f".{MANIFEST}.")
        ]
        if leftovers:
            msg = f"{path} holds files that no interrupted run left; delete it"
            raise FileExistsError(msg)
        found: dict[str, Any] = {"job": job, "sha256": {}}
    else:
        try:
            read = json.loads(manifest.read_text(encoding="utf-8"))
            sha256 = {str(name): str(value) for name, value in read["sha256"].items()}
            found = {"job": dict(read["job"]), "sha256": sha256}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            msg = f"{manifest} is damaged ({type(error).__name__}); delete {path} and start again"
            raise ValueError(msg) from error
    if found["job"] != job:
        changed = sorted(
            key for key in {*job, *found["job"]} if job.get(key) != found["job"].get(key)
        )
        msg = (
            f"{path} was begun with other settings ({', '.join(changed)}); delete it, or give the "
            "ones that it was begun with"
        )
        raise FileExistsError(msg)
    for entry in path.iterdir():
        if entry.is_file() and entry.name not in {MANIFEST, *found["sha256"]}:
            entry.unlink()
    return dict(found["sha256"])


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
