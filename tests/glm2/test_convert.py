"""Conversion of checkpoints: every source to every target, on small shapes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from glm2.config import read_checkpoint_config
from glm2.convert import PublishedFormat, convert_checkpoint
from glm2.packed_format import PackedFormat
from glm2.quantized_checkpoint import (
    load_packed,
    load_published_quantized,
    packed_specs,
    published_quantized_specs,
)
from glm2.safetensors_file import read_metadata
from glm2.synthetic_checkpoint import LIKE, make_checkpoint
from glm2.weights import EMBEDDING, OUTPUT, load_weights, save_weights
from glm2_ops import unpack_weight
from glm2_reference import quant
from glm2_reference.config import published_tensor_shapes
from glm2_reference.testing import random_weights

MQA = dataclasses.replace(LIKE["tiny"], vocab_size=331)  # 331 rows fill no stripe of 16
MHA = dataclasses.replace(MQA, multi_query_attention=False, num_kv_heads=4)
TIED = dataclasses.replace(MQA, tie_word_embeddings=True, add_qkv_bias=False)
CONFIGS = {"mqa": MQA, "mha": MHA, "tied": TIED}
LINEARS = ("query_key_value.weight", "dense.weight", "h_to_4h.weight", "4h_to_h.weight")
FORMATS = ("fp16", "int8", "int4", "int4-g128", "int4-g64", "int4-g32")
GROUPS = {"int4-g128": 128, "int4-g64": 64, "int4-g32": 32}


def nothing(stage, done, total):
    del stage, done, total


def convert(source, target, wanted, **options):
    convert_checkpoint(source, target, wanted, report=options.pop("report", nothing), **options)
    return target


def packed_format(weights="int4", head="int8", activation_bits=8):
    return PackedFormat(weights=weights, head=head, activation_bits=activation_bits)


@pytest.fixture
def source(tmp_path):
    """``source(config, dtype)``: a published float checkpoint and its weights."""

    def build(config=MQA, dtype=np.float16, **options):
        weights = {
            name: array.astype(dtype)
            for name, array in random_weights(config, np.random.default_rng(5)).items()
        }
        save_weights(tmp_path / "source", config, weights, dtype=np.dtype(dtype).name, **options)
        return tmp_path / "source", weights

    return build


def quantized(weight, weight_format):
    """The reference's numbers: values and float32 scales."""
    if weight_format == "fp16":
        return weight.astype(np.float16), np.ones(len(weight), np.float32)
    if weight_format in GROUPS:
        return quant.quantize_groups(weight, group_size=GROUPS[weight_format])
    values, scale = quant.quantize_rows(weight, bits=8 if weight_format == "int8" else 4)
    return values, scale.astype(np.float32)


