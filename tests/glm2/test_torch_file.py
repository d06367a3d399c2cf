"""torch's files without torch: real ones, and all that a wrong one may try."""

from __future__ import annotations

import json
import mmap
import os
import pickle
import runpy
import struct
import types
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2.checkpoint_files import read_tensors
from glm2.torch_file import read_torch_file

# Test modules are no package, so a helper beside them is loaded by its path.
writer = types.SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("torch_writer.py"))))
integer, named, text = writer.integer, writer.named, writer.text
state_dict, storage, tensor = writer.state_dict, writer.storage, writer.tensor
write_torch_file = writer.write_torch_file

RECORDED = Path(__file__).parents[1] / "golden" / "torch"
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(scope="module")
def drawn():
    """What record_torch.py drew."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in ((5, 7), (7,), (4, 6))]


def same(got, wanted):
    assert got.dtype == wanted.dtype
    assert got.shape == wanted.shape
    assert np.array_equal(got, wanted)
    return True


def test_shards_that_torch_wrote(tmp_path, drawn):
    for name in ("shard-1.bin", "shard-2.bin"):
        (tmp_path / name).write_bytes((RECORDED / name).read_bytes())
    index = (RECORDED / "index.json").read_text()
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    got = read_tensors(tmp_path)
    assert sorted(got) == ["a", "b", "c"]
    assert all(same(got[name], x.astype(np.float16)) for name, x in zip("abc", drawn, strict=True))


def test_bfloat16_parameters_and_tied_tensors_that_torch_wrote(drawn):
    got = read_torch_file(RECORDED / "bfloat16.bin")
    assert same(got["weight"], drawn[0].astype(BFLOAT16))
    assert same(got["tied"], drawn[0].astype(BFLOAT16))
    assert same(got["parameter"], drawn[1].astype(BFLOAT16))
    assert np.shares_memory(got["weight"], got["tied"])


def test_views_that_torch_wrote(drawn):
    got = read_torch_file(RECORDED / "views.bin")
    whole = drawn[0]
    assert same(got["rows"], whole[1:3])
    assert same(got["transposed"], whole.T)
    assert same(got["scalar"], whole[2, 3, ...])
    assert same(got["none"], whole[:0])


def test_newer_pickle_protocol(drawn):
    assert same(read_torch_file(RECORDED / "protocol4.bin")["a"], drawn[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int64", "steps is int64; expected one of float16, bfloat16, float32"),
        ("nested", "its entry 'state_dict' is a dict, not a tensor; save the state dict alone"),
        ("legacy", r"torch file from before version 1\.6; load and save it again"),
        ("module", r"it asks for torch\.nn\.modules\.linear\.Linear, which is no tensor"),
    ],
)
def test_other_files_that_torch_wrote_are_refused(name, message):
    with pytest.raises(ValueError, match=rf"{name}\.bin.* {message}"):
        read_torch_file(RECORDED / f"{name}.bin")


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.dictionaries(
        st.text(min_size=1, max_size=9), st.lists(st.integers(0, 4), max_size=4), max_size=5
    ),
    dtype=st.sampled_from([np.dtype(np.float16), np.dtype(np.float32), BFLOAT16]),
)
def test_any_state_dict_reads_back(tmp_path_factory, shapes, dtype):
    rng = np.random.default_rng(0)
    tensors = {name: np.array(rng.standard_normal(shape), dtype) for name, shape in shapes.items()}
    path = write_torch_file(tmp_path_factory.mktemp("bin") / "x.bin", tensors)
    got = read_torch_file(path)
    assert list(got) == list(tensors)
    assert all(same(got[name], tensors[name]) for name in tensors)


def test_files_that_torch_wrote_are_mapped_not_copied():
    for array in read_torch_file(RECORDED / "shard-1.bin").values():
        owner = array
        while owner is not None and not isinstance(owner, mmap.mmap):
            owner = owner.obj if isinstance(owner, memoryview) else owner.base
        assert isinstance(owner, mmap.mmap)
        assert not array.flags.writeable


class Opener:
    """Pickles to a call that makes a file."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


