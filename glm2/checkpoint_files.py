"""Which files of a checkpoint folder hold its tensors, and reading them all."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from glm2.safetensors_file import AnyArray, read_safetensors
from glm2.torch_file import read_torch_file

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs"
# In this order: where both kinds are there, they hold the same, and safetensors map best.
_KINDS: tuple[tuple[str, str, Callable[[Path], dict[str, AnyArray]]], ...] = (
    (SINGLE_FILE, INDEX_FILE, read_safetensors),
    ("pytorch_model.bin", "pytorch_model.bin.index.json", read_torch_file),
)


def read_tensors(folder: str | Path) -> dict[str, AnyArray]:
    """Map every tensor of a checkpoint folder.

    Parameters
    ----------
    folder : str or Path
        Holds ``model.safetensors``, or its shards and ``model.safetensors.index.json``, or the same
        of ``pytorch_model.bin``. Where both are there, safetensors are read.

    Returns
    -------
    tensors : dict of str to float16, float32, bfloat16, int8 or uint8 arrays
        Read-only views of the mapped files, by their published names.

    Raises
    ------
    FileNotFoundError
        If there are no such files, or shards that the index names are missing.
    ValueError
        If a file is damaged, or does not hold what the index says.
    """
    folder = Path(folder)
    for single_name, index_name, read in _KINDS:
        single, index = folder / single_name, folder / index_name
        if single.is_file() and index.is_file():
            msg = (
                f"{folder} holds both {single_name} and {index_name}; remove the one that is stale"
            )
            raise ValueError(msg)
        if single.is_file():
            _refuse_pointer(single)
            return read(single)
        if index.is_file():
            return _read_shards(folder, index, read)
    wanted = ", ".join(name for single, index, _ in _KINDS for name in (single, index))
    msg = f"{folder} has none of {wanted}; fetch the checkpoint's weights"
    raise FileNotFoundError(msg)


def weight_files(folder: str | Path) -> list[Path]:
    """Return the files that `read_tensors` reads, shards as the index names them; none if there are none."""
    folder = Path(folder)
    for single_name, index_name, _ in _KINDS:
        if (folder / single_name).is_file():
            return [folder / single_name]
        if (folder / index_name).is_file():
            return list(_read_index(folder, folder / index_name))
    return []


def has_weights(folder: str | Path) -> bool:
    """Whether a folder holds weights in one of the forms, whole or not."""
    return any((Path(folder) / name).is_file() for *names, _ in _KINDS for name in names)


def _read_shards(
    folder: Path, index: Path, read: Callable[[Path], dict[str, AnyArray]]
) -> dict[str, AnyArray]:
    """Read the files that an index names, and compare what they hold with it; one error for all."""
    tensors: dict[str, AnyArray] = {}
    problems = []
    for path, names in _read_index(folder, index).items():
        try:
            _refuse_pointer(path)
            found = read(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if set(found) != names:
            problems.append(
                f"{path} does not hold what {index.name} says: {difference(names, found)}; fetch "
                "both again"
            )
        tensors.update(found)
    if problems:
        raise ValueError("\n".join(problems))
    return tensors


def _refuse_pointer(path: Path) -> None:
    """Refuse what a clone without Git LFS has in the place of a large file."""
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            msg = f"{path} is a Git LFS pointer, not the file; run git lfs pull in {path.parent}"
            raise ValueError(msg)


def _read_index(folder: Path, index: Path) -> dict[Path, set[str]]:
    """Turn the index's weight_map round, and check that its files are there."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        by_file: dict[str, set[str]] = defaultdict(set)
        for name, file_name in weight_map.items():
            by_file[str(file_name)].add(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error!s:.200}"
        msg = f"{index} has no valid weight_map ({reason}); fetch the file again"
        raise ValueError(msg) from error
    outside = sorted(name for name in by_file if Path(name).name != name or "\0" in name)
    if outside:
        msg = f"{index} names files outside its folder: {', '.join(map(repr, outside))}; fetch it again"
        raise ValueError(msg)
    missing = sorted(name for name in by_file if not (folder / name).is_file())
    if missing:
        msg = f"{folder} lacks {', '.join(missing)}, which {index.name} names; fetch them"
        raise FileNotFoundError(msg)
    return {folder / file_name: by_file[file_name] for file_name in sorted(by_file)}


def misfits(tensors: Mapping[str, AnyArray], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Name every tensor that is missing, unknown or misshapen."""
    problems = [difference(shapes, tensors)] if set(tensors) != set(shapes) else []
    problems += [
        f"{name} has shape {tensors[name].shape}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and tensors[name].shape != shape
    ]
    return problems


def difference(wanted: Iterable[str], came: Iterable[str]) -> str:
    """Name what is missing and what is unknown; layers that lack the same as one."""
    missing, unknown = set(wanted) - set(came), set(came) - set(wanted)
    parts = []
    if missing:
        parts.append(f"missing {_summary(missing)}")
    if unknown:
        parts.append(f"unknown {_summary(unknown)}")
    return "; ".join(parts)


def _summary(names: Iterable[str]) -> str:
    """List names, those that differ in the layer alone as one."""
    layers: dict[str, list[str]] = defaultdict(list)
    for name in names:
        match = re.match(r"(.*\.layers\.)(\d{1,9})(\..*)", str(name), re.DOTALL)
        key, layer = (f"{match[1]}{{}}{match[3]}", match[2]) if match else (str(name), "")
        layers[key].append(layer)
    parts = []
    for key, found in sorted(layers.items()):
        numbers = sorted(found, key=lambda text: int(text or 0))
        parts.append(
            key.replace("{}", numbers[0] if len(numbers) == 1 else f"{{{','.join(numbers)}}}")
        )
    return ", ".join(parts)
