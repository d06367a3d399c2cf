"""Writes torch's archive format without torch, right or wrong as a test wants it."""

from __future__ import annotations

import struct
import zipfile

import numpy as np

STORAGES = {"float16": "HalfStorage", "bfloat16": "BFloat16Storage", "float32": "FloatStorage"}


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value):
    return (
        b"J" + struct.pack("<i", value)
        if -(2**31) <= value < 2**31
        else b"\x8a\x09" + value.to_bytes(9, "little", signed=True)
    )


def integers(values):
    return b"(" + b"".join(map(integer, values)) + b"t"


def named(module, name):
    return f"c{module}\n{name}\n".encode()


def storage(kind, key, num_elems):
    return (
        b"("
        + text("storage")
        + named("torch", kind)
        + text(key)
        + text("cpu")
        + integer(num_elems)
        + b"tQ"
    )


def tensor(kind, key, num_elems, offset, shape, stride):
    """Call _rebuild_tensor_v2 as torch.save does."""
    arguments = storage(kind, key, num_elems) + integer(offset) + integers(shape) + integers(stride)
    hooks = named("collections", "OrderedDict") + b")R"
    return named("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"\x89" + hooks + b"tR"


def state_dict(entries):
    """Pickle of a dict whose values are pickled already."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in entries.items()) + b"u."


def row_major(shape):
    return [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]


def aligned(archive, name, alignment=64):
    """Describe a member whose data starts at a multiple of ``alignment``, as torch pads it."""
    info = zipfile.ZipInfo(name)
    start = archive.fp.tell() + 30 + len(name.encode()) + 4
    info.extra = struct.pack("<2sH", b"FB", -start % alignment) + bytes(-start % alignment)
    return info


def write_torch_file(path, tensors, *, pickled=None, compression=zipfile.ZIP_STORED, members=None):
    """Write arrays by name; ``pickled`` and ``members`` replace what is right."""
    files, entries = {}, {}
    for key, (name, array) in enumerate(tensors.items()):
        kind = STORAGES[array.dtype.name]
        entries[name] = tensor(kind, str(key), array.size, 0, array.shape, row_major(array.shape))
        files[f"data/{key}"] = np.ascontiguousarray(array).reshape(-1).view(np.uint8).tobytes()
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", state_dict(entries) if pickled is None else pickled)
        archive.writestr("archive/byteorder", b"little")
        for name, data in (files | (members or {})).items():
            if data is not None:
                archive.writestr(aligned(archive, f"archive/{name}"), data, compression)
        archive.writestr("archive/version", b"3\n")
    return path