def q_then_k_then_v(config, name, rows):
    """Re-lay published rows of query_key_value, row by row."""
    if "query_key_value" not in name or config.multi_query_attention:
        return rows
    parts = [[], [], []]
    for row in range(len(rows)):
        parts[row // config.head_dim % 3].append(rows[row])
    return np.array([row for part in parts for row in part])


def same(got, wanted):
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert got.tobytes() == wanted.tobytes()


def unpacked(tensors, name, shape, weight_format):
    return unpack_weight(
        tensors[name], out_features=shape[0], in_features=shape[1], format=weight_format
    )


def check_packed(folder, config, weights, wanted):
    """Every tensor of a packed folder is what the reference makes of the weights."""
    checkpoint = read_checkpoint_config(folder)
    assert (checkpoint.config, checkpoint.packed) == (config, wanted)
    tensors = load_packed(folder, config, wanted)
    shapes = published_tensor_shapes(config) | {OUTPUT: (config.vocab_size, config.hidden_size)}
    weights = {OUTPUT: weights[EMBEDDING]} | weights
    for name, shape in shapes.items():
        if name == EMBEDDING:
            same(tensors[name], weights[name].astype(np.float16))
        elif name.endswith(LINEARS) or name == OUTPUT:
            weight_format = wanted.head if name == OUTPUT else wanted.weights
            values, scale = quantized(weights[name], weight_format)
            got = unpacked(tensors, name, shape, weight_format)
            same(got, q_then_k_then_v(config, name, values))
            same(tensors[f"{name}_scale"], q_then_k_then_v(config, name, scale))
        else:
            wanted_vector = q_then_k_then_v(config, name, weights[name].astype(np.float32))
            same(tensors[name], wanted_vector)
    assert set(tensors) == set(packed_specs(config, wanted))


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("family", CONFIGS)
def test_packed_numbers_are_the_references(source, tmp_path, family, weights):
    head = {"fp16": "fp16", "int8": "int8"}.get(weights, "int4")
    folder, floats = source(CONFIGS[family])
    if weights == "int4-g128" and family != "tied":
        config = dataclasses.replace(CONFIGS[family], ffn_hidden_size=256)
        folder, floats = source(config)
    config = read_checkpoint_config(folder).config
    if config.ffn_hidden_size % GROUPS.get(weights, 1):
        with pytest.raises(ValueError, match="expected a multiple of 128"):
            convert(folder, tmp_path / "packed", packed_format(weights, head))
        return
    wanted = packed_format(weights, head, 16 if weights == "fp16" else 8)
    check_packed(convert(folder, tmp_path / "packed", wanted), config, floats, wanted)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
def test_packed_from_other_floats(source, tmp_path, dtype):
    folder, floats = source(MQA, dtype)
    wanted = packed_format("int4", "int4")
    check_packed(convert(folder, tmp_path / "packed", wanted), MQA, floats, wanted)


def test_files_are_aligned_named_and_whole(source, tmp_path):
    folder, _ = source(MQA)
    (folder / "tokenizer.model").write_bytes(b"pieces")
    (folder / "modeling_chatglm.py").write_text("never run")
    wanted = packed_format()
    packed = convert(folder, tmp_path / "packed", wanted, max_shard_bytes=60_000)
    files = sorted(packed.glob("*.safetensors"))
    assert len(files) > 3
    for path in files:
        assert read_metadata(path) == {"format": "glm2-packed", "layout": "1"}
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        for name, entry in json.loads(raw[8 : 8 + length]).items():
            if name != "__metadata__" and not name.startswith("__padding__."):
                assert (8 + length + entry["data_offsets"][0]) % 64 == 0
        assert safetensors.numpy.load_file(path)  # a valid file for the format's own library
    names = {path.name for path in packed.iterdir()} - {path.name for path in files}
    assert names == {
        "config.json", "glm2-manifest.json", "model.safetensors.index.json", "tokenizer.model",
    }  # fmt: skip
    fields = json.loads((packed / "config.json").read_text())
    assert fields["glm2"] == {"format": "int4", "head": "int8", "activation_bits": 8, "layout": 1}
    tensors = load_packed(packed, MQA, wanted)
    assert not any(array.flags.owndata or array.flags.writeable for array in tensors.values())
    assert all(array.ctypes.data % 64 == 0 for array in tensors.values())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("way", ["from floats", "from packed"])
def test_published_form(source, tmp_path, family, bits, way):
    """int8 (out, in) or (out, in / 2), the even column in the high nibble; float16 scales."""
    config = CONFIGS[family]
    folder, floats = source(config)
    made_from = folder
    if way == "from packed":
        made_from = convert(folder, tmp_path / "packed", packed_format(f"int{bits}", "fp16"))
    published = convert(made_from, tmp_path / "published", PublishedFormat(bits))
    assert read_checkpoint_config(published).quantization_bit == bits
    tensors = load_published_quantized(published, config, bits)
    assert set(tensors) == set(published_quantized_specs(config, bits))
    for name, weight in floats.items():
        if name.endswith(LINEARS):
            values, scale = quant.quantize_rows(weight, bits=bits)
            if bits == 4:
                values = quant.pack_int4(values, order="high_first")
            same(tensors[name], values)
            same(tensors[f"{name}_scale"], scale)
        else:
            same(tensors[name], weight)
    packed = packed_format(f"int{bits}", "int8")  # and the way back
    check_packed(convert(published, tmp_path / "again", packed), config, floats, packed)


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_to_floats_multiplies_as_published(source, tmp_path, bits):
    folder, floats = source(MQA)
    published = convert(folder, tmp_path / "published", PublishedFormat(bits))
    back = convert(published, tmp_path / "floats", PublishedFormat(None))
    assert read_checkpoint_config(back).quantization_bit is None
    for name, got in load_weights(back, MQA).items():
        wanted = floats[name]
        if name.endswith(LINEARS):
            wanted = quant.dequantize_rows(*quant.quantize_rows(wanted, bits=bits))
        same(got, wanted)


def test_published_output_layer_must_be_the_tied_embedding(source, tmp_path):
    folder, floats = source(TIED)
    published = convert(folder, tmp_path / "published", PublishedFormat(4))
    tensors = safetensors.numpy.load_file(published / "model.safetensors")
    for change in (0, 1):
        copy = tensors[EMBEDDING] + np.float16(change)
        safetensors.numpy.save_file(tensors | {OUTPUT: copy}, published / "model.safetensors")
        if change:
            with pytest.raises(ValueError, match=r"tie_word_embeddings = true, but .* differs"):
                load_published_quantized(published, TIED, 4)
        else:
            assert OUTPUT not in load_published_quantized(published, TIED, 4)
    assert OUTPUT not in floats


def test_floats_survive_the_packed_form(source, tmp_path):
    folder, floats = source(MHA)
    packed = convert(folder, tmp_path / "packed", packed_format("fp16", "fp16", 16))
    back = convert(packed, tmp_path / "back", PublishedFormat(None))
    for name, got in load_weights(back, MHA).items():
        same(got, floats[name])


def test_prefix_encoder_comes_along(source, tmp_path):
    folder, floats = source(MQA)
    name = "transformer.prefix_encoder.embedding.weight"
    encoder = np.random.default_rng(0).standard_normal((5, 2 * 2 * 2 * 32)).astype(np.float16)
    safetensors.numpy.save_file(floats | {name: encoder}, folder / "model.safetensors")
    wanted = packed_format()
    packed = convert(folder, tmp_path / "packed", wanted)
    same(safetensors.numpy.load_file(packed / "model.safetensors")[name], encoder)
    check_packed(packed, MQA, floats, wanted)


def test_what_config_json_cannot_lose(source, tmp_path):
    """A folder's name, rotary scaling and prompt format survive the move to another folder."""
    config = dataclasses.replace(MQA, rope_ratio=16.0, rope_scaling="position")
    folder, _ = source(config, fields={"custom": 1, "_name_or_path": "THUDM/chatglm2-6b-32k"})
    before = read_checkpoint_config(folder, "chatglm3")
    after = read_checkpoint_config(convert(folder, tmp_path / "x", packed_format()), "chatglm3")
    changed = {"folder": before.folder, "packed": None}
    assert dataclasses.replace(after, **changed) == before
    assert json.loads((tmp_path / "x" / "config.json").read_text())["custom"] == 1


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (PublishedFormat(4), packed_format("int8"), "quantised to int4 already, and int8 would"),
        (PublishedFormat(8), packed_format("int4-g32"), "quantised to int8 already, and int4-g32"),
        (packed_format("int4"), packed_format("int4"), "is packed already"),
        (packed_format("int4-g32"), PublishedFormat(4), "quantised to int4-g32 already"),
    ],
)
def test_numbers_are_never_rounded_twice(source, tmp_path, first, second, message):
    folder, _ = source(MQA)
    made = convert(folder, tmp_path / "first", first)
    with pytest.raises(ValueError, match=message):
        convert(made, tmp_path / "second", second)
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize(
    ("name", "value", "wanted", "message"),
    [
        ("mlp.dense_4h_to_h.weight", np.nan, packed_format(), r"layers\.1\.mlp.*NaN or infinity"),
        ("mlp.dense_4h_to_h.weight", 1e30, packed_format("fp16"), "beyond 65504"),
        ("self_attention.dense.weight", np.inf, PublishedFormat(8), r"layers\.1\.self.*NaN"),
    ],
)
def test_weights_that_cannot_be_converted_are_named(source, tmp_path, name, value, wanted, message):
    folder, floats = source(MQA, np.float32)
    floats[f"transformer.encoder.layers.1.{name}"][3, 5] = value
    save_weights(folder, MQA, floats, dtype="float32")
    with pytest.raises(ValueError, match=message):
        convert(folder, tmp_path / "made", wanted)
    assert not (tmp_path / "made").exists()


