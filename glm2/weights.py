"""Load and save the weights of a published checkpoint folder."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from glm2.safetensors_file import AnyArray, read_safetensors, replacing, write_safetensors
from glm2_reference.config import GLM2Config, published_tensor_shapes

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_IGNORED = "transformer.rotary_pos_emb.inv_freq"  # recomputed in float32


def load_weights(folder: str | Path, config: GLM2Config) -> dict[str, AnyArray]:
    """Map all weights of a published checkpoint folder.

    Parameters
    ----------
    folder : str or Path
        Holds ``model.safetensors``, or shards and ``model.safetensors.index.json``.
    config : GLM2Config
        Says which tensors there must be.

    Returns
    -------
    weights : dict of str to float16, float32 or bfloat16 arrays
        Read-only views of the mapped files, by their published names. Opening reads headers only.

    Raises
    ------
    FileNotFoundError
        If there are no safetensors files, or shards that the index names are missing.
    ValueError
        If a file is damaged, or tensors are missing, unknown or of a wrong shape: one error names
        them all.
    """
    folder = Path(folder)
    weights: dict[str, AnyArray] = {}
    for path, names in _tensors_by_file(folder).items():
        tensors = read_safetensors(path)
        if names is not None and set(tensors) != names:
            msg = (
                f"{path} does not hold what {INDEX_FILE} says: "
                f"{_difference(names, tensors)}; fetch both again"
            )
            raise ValueError(msg)
        weights.update(tensors)
    weights.pop(_IGNORED, None)
    _check_tensors(folder, weights, published_tensor_shapes(config))
    return weights


def save_weights(
    folder: str | Path,
    config: GLM2Config,
    weights: Mapping[str, AnyArray],
    *,
    dtype: str,
    fields: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 2_000_000_000,
) -> None:
    """Write a checkpoint folder in the published layout: config.json and safetensors files.

    Every file is written under a temporary name and then renamed. config.json comes last, so that
    a folder without it is not whole.

    Parameters
    ----------
    folder : str or Path
        Created where it does not exist.
    config : GLM2Config
        Dimensions; written as the published keys.
    weights : mapping of str to array
        By published names. Each is looked up once, so a lazy mapping need not hold them all.
    dtype : "float32", "float16" or "bfloat16"
        The dtype of every array, also written as ``torch_dtype``.
    fields : mapping, optional
        More keys for config.json, such as ``chat_format`` or ``eos_token_id``.
    max_shard_bytes : int
        A shard holds at most so many bytes of tensors, unless one tensor alone is larger.

    Raises
    ------
    FileExistsError
        If the folder holds other model files, which would make two models of one folder.
    ValueError
        If ``weights`` are not those that ``config`` asks for.
    """
    folder = Path(folder)
    shapes = published_tensor_shapes(config)
    if set(weights) != set(shapes):
        msg = f"weights do not fit the config: {_difference(set(shapes), weights)}"
        raise ValueError(msg)
    itemsize = 4 if dtype == "float32" else 2
    shards = _plan_shards(shapes, itemsize, max_shard_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_other_models(folder, {*shards, *([INDEX_FILE] if len(shards) > 1 else [])})
    for file_name, names in shards.items():
        write_safetensors(
            folder / file_name, {name: shapes[name] for name in names}, dtype, weights
        )
    if len(shards) > 1:
        total_bytes = sum(_num_bytes(shape, itemsize) for shape in shapes.values())
        weight_map = {name: file_name for file_name, names in shards.items() for name in names}
        index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
        _write_json(folder / INDEX_FILE, index)
    scaling = {} if config.rope_ratio == 1.0 else {"rope_scaling": config.rope_scaling}
    published = {**config.to_published(), "torch_dtype": dtype, **scaling, **(fields or {})}
    _write_json(folder / "config.json", published)


def _tensors_by_file(folder: Path) -> dict[Path, set[str] | None]:
    """Return the model files and, where there is an index, the names that each must hold."""
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    if single.is_file() and index.is_file():
        msg = f"{folder} holds both {SINGLE_FILE} and {INDEX_FILE}; remove the one that is stale"
        raise ValueError(msg)
    if single.is_file():
        return {single: None}
    if index.is_file():
        return _read_index(folder, index)
    msg = f"{folder} has no {SINGLE_FILE} and no {INDEX_FILE}"
    if any(folder.glob("pytorch_model*.bin")):
        msg += "; its pytorch_model .bin files are pickles, which can run code, and are not read"
    msg += "; fetch the checkpoint's safetensors files"
    raise FileNotFoundError(msg)


def _read_index(folder: Path, index: Path) -> dict[Path, set[str] | None]:
    """Turn the index's weight_map round, and check that its files are there."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        by_file: dict[str, set[str]] = defaultdict(set)
        for name, file_name in weight_map.items():
            by_file[str(file_name)].add(name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{index} has no valid weight_map ({error!r}); fetch the file again"
        raise ValueError(msg) from error
    outside = [name for name in by_file if Path(name).name != name]
    if outside:
        msg = f"{index} names files outside its folder: {', '.join(sorted(outside))}"
        raise ValueError(msg)
    missing = sorted(name for name in by_file if not (folder / name).is_file())
    if missing:
        msg = f"{folder} lacks {', '.join(missing)}, which {INDEX_FILE} names; fetch them"
        raise FileNotFoundError(msg)
    return {folder / file_name: by_file[file_name] for file_name in sorted(by_file)}


def _check_tensors(
    folder: Path, weights: Mapping[str, AnyArray], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise one error that names every missing, unknown and misshapen tensor."""
    problems = []
    if set(weights) != set(shapes):
        problems.append(_difference(set(shapes), weights))
    problems += [
        f"{name} has shape {weights[name].shape}, expected {shape}"
        for name, shape in shapes.items()
        if name in weights and weights[name].shape != shape
    ]
    if problems:
        msg = f"{folder}: the weights do not fit config.json: {'; '.join(problems)}"
        raise ValueError(msg)


def _difference(wanted: Iterable[str], came: Iterable[str]) -> str:
    """Name what is missing and what is unknown."""
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
        match = re.match(r"(.*\.layers\.)(\d+)(\..*)", name)
        key, layer = (f"{match[1]}{{}}{match[3]}", match[2]) if match else (name, "")
        layers[key].append(layer)
    parts = []
    for key, found in sorted(layers.items()):
        numbers = sorted(found, key=lambda text: int(text or 0))
        parts.append(
            key.replace("{}", numbers[0] if len(numbers) == 1 else f"{{{','.join(numbers)}}}")
        )
    return ", ".join(parts)


def _num_bytes(shape: tuple[int, ...], itemsize: int) -> int:
    """Return the bytes of one tensor."""
    return math.prod(shape) * itemsize


def _plan_shards(
    shapes: Mapping[str, tuple[int, ...]], itemsize: int, max_shard_bytes: int
) -> dict[str, list[str]]:
    """Fill shards in order, and name them as published ones are."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        num_bytes = _num_bytes(shape, itemsize)
        if shards[-1] and filled + num_bytes > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += num_bytes
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {
        f"model-{number:05d}-of-{len(shards):05d}.safetensors": names
        for number, names in enumerate(shards, start=1)
    }


def _refuse_other_models(folder: Path, written: set[str]) -> None:
    """Refuse a folder in which the new files would stand beside those of another model."""
    others = sorted({path.name for path in folder.glob("model*.safetensors*")} - written)
    if others:
        msg = f"{folder} already holds {', '.join(others)}; choose an empty folder"
        raise FileExistsError(msg)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file under a temporary name, then rename it."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
