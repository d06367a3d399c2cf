"""The file that ``glm2 generate`` writes: claimed before anything is loaded, whole or partial."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import typer


@dataclasses.dataclass
class Output:
    """An output that this process alone writes.

    Parameters
    ----------
    file : text file
        Stands beside the output as ``<name>.partial`` until all answers are there.
    num_done, num_failed : int
        Answers of an earlier run, and the errors among them.
    """

    file: IO[str]
    num_done: int
    num_failed: int


@contextlib.contextmanager
def claimed_output(path: Path, source: str, *, resume: bool) -> Iterator[Output]:
    """Claim an output; it appears once the block has succeeded.

    Parameters
    ----------
    path : Path
        An existing file is replaced; a link's target is written, not the link.
    source : str
        The input, which must be another file.
    resume : bool
        Go on with what an interrupted run has left.

    Raises
    ------
    FileNotFoundError, FileExistsError, ValueError
        If it cannot be written, another run writes it, or one has left something.
    """
    path = path.resolve()
    _check_path(path, source)
    partial = path.with_name(f"{path.name}.partial")
    existed = partial.is_file()
    if existed and not resume:
        msg = f"{partial} is left from an interrupted run; pass --resume to go on, or delete it"
        raise FileExistsError(msg)
    with partial.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"another run is writing {partial}; wait for it, or name another output"
            raise FileExistsError(msg) from None
        try:
            num_done, num_failed = _count_answers(partial)
            yield Output(file, num_done, num_failed)
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
        except BaseException as error:
            file.flush()
            if not existed and partial.stat().st_size == 0:
                partial.unlink()
            elif isinstance(error, KeyboardInterrupt):
                typer.echo(f"\nglm2: stopped; --resume goes on from {partial}", err=True)
            raise


def _check_path(path: Path, source: str) -> None:
    """Refuse what could not be written at the end."""
    if not path.parent.is_dir() or path.is_dir():
        msg = (
            f"--output {path} cannot be a file there; make the folder {path.parent}, or name a file"
        )
        raise FileNotFoundError(msg)
    if path.exists() and not path.is_file():
        msg = f"--output {path} is no regular file; leave --output out and redirect stdout there"
        raise ValueError(msg)
    if path.exists() and Path(source).exists() and path.samefile(source):
        msg = f"{path} is both the input and --output; name another file"
        raise ValueError(msg)


def _count_answers(partial: Path) -> tuple[int, int]:
    """Count the whole lines of an earlier run, and the errors among them; drop half of one."""
    data = partial.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    num_failed = 0
    for number, line in enumerate(whole.split(b"\n")[:-1]):
        try:
            answer = json.loads(line)
            numbered = type(answer["index"]) is int and answer["index"] == number
        except (ValueError, TypeError, KeyError, RecursionError):
            numbered = False
        if not numbered:
            msg = f"{partial} is not what an interrupted run leaves (line {number + 1}); delete it"
            raise ValueError(msg)
        num_failed += "error" in answer
    os.truncate(partial, len(whole))
    return whole.count(b"\n"), num_failed
