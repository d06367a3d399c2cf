"""Convert a checkpoint to the packed form or back to the published one, a few rows at a time."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from glm2.checkpoint_files import INDEX_FILE
from glm2.checkpoint_source import CheckpointSource
from glm2.config import read_fields
from glm2.matrix_encoder import encode_packed, encode_published, published_order
from glm2.packed_format import PackedFormat
from glm2.partial_folder import MANIFEST, partial_folder
from glm2.quantized_checkpoint import (
    METADATA,
    is_block_linear,
    packed_specs,
    published_quantized_specs,
    scale_name,
)
from glm2.safetensors_file import AnyArray
from glm2.safetensors_writer import TensorSpec, write_json, write_safetensors
from glm2.weights import EMBEDDING, OUTPUT, plan_shards, published_fields, shard_index
from glm2_reference.config import published_tensor_shapes

Report = Callable[[str, int, int], None]
_STAGE = "Converting"
_MAX_SHARD_BYTES = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class PublishedFormat:
    """The published form to write back.

    Parameters
    ----------
    bits : 8, 4 or None
        None is floats.
    """

    bits: int | None


Target = PackedFormat | PublishedFormat


def convert_checkpoint(
    source: str | Path,
    folder: str | Path,
    target: Target,
    *,
    report: Report,
    max_shard_bytes: int = _MAX_SHARD_BYTES,
    wait: bool = False,
) -> None:
    """Convert a checkpoint folder.

    Parameters
    ----------
    source : str or Path
        Floats in any published form, a published INT8 or INT4 folder, or a packed one.
    folder : str or Path
        Made whole or not at all; an interrupted run of the same conversion goes on where it stopped.
    target : PackedFormat or PublishedFormat
        What to write. Quantised matrices are not quantised anew: they keep their bits, or become
        floats again.
    report : callable
        ``report(stage, done, total)`` in bytes written is called as the work goes on.
    max_shard_bytes : int
        A file holds at most so many bytes of tensors, unless one tensor alone is larger.
    wait : bool
        See `glm2.partial_folder.partial_folder`.

    Raises
    ------
    FileNotFoundError
        If files of the source are missing.
    FileExistsError
        If the folder holds files, or an interrupted run had other settings.
    ValueError
        If the source is damaged, or cannot become the target.
    OSError
        If the disk lacks room, or does not give back what was written.

    Notes
    -----
    Every packed block is unpacked again and compared with the numbers it holds, and every file is
    read back and compared by its SHA-256.
    """
    opened = CheckpointSource(source)
    _check_target(opened, target)
    _Conversion(opened, target, report, max_shard_bytes).run(Path(folder), wait=wait)


def _check_target(source: CheckpointSource, target: Target) -> None:
    """Refuse what would round numbers twice, or has no published form."""
    if isinstance(target, PublishedFormat):
        wanted = "float" if target.bits is None else f"int{target.bits}"
    else:
        wanted = "float" if target.weights == "fp16" else target.weights
    if source.form != "float" and wanted not in ("float", source.form):
        msg = (
            f"{source.folder} is quantised to {source.form} already, and {wanted} would round it twice; "
            f"convert the float checkpoint, or keep {source.form}"
        )
        raise ValueError(msg)
    if isinstance(target, PackedFormat) and source.packed is not None:
        msg = f"{source.folder} is packed already; convert the checkpoint that it was made from"
        raise ValueError(msg)


class _Conversion:
    """One conversion: what is to be written, and how far it is."""

    def __init__(
        self, source: CheckpointSource, target: Target, report: Report, max_shard_bytes: int
    ) -> None:
        self.source = source
        self.target = target
        self.report = report
        self.specs = _target_specs(source, target)
        self.scales: dict[str, list[AnyArray]] = {}
        self.written = 0
        self.total = sum(spec.num_bytes for spec in self.specs.values())
        self.shards = self._plan(max_shard_bytes)
        self.job = {
            "convert": str(source.folder.resolve()),
            "files": source.fingerprint(),
            "target": _described(target),
            "max_shard_bytes": max_shard_bytes,
        }

    def run(self, folder: Path, *, wait: bool) -> None:
        """Write all files that an earlier run has not."""
        packed = isinstance(self.target, PackedFormat)
        options: dict[str, Any] = {"metadata": METADATA, "align_tensors": True} if packed else {}
        with partial_folder(folder, self.job, wait=wait) as partial:
            partial.check_room(self.total)
            for file_name, names in self.shards.items():
                specs = {name: self.specs[name] for name in names}
                if partial.has(file_name):
                    self._advance(sum(spec.num_bytes for spec in specs.values()))
                    continue
                write = functools.partial(
                    write_safetensors, specs=specs, blocks=self._blocks, **options
                )
                partial.add(file_name, write)
            if len(self.shards) > 1:
                write_json(partial.path / INDEX_FILE, shard_index(self.specs, self.shards))
            for path in _companions(self.source.folder, with_code=not packed):
                partial.copy(path)
            write_json(partial.path / "config.json", _config_fields(self.source, self.target))

    def _plan(self, max_shard_bytes: int) -> dict[str, list[str]]:
        """Fill files in order; scales stay with their weights."""
        groups: dict[str, list[str]] = {}
        for name in self.specs:
            weight = name.removesuffix("_scale")
            groups.setdefault(weight if weight in self.specs else name, []).append(name)
        sizes = {
            weight: sum(self.specs[name].num_bytes for name in names)
            for weight, names in groups.items()
        }
        return {
            file_name: [name for weight in weights for name in groups[weight]]
            for file_name, weights in plan_shards(sizes, max_shard_bytes).items()
        }

    def _advance(self, num_bytes: int) -> None:
        self.written += num_bytes
        self.report(_STAGE, self.written, self.total)

    def _blocks(self, name: str) -> Iterator[AnyArray]:
        """Yield a tensor of the target block by block; errors name it."""
        try:
            for block in self._made(name):
                yield block
                self._advance(block.nbytes)
        except ValueError as error:
            msg = f"{self.source.folder}: {name}: {error}"
            raise ValueError(msg) from error

    def _made(self, name: str) -> Iterable[AnyArray]:
        if name in self.scales:
            return self.scales.pop(name)
        if name in self.source.prefix_encoder:
            return [self.source.prefix_encoder[name]]
        if name in (EMBEDDING, OUTPUT) or is_block_linear(name):
            return self._matrix(name)
        vector = self.source.vector(name)
        if isinstance(self.target, PublishedFormat):
            vector = published_order(self.source, name, vector)
        return [vector.astype(self.specs[name].dtype)]

    def _matrix(self, name: str) -> Iterator[AnyArray]:
        """Yield a matrix, and keep its scales for when they are asked for."""
        if isinstance(self.target, PackedFormat):
            encode = functools.partial(encode_packed, self.source, self.target, name)
        else:
            encode = functools.partial(
                encode_published, self.source, self.target.bits, self.source.dtype, name
            )
        scales = self.scales.setdefault(scale_name(name), [])
        for data, scale in _in_threads(encode, self.source.blocks_of_rows(name)):
            if scale is not None:
                scales.append(scale)
            yield data
        if not scales:
            del self.scales[scale_name(name)]


def _in_threads(
    encode: Callable[[slice], tuple[AnyArray, AnyArray | None]], blocks: list[slice]
) -> Iterator[tuple[AnyArray, AnyArray | None]]:
    """Encode blocks side by side and yield them in order, no more at a time than there are threads."""
    num_threads = os.cpu_count() or 1
    waiting = deque(blocks)
    with ThreadPoolExecutor(num_threads) as pool:
        running = deque(pool.submit(encode, waiting.popleft()) for _ in blocks[:num_threads])
        while running:
            done = running.popleft().result()
            if waiting:
                running.append(pool.submit(encode, waiting.popleft()))
            yield done


def _target_specs(source: CheckpointSource, target: Target) -> dict[str, TensorSpec]:
    """Name every tensor to be written."""
    config, dtype = source.config, source.dtype
    if isinstance(target, PackedFormat):
        specs = packed_specs(config, target)
    elif target.bits is None:
        shapes = published_tensor_shapes(config)
        specs = {name: TensorSpec(shape, dtype) for name, shape in shapes.items()}
    else:
        specs = published_quantized_specs(config, target.bits, dtype=dtype)
    for name, array in source.prefix_encoder.items():
        specs[name] = TensorSpec(array.shape, array.dtype.name)
    return specs


def _described(target: Target) -> dict[str, Any]:
    """Describe a target as JSON."""
    if isinstance(target, PackedFormat):
        return target.to_fields()
    return {"published_bits": target.bits}


def _companions(folder: Path, *, with_code: bool) -> list[Path]:
    """Return the files of a folder that a copy of the model needs besides config and weights."""
    patterns = ["*.json", "*.model", "*.jinja", *(["*.py"] if with_code else [])]
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    left_out = {"config.json", MANIFEST}
    return sorted(
        path
        for path in found
        if path.name not in left_out and not path.name.endswith(".index.json")
    )


def _config_fields(source: CheckpointSource, target: Target) -> dict[str, Any]:
    """Return config.json of the converted folder: the source's keys, and what a copy cannot infer."""
    fields = read_fields(source.folder)
    for key in ("glm2", "quantization_bit"):
        fields.pop(key, None)
    known = {"_name_or_path": source.checkpoint.name, "chat_format": source.checkpoint.chat_format}
    fields = {**published_fields(source.config), **known, **fields, "torch_dtype": source.dtype}
    if isinstance(target, PackedFormat):
        return {**fields, "torch_dtype": "float16", "glm2": target.to_fields()}
    return fields if target.bits is None else {**fields, "quantization_bit": target.bits}
