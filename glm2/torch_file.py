"""Read one ``pytorch_model.bin`` as memory-mapped arrays, without torch."""

from __future__ import annotations

import io
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
    "int8": np.dtype(np.int8),
}
# Of the pickle and of the archive's directory: 28 layers take 30 kB. Beyond it, a file is made to
# keep the reader busy.
_MAX_READ_BYTES = 2_000_000
_MAX_COPIES = 2  # of the file, by tensors that do not lie in order
_MAX_RANK = 8
_MAX_ELEMS = 2**48  # numpy's own limits lie above it
_UTF8_NAME = 0x800  # the flag of a member whose name is not in the old code page
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
    tensors : dict of str to float16, float32, bfloat16 or int8 arrays

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
        tensors = {}
        copied_bytes = 0
        for name, view in views.items():
            array = _tensor(name, view, members, mapped)
            if not (array.flags.aligned and array.flags.c_contiguous):
                copied_bytes += array.nbytes
                if copied_bytes > _MAX_COPIES * mapped.size:
                    msg = f"its tensors, {name} among them, are many copies of the same data"
                    raise ValueError(msg)
                array = array.copy()
                array.flags.writeable = False
            tensors[name] = array
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


class _BoundedReader(io.BufferedReader):
    """A file of which no single read may take much: zipfile reads as much as an archive asks."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read ``size`` bytes, or what is left."""
        wanted = _MAX_READ_BYTES + 1 if size is None or size < 0 else size
        data = super().read(min(wanted, _MAX_READ_BYTES + 1))
        if len(data) > _MAX_READ_BYTES:
            msg = f"its directory takes more than {_MAX_READ_BYTES} bytes"
            raise ValueError(msg)
        return data


def _open_archive(path: Path) -> tuple[dict[str, zipfile.ZipInfo], bytes]:
    """Return the members below the archive's root folder, and the pickle."""
    try:
        with _BoundedReader(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
            members = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if "data.pkl" not in members:
                msg = "it has no data.pkl"
                raise ValueError(msg)
            for name in {"data.pkl", "byteorder"} & set(members):
                if members[name].file_size > _MAX_READ_BYTES:
                    msg = f"its {name} claims {members[name].file_size} bytes"
                    raise ValueError(msg)
            if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
                msg = "its numbers are big-endian"
                raise ValueError(msg)
            return members, archive.read(members["data.pkl"])
    except ValueError:
        raise
    except Exception as error:  # whatever a damaged archive makes zipfile raise
        msg = f"its archive is damaged or truncated ({type(error).__name__}: {error!s:.200})"
        raise ValueError(msg) from error


def _tensor(
    name: str, view: TensorView, members: Mapping[str, zipfile.ZipInfo], mapped: AnyArray
) -> AnyArray:
    """Return a tensor's numbers where they lie, in whatever order they lie there."""
    if view.storage.dtype not in _DTYPES:
        msg = f"{name} is {view.storage.dtype}; expected one of {', '.join(_DTYPES)}"
        raise ValueError(msg)
    dtype, num_elems = _DTYPES[view.storage.dtype], view.storage.num_elems
    start, num_bytes = _span(view.storage.key, members, mapped)
    if num_bytes != num_elems * dtype.itemsize:
        msg = f"{name} has {num_elems} {dtype} in {num_bytes} bytes"
        raise ValueError(msg)
    shape, stride = view.shape, view.stride
    if len(shape) > _MAX_RANK or len(shape) != len(stride):
        msg = (
            f"{name} has {len(shape)} axes and {len(stride)} strides; expected as many, up to "
            f"{_MAX_RANK}"
        )
        raise ValueError(msg)
    size = math.prod(shape)
    last = view.offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if (
        min((view.offset, *shape, *stride)) < 0
        or math.prod(n or 1 for n in shape) > _MAX_ELEMS
        or (size and last >= num_elems)
    ):
        msg = (
            f"{name} of shape {shape}, stride {stride} and offset {view.offset} lies outside its "
            f"{num_elems} numbers"
        )
        raise ValueError(msg)
    if size > num_elems:
        msg = f"{name} of shape {shape} repeats its {num_elems} numbers"
        raise ValueError(msg)
    if not size:
        return np.ndarray(shape, dtype, mapped, start)
    steps = [s * dtype.itemsize if n > 1 else 0 for n, s in zip(shape, stride, strict=True)]
    return np.ndarray(shape, dtype, mapped, start + view.offset * dtype.itemsize, steps)


def _span(key: str, members: Mapping[str, zipfile.ZipInfo], mapped: AnyArray) -> tuple[int, int]:
    """Return where in the file a storage starts, and its bytes."""
    info = members.get(f"data/{key}")
    if info is None:
        msg = f"it lacks the member data/{key}"
        raise ValueError(msg)
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        msg = f"its member data/{key} is compressed, as torch.save never does"
        raise ValueError(msg)
    begin = info.header_offset
    header = mapped[begin : begin + _LOCAL_HEADER.size].tobytes() if begin >= 0 else b""
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        msg = f"its member data/{key} does not lie where the archive says"
        raise ValueError(msg)
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    start = begin + _LOCAL_HEADER.size + name_bytes + extra_bytes
    name = mapped[start - extra_bytes - name_bytes : start - extra_bytes].tobytes()
    encoding = "utf-8" if info.flag_bits & _UTF8_NAME else "cp437"
    if name.decode(encoding, errors="replace") != info.orig_filename:
        msg = f"its member data/{key} does not lie where the archive says"
        raise ValueError(msg)
    if start + info.file_size > mapped.size:
        msg = f"its member data/{key} ends past the end of the file"
        raise ValueError(msg)
    return start, info.file_size
