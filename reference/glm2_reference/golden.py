"""Golden files: what the reference computes, for implementations that cannot import it.

    python -m glm2_reference.golden FOLDER           write every file and manifest.json
    python -m glm2_reference.golden FOLDER --check   compute them again and compare

They never check the reference that wrote them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_reference.golden_operators import Arrays
from glm2_reference.golden_subjects import SUBJECTS, Subject

FORMAT = 1
COMMAND = "python -m glm2_reference.golden FOLDER"
MANIFEST = "manifest.json"

# Of an output, relative to its array's largest value: machines differ in sums, exp, cos and pow.
_TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 1e-3}


def write_goldens(folder: str | Path) -> list[Path]:
    """Write the golden file of every subject, then the manifest.

    Each file appears whole or not at all, and on one machine always with the same bytes.

    Parameters
    ----------
    folder : str or Path
        Made if it is not there. Other files in it stay.

    Returns
    -------
    paths : list of Path
        One a subject, then the manifest.

    Raises
    ------
    OSError
        If ``folder`` is a file, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        msg = f"{folder} is a file; name a folder for the golden files"
        raise NotADirectoryError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    entries, paths = {}, []
    for name, subject in SUBJECTS.items():
        arrays = subject.make(np.random.default_rng(subject.seed))
        data = _savez_bytes(arrays)
        paths.append(_replace_file(folder / f"{name}.npz", data))
        entries[f"{name}.npz"] = _describe(subject, arrays, data)
    return [*paths, _replace_file(folder / MANIFEST, _manifest_text(entries).encode())]


def check_goldens(folder: str | Path) -> list[str]:
    """Compute every golden again, in memory, and compare it with what a folder holds.

    Inputs, integers and strings must be equal bit for bit, floating-point outputs within 1e-10
    (float64), 1e-5 (float32) or 1e-3 (float16) of the array's largest value. The manifest must
    describe what the files hold, exactly.

    Parameters
    ----------
    folder : str or Path

    Returns
    -------
    problems : list of str
        One line each, naming the file and the array; empty when all is well.

    Raises
    ------
    OSError
        If ``folder`` is no folder, or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        msg = f"{folder} {what}; name the folder that holds the golden files"
        raise NotADirectoryError(msg)
    entries, problems = _read_manifest(folder / MANIFEST)
    written = {f"{name}.npz" for name in SUBJECTS}
    strays = {path.name for path in folder.glob("*.npz")} | set(entries)
    problems += [f"{name}: no subject writes it; remove it" for name in sorted(strays - written)]
    for name, subject in SUBJECTS.items():
        path = folder / f"{name}.npz"
        found = _check_file(path, subject, entries.get(path.name))
        problems += [f"{path.name}: {problem}" for problem in found]
    return problems


def _savez_bytes(arrays: Arrays) -> bytes:
    """Lay out an .npz in memory; numpy dates every member 1980, so equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _replace_file(path: Path, data: bytes) -> Path:
    """Write under a temporary name first: no reader sees half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        return temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _manifest_text(entries: dict[str, dict[str, Any]]) -> str:
    """Lay the manifest out with one array a line, as people read it and diffs show it."""
    files = []
    for name, entry in entries.items():
        rows = [f"   {json.dumps(key)}: {json.dumps(row)}" for key, row in entry["arrays"].items()]
        fields = [f'"{k}": {json.dumps(entry[k])}' for k in entry if k != "arrays"]
        fields.append('"arrays": {\n' + ",\n".join(rows) + "\n  }")
        files.append(f' "{name}": {{\n  ' + ",\n  ".join(fields) + "\n }")
    head = json.dumps({"format": FORMAT, "command": COMMAND})[1:-1]
    return "{" + head + ', "files": {\n' + ",\n".join(files) + "\n}}\n"


def _describe(subject: Subject, arrays: Arrays, data: bytes) -> dict[str, Any]:
    """Return a file's entry in the manifest."""
    return {
        "seed": subject.seed,
        "made_by": subject.made_by,
        "calls": list(subject.calls),
        "sha256": hashlib.sha256(data).hexdigest(),
        "arrays": {name: _describe_array(array) for name, array in arrays.items()},
    }


def _describe_array(array: npt.NDArray[Any]) -> dict[str, Any]:
    little = array.astype(array.dtype.newbyteorder("<"))
    sha256 = hashlib.sha256(little.tobytes(order="C")).hexdigest()
    return {"shape": list(array.shape), "dtype": array.dtype.name, "sha256": sha256}