def test_packing_that_loses_something_is_found(source, tmp_path, monkeypatch):
    folder, _ = source(MQA)

    def lossy(weight, **options):
        packed = pack(weight, **options)
        packed[7] ^= 1
        return packed

    from glm2 import matrix_encoder

    pack = matrix_encoder.pack_weight
    monkeypatch.setattr(matrix_encoder, "pack_weight", lossy)
    with pytest.raises(RuntimeError, match="do not survive packing"):
        convert(folder, tmp_path / "made", packed_format())


def test_disk_without_room_is_an_error_before_the_work(source, tmp_path, monkeypatch):
    folder, _ = source(MQA)
    usage = shutil_usage(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"needs 0\.1 GB more and its disk has 0\.0 GB free"):
        convert(folder, tmp_path / "made", packed_format())


def shutil_usage(free):
    import shutil

    return shutil.disk_usage("/")._replace(free=free)


SCRIPT = """
import sys
from glm2.convert import convert_checkpoint
from glm2.packed_format import PackedFormat
wanted = PackedFormat(weights="int4", head="int8", activation_bits=8)
def report(stage, done, total):
    print(done, total, flush=True)
    if done * 2 > total:
        sys.stdin.read()
convert_checkpoint(sys.argv[1], sys.argv[2], wanted, report=report, max_shard_bytes=30_000)
"""


