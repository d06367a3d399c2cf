"""Load and save the weights of a published checkpoint folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm2.checkpoint_files import INDEX_FILE, SINGLE_FILE, difference, misfits, read_tensors
from glm2.safetensors_file import AnyArray
from glm2.safetensors_writer import TensorSpec, write_json, write_safetensors
from glm2_reference.config import GLM2Config, published_tensor_shapes

_IGNORED = "transformer.rotary_pos_emb.inv_freq"  # recomputed in float32
PREFIX_ENCODER = "transformer.prefix_encoder."
EMBEDDING = "transformer.embedding.word_embeddings.weight"
OUTPUT = "transformer.output_layer.weight"
_FLOATS = ("float32", "float16", "bfloat16")


def load_weights(folder: str | Path, config: GLM2Config) -> dict[str, AnyArray]:
    """Map all weights of a published checkpoint folder.

    Parameters
    ----------
    folder : str or Path
        See `glm2.checkpoint_files.read_tensors`, also for its errors.
    config : GLM2Config
        Says which tensors there must be. Those of a prefix encoder may be there as well.

    Returns
    -------
    weights : dict of str to float16, float32 or bfloat16 arrays
        Read-only views of the mapped files, by their published names. Opening reads headers only.

    Raises
    ------
    FileNotFoundError
        If there are no weights, or shards that the index names are missing.
    ValueError
        If a file is damaged, or tensors are missing, unknown or of a wrong shape: one error names
        them all.
    """
    folder = Path(folder)
    weights = read_model_tensors(folder, config)
    _check_tensors(folder, weights, published_tensor_shapes(config))
    return weights


def read_model_tensors(folder: Path, config: GLM2Config) -> dict[str, AnyArray]:
    """Map a published folder's tensors but those that are no weights of the model.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load_weights` does; that they are the right ones is not checked.
    """
    weights = {
        name: array
        for name, array in read_tensors(folder).items()
        if name != _IGNORED and not str(name).startswith(PREFIX_ENCODER)
    }
    if config.tie_word_embeddings and OUTPUT in weights:
        _drop_tied_copy(folder, weights)
    return weights


def _drop_tied_copy(folder: Path, weights: dict[str, AnyArray]) -> None:
    """Leave out an output layer that repeats the embedding, and refuse one that does not."""
    output, embedding = weights.pop(OUTPUT), weights.get(EMBEDDING)
    if embedding is not None and not _same_bytes(output, embedding):
        msg = (
            f"{folder}: config.json has tie_word_embeddings = true, but {OUTPUT} differs from the "
            "embedding; fetch config.json again"
        )
        raise ValueError(msg)


def _same_bytes(a: AnyArray, b: AnyArray) -> bool:
    """Compare row by row: at once would take as much memory again."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    rows = zip(*(np.atleast_1d(x).view(np.uint8) for x in (a, b)), strict=True)
    return all(np.array_equal(row, other) for row, other in rows)


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
    if dtype not in _FLOATS:
        msg = f"dtype is {dtype!r}; expected one of {', '.join(_FLOATS)}"
        raise ValueError(msg)
    shapes = published_tensor_shapes(config)
    if set(weights) != set(shapes):
        msg = f"weights do not fit the config: {difference(set(shapes), weights)}"
        raise ValueError(msg)
    specs = {name: TensorSpec(shape, dtype) for name, shape in shapes.items()}
    shards = plan_shards({name: spec.num_bytes for name, spec in specs.items()}, max_shard_bytes)
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_other_models(folder, {*shards, *([INDEX_FILE] if len(shards) > 1 else [])})
    for file_name, names in shards.items():
        write_safetensors(
            folder / file_name,
            {name: specs[name] for name in names},
            lambda name: _whole(name, weights[name], shapes[name]),
        )
    if len(shards) > 1:
        write_json(folder / INDEX_FILE, shard_index(specs, shards))
    write_json(
        folder / "config.json", {**published_fields(config), "torch_dtype": dtype, **(fields or {})}
    )


def _whole(name: str, array: AnyArray, shape: tuple[int, ...]) -> list[AnyArray]:
    """Return a weight as one block, once it has the shape that it should."""
    if array.shape != shape:
        msg = f"{name} is {array.dtype} {array.shape}; expected {array.dtype} {shape}"
        raise ValueError(msg)
    return [array]


def published_fields(config: GLM2Config) -> dict[str, Any]:
    """Return the keys of config.json that describe a model, ``rope_scaling`` where it matters."""
    scaling = {} if config.rope_ratio == 1.0 else {"rope_scaling": config.rope_scaling}
    return {**config.to_published(), **scaling}


def _check_tensors(
    folder: Path, weights: Mapping[str, AnyArray], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise one error that names every missing, unknown and misshapen tensor."""
    problems = misfits(weights, shapes) + [
        f"{name} is {array.dtype}, expected one of {', '.join(_FLOATS)}"
        for name, array in weights.items()
        if array.dtype.name not in _FLOATS
    ]
    if problems:
        msg = f"{folder}: the weights do not fit config.json: {'; '.join(problems)}"
        raise ValueError(msg)


def plan_shards(num_bytes: Mapping[str, int], max_shard_bytes: int) -> dict[str, list[str]]:
    """Fill files in order, and name them as published ones are: file name to tensor names."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in num_bytes.items():
        if shards[-1] and filled + size > max_shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {
        f"model-{number:05d}-of-{len(shards):05d}.safetensors": names
        for number, names in enumerate(shards, start=1)
    }


def shard_index(specs: Mapping[str, TensorSpec], shards: Mapping[str, list[str]]) -> dict[str, Any]:
    """Return what the index file of several shards holds."""
    weight_map = {name: file_name for file_name, names in shards.items() for name in names}
    total_bytes = sum(spec.num_bytes for spec in specs.values())
    return {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}


def _refuse_other_models(folder: Path, written: set[str]) -> None:
    """Refuse a folder in which the new files would stand beside those of another model."""
    others = sorted({path.name for path in folder.glob("model*.safetensors*")} - written)
    if others:
        msg = f"{folder} already holds {', '.join(others)}; choose an empty folder"
        raise FileExistsError(msg)