def _read_manifest(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the entries by file name, and what is wrong with the manifest as a whole."""
    remedy = "write the golden files again"
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}, [f"{path.name}: it is missing; {remedy}"]
    except (ValueError, RecursionError) as error:
        return {}, [f"{path.name}: it is not valid JSON ({error}); {remedy}"]
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        return {}, [f"{path.name}: it has no object `files`; {remedy}"]
    wanted = {"format": FORMAT, "command": COMMAND}
    return manifest["files"], [
        f"{path.name}: {key} is {manifest.get(key)!r}; expected {value!r}; {remedy}"
        for key, value in wanted.items()
        if manifest.get(key) != value
    ]


def _check_file(path: Path, subject: Subject, entry: Any) -> list[str]:
    """Compare one file with its entry, then with a fresh computation."""
    try:
        data = path.read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as stored_file:
            stored = dict(stored_file)
    except FileNotFoundError:
        return ["it is missing; write the golden files again"]
    except Exception as error:  # noqa: BLE001 (a damaged zip raises whatever it leads to)
        return [f"it cannot be read ({type(error).__name__}: {error}); write the files again"]
    fresh = subject.make(np.random.default_rng(subject.seed))
    return [*_check_entry(_describe(subject, stored, data), entry), *_compare(stored, fresh)]


def _check_entry(described: dict[str, Any], entry: Any) -> list[str]:
    """Say where the manifest's entry is not the description of the file beside it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("arrays"), dict):
        return [f"{MANIFEST} has no entry with `arrays` for it; write the golden files again"]
    problems = [
        f"{MANIFEST} says {key} is {entry.get(key)!r}; expected {described[key]!r}"
        for key in ("seed", "made_by", "calls", "sha256")
        if entry.get(key) != described[key]
    ]
    for name in sorted(described["arrays"].keys() | entry["arrays"].keys()):
        is_so, said = described["arrays"].get(name), entry["arrays"].get(name)
        if is_so != said:
            problems.append(f"array {name} is {is_so}, but {MANIFEST} says {said}")
    return problems


def _compare(stored: Arrays, fresh: Arrays) -> list[str]:
    """Say which stored arrays the reference no longer makes."""
    problems = [f"array {name} is missing" for name in fresh if name not in stored]
    for name, array in stored.items():
        if name not in fresh:
            problems.append(f"array {name} is not one that the reference makes")
        elif difference := _difference(array, fresh[name], exact=".in." in name):
            problems.append(f"array {name} {difference}")
    return problems


def _difference(stored: npt.NDArray[Any], fresh: npt.NDArray[Any], *, exact: bool) -> str | None:
    if (stored.dtype, stored.shape) != (fresh.dtype, fresh.shape):
        return f"is {stored.dtype} {stored.shape}; the reference makes {fresh.dtype} {fresh.shape}"
    if _describe_array(stored) == _describe_array(fresh):
        return None
    tolerance = None if exact else _TOLERANCES.get(fresh.dtype.name)
    if tolerance is None:
        return "is not, bit for bit, what the reference makes; inputs and integers must be"
    ours, theirs = fresh.astype(np.float64), stored.astype(np.float64)
    largest = float(np.max(np.abs(ours), where=np.isfinite(ours), initial=0))
    if np.allclose(theirs, ours, rtol=tolerance, atol=tolerance * largest, equal_nan=True):
        return None
    return (
        f"differs from what the reference makes by more than {tolerance:g} of its largest value, "
        f"{largest:g}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0, or 1 when ``--check`` finds something."""
    parser = argparse.ArgumentParser(
        prog="python -m glm2_reference.golden",
        description="Write what the reference computes as .npz files with a manifest, or check them.",
    )
    parser.add_argument("folder", help="where the files are or go")
    parser.add_argument("--check", action="store_true", help="write nothing: recompute and compare")
    arguments = parser.parse_args(argv)
    if not arguments.folder:
        parser.error("FOLDER is empty; name the folder of the golden files")
    try:
        if not arguments.check:
            written = write_goldens(arguments.folder)
            sys.stdout.write("".join(f"{path}\n" for path in written))
            return 0
        problems = check_goldens(arguments.folder)
    except OSError as error:
        parser.error(f"{error}")
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    if not problems:
        sys.stdout.write(f"{len(SUBJECTS)} golden files are what the reference makes\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
