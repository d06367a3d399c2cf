"""Read one safetensors file as memory-mapped arrays."""

from __future__ import annotations

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

AnyArray = npt.NDArray[Any]

PADDING = "__padding__."  # names of tensors that only fill gaps
DTYPES: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit
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
    tensors : dict of str to float16, float32, bfloat16, int8 or uint8 arrays
        Those that only fill gaps are left out.

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
    header, _, data_start = _read_header(path)
    file_bytes = path.stat().st_size
    _check_layout(path, header, file_bytes - data_start)
    mapped = np.memmap(path, dtype=np.uint8, mode="r") if file_bytes > data_start else None
    tensors = {}
    for name, entry in header.items():
        if name.startswith(PADDING):
            continue
        dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
        begin, end = (data_start + offset for offset in entry["data_offsets"])
        raw = np.empty(0, np.uint8) if mapped is None else np.asarray(mapped)[begin:end]
        if begin % dtype.itemsize:
            raw = raw.copy()  # another writer's odd offset: views on it would be unaligned
        tensors[name] = raw.view(dtype).reshape(shape)
        tensors[name].flags.writeable = False
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Return the ``__metadata__`` of a safetensors file; empty where it has none.

    Errors are those of `read_safetensors`.
    """
    return _read_header(path)[1]


def forget_pages(array: AnyArray) -> None:
    """Give back the memory of a mapped array's pages; they are read anew when touched again.

    Without it a pass over a large file would hold all of it resident. Of an array that is no view of
    a mapped file, or lies there with gaps, and on systems that cannot, nothing happens.
    """
    base: Any = array
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    contiguous = array.flags.c_contiguous or array.flags.f_contiguous
    if base is None or not array.nbytes or not contiguous or not hasattr(mmap, "MADV_DONTNEED"):
        return
    begin = array.ctypes.data - np.frombuffer(base, np.uint8).ctypes.data
    first = begin // mmap.PAGESIZE * mmap.PAGESIZE
    base.madvise(mmap.MADV_DONTNEED, first, begin + array.nbytes - first)


def _read_header(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """Return the header without metadata, the metadata, and where in the file data starts."""
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
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        metadata = {}
    return header, {str(key): str(value) for key, value in metadata.items()}, 8 + header_bytes


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
        if dtype not in DTYPES:
            msg = f"{path} stores {name} as {dtype}; expected one of {', '.join(DTYPES)}"
            raise ValueError(msg)
        wanted_bytes = math.prod(shape) * DTYPES[dtype].itemsize
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