def test_killed_conversion_goes_on_and_gives_the_same_files(source, tmp_path):
    folder, floats = source(MQA)
    wanted = packed_format()
    whole = convert(folder, tmp_path / "whole", wanted, max_shard_bytes=30_000)
    target, partial = tmp_path / "made", tmp_path / "made.partial"
    command = [sys.executable, "-c", SCRIPT, str(folder), str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        for line in process.stdout:
            done, total = map(int, line.split())
            if done * 2 > total:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not target.exists()
    assert not (partial / "config.json").exists()  # nobody takes it for a checkpoint
    kept = {path.name: path.stat().st_mtime_ns for path in partial.glob("model-*.safetensors")}
    assert 1 < len(kept) < len(list(whole.glob("model-*.safetensors")))
    time.sleep(0.01)
    convert(folder, target, wanted, max_shard_bytes=30_000)
    for path in whole.iterdir():
        assert path.read_bytes() == (target / path.name).read_bytes()
        if path.name in kept:
            assert (target / path.name).stat().st_mtime_ns == kept[path.name]
    assert {path.name for path in whole.iterdir()} == {path.name for path in target.iterdir()}
    check_packed(target, MQA, floats, wanted)


def test_interrupted_conversion_of_changed_weights_is_refused(source, tmp_path):
    folder, floats = source(MQA)

    def stop(stage, done, total):
        del stage
        if done * 2 > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, tmp_path / "made", packed_format(), report=stop, max_shard_bytes=30_000)
    save_weights(folder, MQA, floats, dtype="float16")
    with pytest.raises(FileExistsError, match=r"begun with other settings \(files\)"):
        convert(folder, tmp_path / "made", packed_format(), max_shard_bytes=30_000)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_memory_stays_below_the_largest_matrix(tmp_path):
    """Matrices of 512 MB are read and quantised with a part of that resident, mapped pages counted."""
    config = dataclasses.replace(MQA, num_layers=1, hidden_size=1024, vocab_size=125_000)
    make_checkpoint(tmp_path / "source", config, seed=0, report=nothing)
    script = SCRIPT.partition("def report")[0] + (
        "from pathlib import Path\n"
        "def peak():  # not ru_maxrss, which a process has from its parent\n"
        "    return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak()\n"
        "convert_checkpoint(sys.argv[1], sys.argv[2], wanted, report=lambda *_: None)\n"
        "print((peak() - before) * 1024)\n"
    )
    arguments = [str(tmp_path / name) for name in ("source", "made")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, check=True, text=True
    )
    assert int(done.stdout) < 300_000_000