HOSTILE = {
    "os.system": (named("posix", "system") + text("true") + b"\x85R", "posix.system"),
    "eval": (named("builtins", "eval") + text("1") + b"\x85R", "builtins.eval"),
    "partial": (named("functools", "partial") + b")R", "functools.partial"),
    "torch.load": (named("torch", "load") + text("x") + b"\x85R", "torch.load"),
    "stack global": (
        text("builtins") + text("exec") + b"\x93" + text("1") + b"\x85R",
        "builtins.exec",
    ),
    "instance": (b"(" + b"iposix\nsystem\n", "instruction INST"),
    "object": (b"(" + named("collections", "OrderedDict") + b"o", "instruction OBJ"),
    "extension": (b"\x82\x01", "instruction EXT1"),
    "frozen set": (b"(\x91", "instruction FROZENSET"),
    "float": (b"G" + struct.pack(">d", 1.0), "instruction BINFLOAT"),
    "called tensor": (tensor("FloatStorage", "0", 1, 0, [1], [1]) + b")R", "calls TensorView"),
    "called dict": (b"}" + b")R", "calls dict with wrong arguments"),
    "ordered dict of numbers": (
        named("collections", "OrderedDict") + integer(3) + b"\x85R",
        "wrong arguments",
    ),
    "key that is slow to hash": (
        named("collections", "OrderedDict")
        + b"]("
        + b"))\x86"
        + integer(1)
        + b"\x86"
        + b"e"
        + b"\x85R",
        "a key of type tuple",
    ),
    "persistent id": (b"(" + text("storage") + text("x") + b"tQ", "refers to data in a way"),
    "number as persistent id": (integer(3) + b"Q", "refers to data in a way"),
    "storage class of nobody": (named("torch", "QInt8Storage") + b"0", "torch.QInt8Storage"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_by_name(tmp_path, name):
    body, message = HOSTILE[name]
    path = write_torch_file(tmp_path / "x.bin", {}, pickled=state_dict({"x": body}))
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        read_torch_file(path)


def test_nothing_is_called(tmp_path):
    canary = tmp_path / "canary"
    for protocol in (2, 4):
        pickled = pickle.dumps({"x": Opener(canary)}, protocol=protocol)
        path = write_torch_file(tmp_path / "x.bin", {}, pickled=pickled)
        with pytest.raises(
            ValueError, match=r"it asks for posix\.system, .*; do not load|so do not load this"
        ):
            read_torch_file(path)
        assert not canary.exists()
        with zipfile.ZipFile(path) as archive:
            pickle.loads(archive.read("archive/data.pkl"))  # an ordinary unpickler would have
        assert canary.exists()
        canary.unlink()


BROKEN = {
    "empty": b"",
    "no end": b"\x80\x02}",
    "empty stack": b"\x80\x02.",
    "no mark": b"\x80\x02}u.",
    "no memo": b"\x80\x02h\x05.",
    "huge memo": b"\x80\x02}r\xff\xff\xff\x7f.",  # a list-backed memo would take 16 GB
    "huge text": b"\x80\x02}X\xff\xff\xff\x7fx.",
    "long of length past the end": b"\x80\x02\x8a\xff\x01.",
    "nested lists": b"\x80\x02" + b"](" * 50_000 + b".",
    "odd items": b"\x80\x02}(" + text("a") + b"u.",
    "items of a list": b"\x80\x02](" + text("a") + text("b") + b"u.",
    "append to a dict": b"\x80\x02}" + text("a") + b"a.",
    "not utf-8": b"\x80\x02}X\x01\x00\x00\x00\xff.",
    "unknown opcode": b"\x80\x02\xff.",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles_are_clear_errors(tmp_path, name):
    path = write_torch_file(tmp_path / "x.bin", {}, pickled=BROKEN[name])
    if name == "huge memo":
        assert read_torch_file(path) == {}
        return
    with pytest.raises(ValueError, match=r"x\.bin: .*; fetch the file again"):
        read_torch_file(path)


BOUNDS = {
    "offset": tensor("FloatStorage", "0", 6, 3, [4], [1]),
    "negative offset": tensor("FloatStorage", "0", 6, -1, [4], [1]),
    "shape": tensor("FloatStorage", "0", 6, 0, [7], [1]),
    "negative shape": tensor("FloatStorage", "0", 6, 0, [-1], [1]),
    "stride": tensor("FloatStorage", "0", 6, 0, [3], [3]),
    "negative stride": tensor("FloatStorage", "0", 6, 5, [3], [-1]),
    "huge": tensor("FloatStorage", "0", 6, 0, [2**40, 2**40], [1, 1]),
    "huge and zero stride": tensor("FloatStorage", "0", 6, 0, [2**40], [0]),
    "none of huge rows": tensor("FloatStorage", "0", 6, 0, [0, 2**70], [1, 1]),
    "a little repeated": tensor("FloatStorage", "0", 6, 0, [7, 1], [0, 1]),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_tensors_outside_their_storage_are_refused(tmp_path, name):
    data = {"data/0": np.arange(6, dtype=np.float32).tobytes()}
    path = write_torch_file(
        tmp_path / "x.bin", {}, pickled=state_dict({"x": BOUNDS[name]}), members=data
    )
    with pytest.raises(
        ValueError, match=r"x of shape .* (lies outside its 6 numbers|repeats its 6)"
    ):
        read_torch_file(path)


@pytest.mark.parametrize(("shape", "stride"), [([2, 3], [1]), ([1] * 40, [1] * 40)])
def test_tensors_of_wrong_rank_are_refused(tmp_path, shape, stride):
    pickled = state_dict({"x": tensor("FloatStorage", "0", 6, 0, shape, stride)})
    path = write_torch_file(tmp_path / "x.bin", {}, pickled=pickled, members={"data/0": bytes(24)})
    with pytest.raises(ValueError, match=rf"x has {len(shape)} axes and {len(stride)} strides"):
        read_torch_file(path)


def test_stride_of_an_axis_of_one_does_not_matter(tmp_path):
    data = {"data/0": np.arange(6, dtype=np.float32).tobytes()}
    for stride in (0, 7, 2**70):
        view = tensor("FloatStorage", "0", 6, 1, [1, 3], [stride, 1])
        path = write_torch_file(
            tmp_path / "x.bin", {}, pickled=state_dict({"x": view}), members=data
        )
        assert read_torch_file(path)["x"].tolist() == [[1, 2, 3]]


def test_overlapping_strides_are_served(tmp_path):
    data = {"data/0": np.arange(6, dtype=np.float32).tobytes()}
    view = tensor("FloatStorage", "0", 6, 1, [2, 2], [1, 2])
    path = write_torch_file(tmp_path / "x.bin", {}, pickled=state_dict({"x": view}), members=data)
    assert read_torch_file(path)["x"].tolist() == [[1, 3], [2, 4]]


def test_storages_that_do_not_fit_their_member(tmp_path):
    right = tensor("FloatStorage", "0", 6, 0, [6], [1])
    pickled = state_dict({"x": right})
    cases = {
        "lacks the member data/0": {"data/0": None},
        r"x has 6 float32 in 20 bytes": {"data/0": bytes(20)},
    }
    for message, members in cases.items():
        path = write_torch_file(tmp_path / "x.bin", {}, pickled=pickled, members=members)
        with pytest.raises(ValueError, match=message):
            read_torch_file(path)
    odd = state_dict({"x": storage("FloatStorage", "0", 6)})
    path = write_torch_file(tmp_path / "x.bin", {}, pickled=odd, members={"data/0": bytes(24)})
    with pytest.raises(ValueError, match="its entry 'x' is a Storage, not a tensor"):
        read_torch_file(path)


def test_numbered_tensors_are_refused(tmp_path):
    numbered = b"\x80\x02}(" + integer(5) + tensor("FloatStorage", "0", 6, 0, [6], [1]) + b"u."
    path = write_torch_file(tmp_path / "x.bin", {}, pickled=numbered, members={"data/0": bytes(24)})
    with pytest.raises(ValueError, match="its entry 5 has no name"):
        read_torch_file(path)


def test_shared_tuples_are_not_written_out(tmp_path):
    """A pair of itself, forty times: its text would take a terabyte."""
    pairs = b"".join(bytes([*b"h", i, *b"h", i, *b"\x86q", i + 1]) for i in range(40))
    for use in (text("x") + b"\x93", b"Q", b")R", b"0."):
        path = write_torch_file(
            tmp_path / "x.bin", {}, pickled=b"\x80\x02)q\x00" + pairs + use + b"."
        )
        with pytest.raises(ValueError, match=r"x\.bin: .*; fetch the file again"):
            read_torch_file(path)


def test_pickle_too_long_to_read_is_refused(tmp_path):
    path = write_torch_file(tmp_path / "x.bin", {}, pickled=b"\x80\x02" + b"N" * 2**21 + b".")
    with pytest.raises(ValueError, match=r"its data\.pkl claims 2097155 bytes"):
        read_torch_file(path)


def test_members_that_unpack_to_much_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/byteorder", bytes(10_000_000))
    with pytest.raises(ValueError, match="its byteorder claims 10000000 bytes"):
        read_torch_file(tmp_path / "x.bin")


def test_directory_too_long_to_read_is_refused(tmp_path):
    names = {f"data/{index:01000}": b"" for index in range(2000)}
    path = write_torch_file(tmp_path / "x.bin", {}, members=names)
    with pytest.raises(ValueError, match="its directory takes more than 2000000 bytes"):
        read_torch_file(path)


def test_many_copies_of_the_same_data_are_refused(tmp_path):
    data = {"data/0": np.zeros(10_000, np.float32).tobytes()}
    for count in (2, 50):
        views = {
            f"x{index}": tensor("FloatStorage", "0", 10_000, 0, [100, 100], [1, 100])
            for index in range(count)
        }
        path = write_torch_file(tmp_path / "x.bin", {}, pickled=state_dict(views), members=data)
        if count == 2:
            assert len(read_torch_file(path)) == count
            continue
        with pytest.raises(ValueError, match="x2 among them, are many copies of the same data"):
            read_torch_file(path)


def test_member_that_lies_elsewhere_is_refused(tmp_path):
    path = write_torch_file(tmp_path / "x.bin", {"x": np.zeros(9, np.float32)})
    raw = path.read_bytes()
    place = raw.index(b"archive/data/0")  # of the local header; the directory comes later
    for damaged in (
        raw[:place] + b"archive/data/1" + raw[place + 14 :],
        raw[: place - 30] + b"XX" + raw[place - 28 :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="data/0 does not lie where the archive says"):
            read_torch_file(path)


def test_unaligned_storage_is_read_right(tmp_path):
    tensors = {"x": np.arange(5, dtype=np.float32)}
    path = write_torch_file(tmp_path / "x.bin", tensors)
    starts = set()
    for shift in range(4):  # junk before an archive is allowed, if it looks like one
        junk = b"PK\x03\x04" + bytes(shift)
        shifted = tmp_path / f"{shift}.bin"
        shifted.write_bytes(junk + path.read_bytes())
        got = read_torch_file(shifted)["x"]
        assert got.flags.aligned
        assert same(got, tensors["x"])
        starts.add(got.flags.owndata)
    assert starts == {False, True}


def test_compressed_archive_is_refused(tmp_path):
    x = np.zeros(1000, np.float32)
    path = write_torch_file(tmp_path / "x.bin", {"x": x}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"data/0 is compressed, as torch\.save never does"):
        read_torch_file(path)


def test_big_endian_is_refused(tmp_path):
    path = write_torch_file(tmp_path / "x.bin", {}, members={})
    data = path.read_bytes().replace(b"little", b"big   ")
    path.write_bytes(data)
    with pytest.raises(ValueError, match="archive is damaged"):  # the checksum no longer fits
        read_torch_file(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("a/byteorder", b"big")
    with pytest.raises(ValueError, match="its numbers are big-endian"):
        read_torch_file(path)


@pytest.mark.parametrize("keep", [0, 3, 100, -1, -30, -200])
def test_truncated_files(tmp_path, keep):
    path = write_torch_file(tmp_path / "x.bin", {"x": np.zeros(300, np.float32)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"x\.bin.*fetch"):
        read_torch_file(path)


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "x.bin")


def test_index_of_bin_shards_is_checked(tmp_path):
    write_torch_file(tmp_path / "a.bin", {"a": np.zeros(2, np.float32)})
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "a.bin", "b": "b.bin"}}))
    with pytest.raises(
        FileNotFoundError, match=r"lacks b\.bin, which pytorch_model\.bin\.index\.json"
    ):
        read_tensors(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "a.bin", "b": "a.bin"}}))
    with pytest.raises(ValueError, match=r"a\.bin does not hold what .* says: missing b"):
        read_tensors(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../a.bin"}}))
    with pytest.raises(ValueError, match="names files outside its folder"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_git_lfs_pointers_are_told(tmp_path, name):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(
        ValueError, match=rf"{name} is a Git LFS pointer, not the file; run git lfs"
    ):
        read_tensors(tmp_path)
