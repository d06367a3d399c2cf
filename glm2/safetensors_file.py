"""Read one safetensors file as memory-mapped arrays, and write one atomically."""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_NAMES = {dtype.name: name for name, dtype in _DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_ALIGNMENT_BYTES = 64
# numpy's own limits lie above these, and its errors name no file.
_MAX_RANK = 8
_MAX_ELEMS = 2**48


def read_safetensors(path: Path) -> dict[str, AnyArray]:
    """Map a safetensors file and return its tensors as read-only views.

    Nothing but the header is read: a page of the file takes memory once a view touches it.

    Parameters
    ----------
    path : Path
        The file. It must stay unchanged for as long as a view lives.

    Returns
    -------
    tensors : dict of str to float16, float32 or bfloat16 arrays

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is truncated, its header is damaged, or a tensor has another dtype.

    References
    ----------
    The safetensors format: 8 bytes little-endian header length, JSON header, data.
    """
    header, data_start = _read_header(path)
    file_bytes = path.stat().st_size
    _check_layout(path, header, file_bytes - data_start)
    mapped = np.memmap(path, dtype=np.uint8, mode="r") if file_bytes > data_start else None
    tensors = {}
    for name, entry in header.items():
        dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
        begin, end = (data_start + offset for offset in entry["data_offsets"])
        raw = np.empty(0, np.uint8) if mapped is None else np.asarray(mapped)[begin:end]
        if begin % dtype.itemsize:
            raw = raw.copy()  # another writer's odd offset: views on it would be unaligned
        tensors[name] = raw.view(dtype).reshape(shape)
        tensors[name].flags.writeable = False
    return tensors


def _read_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the header without metadata, and the file offset at which data starts."""
    file_bytes = path.stat().st_size
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        if file_bytes < 8 or not 2 <= header_bytes <= min(file_bytes - 8, _MAX_HEADER_BYTES):
            msg = (
                f"{path} is {file_bytes} bytes and claims a header of {header_bytes}; it is "
                "truncated or not a safetensors file; fetch it again"
            )
            raise ValueError(msg)
        raw = file.read(header_bytes)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        msg = f"{path} has a damaged header ({error}); fetch the file again"
        raise ValueError(msg) from error
    if not isinstance(header, dict):
        msg = f"{path} has a header that is a JSON {type(header).__name__}; fetch the file again"
        raise ValueError(msg)
    header.pop("__metadata__", None)
    return header, 8 + header_bytes


def _check_layout(path: Path, header: Mapping[str, Any], data_bytes: int) -> None:
    """Check each entry, and that the tensors fill the data without gap, overlap or missing end."""
    spans = []
    for name, entry in header.items():
        match entry:
            case {
                "dtype": str(dtype),
                "shape": list(shape),
                "data_offsets": [int(begin), int(end)],
            }:
                pass
            case _:
                msg = f"{path} has a damaged header entry for {name}; fetch the file again"
                raise ValueError(msg)
        if not _is_shape(shape):
            msg = f"{path} gives {name} the shape {shape!s:.200}; fetch the file again"
            raise ValueError(msg)
        if dtype not in _DTYPES:
            msg = f"{path} stores {name} as {dtype}; expected one of {', '.join(_DTYPES)}"
            raise ValueError(msg)
        wanted_bytes = math.prod(shape) * _DTYPES[dtype].itemsize
        if end - begin != wanted_bytes:
            msg = (
                f"{path} puts {name} at bytes {begin!s:.20} to {end!s:.20}, but {dtype} of shape "
                f"{tuple(shape)} takes {wanted_bytes}; fetch the file again"
            )
            raise ValueError(msg)
        spans.append((begin, end, name))
    position = 0
    for begin, end, name in sorted(spans):
        if begin != position:
            msg = f"{path} puts {name} at byte {begin}, expected {position}; fetch the file again"
            raise ValueError(msg)
        position = end
    if position != data_bytes:
        msg = (
            f"{path} holds {data_bytes} bytes of tensors and its header names {position}; "
            "the file is truncated or damaged; fetch it again"
        )
        raise ValueError(msg)


def _is_shape(shape: list[Any]) -> bool:
    """Tell whether numpy can have an array of such a shape."""
    return (
        len(shape) <= _MAX_RANK
        and all(type(length) is int and 0 <= length <= _MAX_ELEMS for length in shape)
        and math.prod(length or 1 for length in shape) <= _MAX_ELEMS
    )


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str, tensors: Mapping[str, AnyArray]
) -> None:
    """Write tensors of one dtype to a file that appears whole or not at all.

    Parameters
    ----------
    path : Path
        The file to write; an existing one is replaced.
    shapes : mapping of str to tuple of int
        Names and shapes, in the order to write. Data starts at a multiple of 64 bytes.
    dtype : "float32", "float16" or "bfloat16"
        The dtype of every tensor.
    tensors : mapping of str to array
        Looked up once a name, in order, so that a lazy mapping need not hold them all.

    Raises
    ------
    ValueError
        If an array has another shape or dtype.
    """
    if dtype not in _NAMES:
        msg = f"dtype is {dtype!r}; expected one of {', '.join(_NAMES)}"
        raise ValueError(msg)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # what published files carry
    position = 0
    for name, shape in shapes.items():
        end = position + math.prod(shape) * _DTYPES[_NAMES[dtype]].itemsize
        offsets = [position, end]
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": offsets}
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-(8 + len(raw)) % _ALIGNMENT_BYTES)
    with replacing(path) as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name, shape in shapes.items():
            array = tensors[name]
            if array.shape != shape or array.dtype.name != dtype:
                msg = f"{name} is {array.dtype} {array.shape}; expected {dtype} {shape}"
                raise ValueError(msg)
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


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
