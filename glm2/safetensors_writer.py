"""Write safetensors files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from glm2.safetensors_file import DTYPES, PADDING, AnyArray

ALIGNMENT_BYTES = 64
_NAMES = {dtype.name: name for name, dtype in DTYPES.items()}
_PUBLISHED_METADATA = {"format": "pt"}  # what published files carry


@dataclasses.dataclass(frozen=True)
class TensorSpec:
    """Shape and dtype of one tensor to be written.

    Parameters
    ----------
    shape : tuple of int
    dtype : str
        "float32", "float16", "bfloat16", "int8" or "uint8".
    """

    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in _NAMES:
            msg = f"dtype is {self.dtype!r}; expected one of {', '.join(_NAMES)}"
            raise ValueError(msg)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * DTYPES[_NAMES[self.dtype]].itemsize


def write_safetensors(
    path: Path,
    specs: Mapping[str, TensorSpec],
    blocks: Callable[[str], Iterable[AnyArray]],
    *,
    metadata: Mapping[str, str] = _PUBLISHED_METADATA,
    align_tensors: bool = False,
) -> str:
    """Write tensors to a file that appears whole or not at all.

    Parameters
    ----------
    path : Path
        The file to write; an existing one is replaced.
    specs : mapping of str to TensorSpec
        What to write, in this order. Data starts at a multiple of 64 bytes.
    blocks : callable
        ``blocks(name)`` gives a tensor's elements in their order, as one array or several. Called
        once a name, in order, so that nothing but a block need be held.
    metadata : mapping of str to str
        The header's ``__metadata__``.
    align_tensors : bool
        Whether every tensor is to start at a multiple of 64 bytes. The format has no room for gaps:
        they are filled with uint8 tensors named ``__padding__.N``.

    Returns
    -------
    sha256 : str
        Of the file, in hex digits.

    Raises
    ------
    ValueError
        If the blocks of a tensor are of another dtype, or not as many elements as its shape has.
    """
    order = _with_padding(specs) if align_tensors else dict(specs)
    raw = _header(order, metadata)
    digest = hashlib.sha256(raw)
    with replacing(path) as file:
        file.write(raw)
        for name, spec in order.items():
            padding = [np.zeros(spec.shape, np.uint8)] if name.startswith(PADDING) else None
            _write_tensor(file, digest.update, name, spec, padding or blocks(name))
    return digest.hexdigest()


def _with_padding(specs: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Put a filling tensor behind each one that ends between two multiples of the alignment."""
    order: dict[str, TensorSpec] = {}
    for name, spec in specs.items():
        order[name] = spec
        gap = -spec.num_bytes % ALIGNMENT_BYTES
        if gap:
            order[f"{PADDING}{len(order)}"] = TensorSpec((gap,), "uint8")
    return order


def _header(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Lay out the header, its length first, so that data starts at a multiple of the alignment."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for name, spec in specs.items():
        offsets = [position, position + spec.num_bytes]
        dtype, shape = _NAMES[spec.dtype], list(spec.shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        position = offsets[1]
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % ALIGNMENT_BYTES)
    return len(raw).to_bytes(8, "little") + raw


def _write_tensor(
    file: IO[bytes],
    update_digest: Callable[[Any], None],
    name: str,
    spec: TensorSpec,
    blocks: Iterable[AnyArray],
) -> None:
    """Write the blocks of a tensor, and see that they are the tensor that the header names."""
    written = 0
    for block in blocks:
        if block.dtype.name != spec.dtype or written + block.nbytes > spec.num_bytes:
            msg = f"{name} is {block.dtype} {block.shape}; expected {spec.dtype} {spec.shape}"
            raise ValueError(msg)
        data = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
        update_digest(data)
        file.write(data)
        written += block.nbytes
    if written != spec.num_bytes:
        msg = f"{name} has {written} bytes; expected {spec.dtype} {spec.shape}"
        raise ValueError(msg)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file under a temporary name, then rename it."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file beside ``path`` that takes its name once the block has succeeded."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    """Return the process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
