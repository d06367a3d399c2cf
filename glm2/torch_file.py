"""Read one ``pytorch_model.bin`` as memory-mapped arrays, without torch."""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from glm2.safetensors_file import AnyArray
from glm2.torch_pickle import TensorView, read_state_dict

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
}
_MAX_PICKLE_BYTES = 64_000_000
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then lengths of name and extra field


def read_torch_file(path: Path) -> dict[str, AnyArray]:
    """Map a file that ``torch.save`` wrote and return its tensors as read-only views.

    Nothing in the file is run: its pickle may hold tensors and nothing else. The data is not read,
    nor its checksum: a page of the file takes memory once a view touches it.

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
        If the file is truncated or damaged, is of torch before 1.6, holds anything but a flat state
        dict, or a tensor has another dtype or lies outside its data.

    References
    ----------
    ``torch.save`` and "Serialized file format for torch.save" in PyTorch's notes; the ZIP format.
    """
    mapped = _map(path)
    try:
        members, pickled = _open_archive(path)
        views = read_state_dict(pickled)
        storages: dict[str, AnyArray] = {}
        tensors = {}
        for name, view in views.items():
            tensors[name] = _tensor(str(name), view, members, mapped, storages)
    except ValueError as error:
        msg = f"{path}: {error}; fetch the file again, or take the checkpoint's safetensors"
        raise ValueError(msg) from error
    return tensors


def _map(path: Path) -> AnyArray:
    """Map the file, once it looks like an archive of torch."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] == b"\x80\x02":
        msg = (
            f"{path} is a torch file from before version 1.6; load and save it again with a newer "
            "torch, or fetch the checkpoint's safetensors"
        )
        raise ValueError(msg)
    if start != b"PK\x03\x04":
        msg = f"{path} is not a file that torch.save wrote, or its start is missing; fetch it again"
        raise ValueError(msg)
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))


def _open_archive(path: Path) -> tuple[dict[str, zipfile.ZipInfo], bytes]:
    """Return the members below the archive's root folder, and the pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if "data.pkl" not in members:
                msg = "it has no data.pkl"
                raise ValueError(msg)
            if members["data.pkl"].file_size > _MAX_PICKLE_BYTES:
                msg = f"its data.pkl claims {members['data.pkl'].file_size} bytes"
                raise ValueError(msg)
            if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
                msg = "its numbers are big-endian"
                raise ValueError(msg)
            return members, archive.read(members["data.pkl"])
    except ValueError:
        raise
    except Exception as error:  # whatever a damaged archive makes zipfile raise
        msg = f"its archive is damaged or truncated ({type(error).__name__}: {error})"
        raise ValueError(msg) from error


def _tensor(
    name: str,
    view: TensorView,
    members: Mapping[str, zipfile.ZipInfo],
    mapped: AnyArray,
    storages: dict[str, AnyArray],
) -> AnyArray:
    """Return a tensor's numbers where they lie, copied only if they are not in order."""
    dtype = view.storage.dtype
    if dtype not in _DTYPES:
        msg = f"{name} is {dtype}; expected one of {', '.join(_DTYPES)}"
        raise ValueError(msg)
    if view.storage.key not in storages:
        storages[view.storage.key] = _storage(view.storage.key, members, mapped)
    raw = storages[view.storage.key]
    itemsize = _DTYPES[dtype].itemsize
    if raw.size != view.storage.num_elems * itemsize:
        msg = f"{name} has {view.storage.num_elems} {dtype} in {raw.size} bytes"
        raise ValueError(msg)
    numbers = (raw.copy() if raw.ctypes.data % itemsize else raw).view(_DTYPES[dtype])
    shape, stride = view.shape, view.stride
    last = view.offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=False))
    in_range = (
        len(shape) == len(stride) <= 8 and min((view.offset, *shape, *stride), default=0) >= 0
    )
    if not in_range or (math.prod(shape) > 0 and last >= numbers.size):
        msg = (
            f"{name} of shape {shape}, stride {stride} and offset {view.offset} lies outside its "
            f"{numbers.size} numbers"
        )
        raise ValueError(msg)
    if math.prod(shape) == 0:
        array = np.empty(shape, numbers.dtype)
    elif stride == _row_major(shape) or math.prod(shape) == 1:
        array = numbers[view.offset : view.offset + math.prod(shape)].reshape(shape)
    elif math.prod(shape) > numbers.size:
        msg = f"{name} of shape {shape} repeats its {numbers.size} numbers"
        raise ValueError(msg)
    else:
        array = np.lib.stride_tricks.as_strided(
            numbers[view.offset :], shape, [s * itemsize for s in stride]
        ).copy()
    array.flags.writeable = False
    return array


def _storage(key: str, members: Mapping[str, zipfile.ZipInfo], mapped: AnyArray) -> AnyArray:
    """Return the bytes of a storage as a view of the file."""
    info = members.get(f"data/{key}")
    if info is None:
        msg = f"it lacks the member data/{key}"
        raise ValueError(msg)
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        msg = f"its member data/{key} is compressed, as torch.save never does"
        raise ValueError(msg)
    header = mapped[info.header_offset : info.header_offset + _LOCAL_HEADER.size].tobytes()
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        msg = f"its member data/{key} does not lie where the archive says"
        raise ValueError(msg)
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    start = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if start + info.file_size > mapped.size:
        msg = f"its member data/{key} ends past the end of the file"
        raise ValueError(msg)
    return mapped[start : start + info.file_size]


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides, in elements, of a contiguous array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
