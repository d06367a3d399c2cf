import contextlib
import dataclasses
import json
import os
import runpy
import tempfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2.checkpoint_files import read_tensors
from glm2.config import read_checkpoint_config
from glm2.safetensors_file import read_safetensors
from glm2.safetensors_writer import TensorSpec, write_safetensors
from glm2.weights import load_weights, save_weights
from glm2_reference.config import GLM2Config, published_tensor_shapes

# Test modules are no package, so a helper beside them is loaded by its path.
write_torch_file = runpy.run_path(str(Path(__file__).with_name("torch_writer.py")))[
    "write_torch_file"
]

EMBEDDING = "transformer.embedding.word_embeddings.weight"
OUTPUT = "transformer.output_layer.weight"
FINAL_NORM = "transformer.encoder.final_layernorm.weight"
INV_FREQ = "transformer.rotary_pos_emb.inv_freq"
PREFIX = "transformer.prefix_encoder."
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def random_weights(config, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    shapes = published_tensor_shapes(config)
    return {k: rng.standard_normal(shape).astype(DTYPES[dtype]) for k, shape in shapes.items()}


def assert_same(got, wanted):
    assert set(got) == set(wanted)
    for name, array in wanted.items():
        assert got[name].dtype == array.dtype
        assert got[name].shape == array.shape
        assert got[name].tobytes() == array.tobytes()


@st.composite
def configs(draw):
    num_kv_heads = draw(st.integers(1, 3))
    return GLM2Config(
        num_layers=draw(st.integers(1, 12)),
        hidden_size=draw(st.integers(1, 9)),
        ffn_hidden_size=draw(st.integers(1, 9)),
        num_heads=num_kv_heads * draw(st.integers(1, 3)),
        num_kv_heads=num_kv_heads,
        head_dim=4 * draw(st.integers(1, 2)),
        vocab_size=draw(st.integers(1, 9)),
        seq_length=draw(st.integers(1, 99)),
        norm_eps=draw(st.floats(1e-6, 1e-4)),
        add_qkv_bias=draw(st.booleans()),
        tie_word_embeddings=draw(st.booleans()),
        rope_ratio=draw(st.sampled_from([1.0, 16.0])),
        rope_scaling=draw(st.sampled_from(["base", "position"])),
    )


@settings(max_examples=40, deadline=None)
@given(configs(), st.sampled_from(sorted(DTYPES)), st.integers(1, 4000))
def test_weights_round_trip(config, dtype, max_shard_bytes):
    if config.rope_ratio == 1.0:
        config = dataclasses.replace(config, rope_scaling="base")
    weights = random_weights(config, dtype)
    with tempfile.TemporaryDirectory() as folder:
        save_weights(folder, config, weights, dtype=dtype, max_shard_bytes=max_shard_bytes)
        assert_same(load_weights(folder, config), weights)
        checkpoint = read_checkpoint_config(folder)
        assert (checkpoint.config, checkpoint.torch_dtype) == (config, dtype)
        assert not [path.name for path in Path(folder).iterdir() if path.name.startswith(".")]


def test_save_weights_writes_what_safetensors_reads(tmp_path, tiny_config):
    weights = random_weights(tiny_config)
    save_weights(tmp_path, tiny_config, weights, dtype="float32", fields={"chat_format": "chatml"})
    assert_same(safetensors.numpy.load_file(tmp_path / "model.safetensors"), weights)
    assert json.loads((tmp_path / "config.json").read_text())["chat_format"] == "chatml"


def test_load_weights_reads_what_safetensors_writes(tmp_path, tiny_config):
    weights = random_weights(tiny_config, "float16")
    extra = {INV_FREQ: np.ones(3, np.float32)}  # accepted and ignored
    safetensors.numpy.save_file(weights | extra, tmp_path / "model.safetensors")
    assert_same(load_weights(tmp_path, tiny_config), weights)


def resident_file_bytes():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssFile:")[1].split()[0]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_load_weights_maps_and_does_not_read(tmp_path, tiny_config):
    config = dataclasses.replace(tiny_config, vocab_size=500_000)  # 2 x 48 MB
    save_weights(tmp_path, config, random_weights(config), dtype="float32")
    before = resident_file_bytes()
    weights = load_weights(tmp_path, config)
    assert resident_file_bytes() - before < 1_000_000
    embedding = weights[EMBEDDING]
    assert not embedding.flags.owndata
    assert not embedding.flags.writeable
    assert embedding.flags.aligned
    assert np.isfinite(embedding).all()
    assert resident_file_bytes() - before > 40_000_000


def test_load_weights_one_error_names_every_problem(tmp_path, tiny_config):
    weights = random_weights(tiny_config)
    layer = "transformer.encoder.layers.{}.input_layernorm.weight".format
    for index in range(2):
        del weights[layer(index)]
    del weights[OUTPUT]
    weights["lm_head.weight"] = np.ones(3, np.float32)
    weights[FINAL_NORM] = np.ones(23, np.float32)
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit") as caught:
        load_weights(tmp_path, tiny_config)
    assert str(caught.value) == (
        f"{tmp_path}: the weights do not fit config.json: missing {layer('{0,1}')}, "
        "transformer.output_layer.weight; unknown lm_head.weight; "
        f"{FINAL_NORM} has shape (23,), expected (24,)"
    )


def saved(folder, config, **options):
    save_weights(folder, config, random_weights(config), dtype="float32", **options)
    return folder


def rewrite_header(path, change):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    new = json.dumps(change(header) or header).encode()
    path.write_bytes(len(new).to_bytes(8, "little") + new + raw[8 + length :])


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1])
def test_truncated_file_is_an_error(tmp_path, tiny_config, kept):
    path = saved(tmp_path, tiny_config) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"model\.safetensors .*truncated"):
        load_weights(tmp_path, tiny_config)


def test_longer_file_is_an_error(tmp_path, tiny_config):
    path = saved(tmp_path, tiny_config) / "model.safetensors"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"holds \d+ bytes of tensors and its header names \d+"):
        load_weights(tmp_path, tiny_config)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F64"}, f"stores {FINAL_NORM} as F64; expected one of F32, F16, BF16"),
        ({"shape": [5]}, r"but F32 of shape \(5,\) takes 20"),
        ({"shape": [-24]}, r"the shape \[-24\]"),
        ({"shape": [True]}, r"the shape \[True\]"),
        ({"shape": [2**40, 2**40]}, r"the shape \[1099511627776, 1099511627776\]"),
        ({"shape": [0, 2**70]}, r"the shape \[0, 1180591620717411303424\]"),
        ({"shape": [1] * 40}, r"the shape \[1, 1, 1"),
        ({"shape": [10**4000] * 3}, r"the shape \[1000"),
        ({"data_offsets": [0, 10**4000]}, r"puts .* at bytes 0 to 10000000000000000000, but F32"),
        ({"shape": "24"}, f"damaged header entry for {FINAL_NORM}"),
        ({"data_offsets": [0, 96]}, "puts .* at byte 0, expected 96"),
        ({"data_offsets": [0]}, f"damaged header entry for {FINAL_NORM}"),
    ],
)
def test_damaged_header_entry_is_an_error(tmp_path, tiny_config, entry, message):
    path = saved(tmp_path, tiny_config) / "model.safetensors"
    rewrite_header(path, lambda header: header[FINAL_NORM].update(entry))
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path, tiny_config)


@pytest.mark.parametrize(
    ("header", "message"),
    [(b"{broken", "damaged header"), (b'["list"]', "header that is a JSON list")],
)
def test_damaged_header_is_an_error(tmp_path, tiny_config, header, message):
    raw = len(header).to_bytes(8, "little") + header
    (tmp_path / "model.safetensors").write_bytes(raw)
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path, tiny_config)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_never_crash(data):
    shapes = {"a": (3, 2), "b": (4,)}
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        specs = {name: TensorSpec(shape, "float32") for name, shape in shapes.items()}
        write_safetensors(path, specs, lambda name: [arrays[name]])
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw)
        with contextlib.suppress(ValueError):  # any other exception fails the test
            assert sum(tensor.nbytes for tensor in read_safetensors(path).values()) == 40


def test_unaligned_tensor_is_read_right(tmp_path):
    header = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    raw = json.dumps(header).encode()
    raw += b" " * ((1 - len(raw)) % 4)
    data = np.array([1.5, -2], np.float32)
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data.tobytes())
    got = read_safetensors(path)["x"]
    assert got.flags.aligned
    np.testing.assert_array_equal(got, data)


def test_missing_shards_are_all_named(tmp_path, tiny_config):
    saved(tmp_path, tiny_config, max_shard_bytes=3000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 3
    shards[0].unlink()
    shards[2].unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {shards[0].name}, {shards[2].name}, which"):
        load_weights(tmp_path, tiny_config)


def test_shard_that_contradicts_the_index_is_an_error(tmp_path, tiny_config):
    saved(tmp_path, tiny_config, max_shard_bytes=3000)
    last = max(tmp_path.glob("model-*.safetensors"))
    safetensors.numpy.save_file({"other": np.ones(1, np.float32)}, last)
    with pytest.raises(ValueError, match=r"does not hold what .* missing .*; unknown other"):
        load_weights(tmp_path, tiny_config)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("{}", "has no valid weight_map"),
        ("[", "has no valid weight_map"),
        ('{"weight_map": {"x": "../secret"}}', r"names files outside its folder: '\.\./secret'"),
    ],
)
def test_damaged_index_is_an_error(tmp_path, tiny_config, index, message):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError, match=message):
        load_weights(tmp_path, tiny_config)


def test_folder_without_safetensors_says_so(tmp_path, tiny_config):
    with pytest.raises(
        FileNotFoundError,
        match=r"has none of model\.safetensors, model\.safetensors\.index\.json, pytorch_model",
    ):
        load_weights(tmp_path, tiny_config)


def write_torch_shards(folder, weights, num_shards=3):
    shards = {
        f"pytorch_model-{i + 1:05d}-of-{num_shards:05d}.bin": list(weights)[i::num_shards]
        for i in range(num_shards)
    }
    for file_name, names in shards.items():
        write_torch_file(folder / file_name, {name: weights[name] for name in names})
    weight_map = {name: file_name for file_name, names in shards.items() for name in names}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return sorted(shards)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sharded", [False, True])
def test_torch_files_hold_the_same_weights(tmp_path, tiny_config, dtype, sharded):
    weights = random_weights(tiny_config, dtype)
    ignored = {INV_FREQ: np.ones(3, np.float32), f"{PREFIX}embedding.weight": np.ones((2, 4), "f4")}
    if sharded:
        write_torch_shards(tmp_path, weights | ignored)
    else:
        write_torch_file(tmp_path / "pytorch_model.bin", weights | ignored)
    got = load_weights(tmp_path, tiny_config)
    assert_same(got, weights)
    assert not any(array.flags.owndata or array.flags.writeable for array in got.values())
    assert set(read_tensors(tmp_path)) == {*weights, *ignored}


def test_safetensors_come_before_torch_files(tmp_path, tiny_config):
    saved(tmp_path, tiny_config)
    (tmp_path / "pytorch_model.bin").write_bytes(b"another")
    assert_same(load_weights(tmp_path, tiny_config), random_weights(tiny_config))


def test_torch_shards_that_are_missing_or_cut_are_named(tmp_path, tiny_config):
    first, second, third = write_torch_shards(tmp_path, random_weights(tiny_config))
    path = tmp_path / second
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=rf"{second}: its archive is damaged or truncated"):
        load_weights(tmp_path, tiny_config)
    path.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"lacks {second}, which pytorch_model\.bin\.index"
    ):
        load_weights(tmp_path, tiny_config)
    (tmp_path / first).rename(path)
    (tmp_path / first).write_bytes((tmp_path / third).read_bytes())
    with pytest.raises(ValueError, match=rf"{first} does not hold what .* missing .*; unknown"):
        load_weights(tmp_path, tiny_config)


def test_torch_file_and_its_index_are_two_models(tmp_path, tiny_config):
    write_torch_shards(tmp_path, random_weights(tiny_config))
    write_torch_file(tmp_path / "pytorch_model.bin", random_weights(tiny_config))
    with pytest.raises(
        ValueError, match=r"pytorch_model\.bin and .*; remove the one that is stale"
    ):
        load_weights(tmp_path, tiny_config)


@pytest.mark.parametrize("write", ["safetensors", "torch"])
def test_tied_output_layer_may_repeat_the_embedding(tmp_path, tiny_config, write):
    tied = dataclasses.replace(tiny_config, tie_word_embeddings=True)
    weights = random_weights(tied, "float16")

    def load_with(output):
        both = weights | {OUTPUT: output}
        if write == "torch":
            write_torch_file(tmp_path / "pytorch_model.bin", both)
        else:
            safetensors.numpy.save_file(both, tmp_path / "model.safetensors")
        return load_weights(tmp_path, tied)

    embedding = weights[EMBEDDING]
    assert_same(load_with(embedding.copy()), weights)
    other = embedding.copy()
    other[-1, -1] += 1
    for output in (other, embedding[:-1], embedding.view(np.uint8).view(np.float32)):
        with pytest.raises(ValueError, match=rf"tie_word_embeddings = true, but {OUTPUT} differs"):
            load_with(np.ascontiguousarray(output))


def test_untied_output_layer_must_be_there(tmp_path, tiny_config):
    weights = random_weights(tiny_config)
    del weights[OUTPUT]
    write_torch_file(tmp_path / "pytorch_model.bin", weights)
    with pytest.raises(ValueError, match=f"do not fit config.json: missing {OUTPUT}$"):
        load_weights(tmp_path, tiny_config)


def test_layer_number_of_many_digits_is_named(tmp_path, tiny_config):
    name = f"transformer.encoder.layers.{'9' * 5000}.input_layernorm.weight"
    weights = random_weights(tiny_config) | {name: np.ones(2, np.float32)}
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"do not fit config\.json: unknown transformer"):
        load_weights(tmp_path, tiny_config)


def test_folder_with_two_models_is_an_error(tmp_path, tiny_config):
    saved(tmp_path, tiny_config)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="remove the one that is stale"):
        load_weights(tmp_path, tiny_config)


def test_save_weights_refuses_a_folder_with_another_model(tmp_path, tiny_config):
    saved(tmp_path, tiny_config)
    saved(tmp_path, tiny_config)  # the same files: replaced
    with pytest.raises(FileExistsError, match=r"already holds model\.safetensors; choose an empty"):
        saved(tmp_path, tiny_config, max_shard_bytes=3000)


@pytest.mark.parametrize(
    ("change", "dtype", "message"),
    [
        ({"x": np.ones(1, np.float32)}, "float32", "weights do not fit the config: unknown x"),
        ({FINAL_NORM: np.ones(3, np.float32)}, "float32", r"is float32 \(3,\); expected float32"),
        ({FINAL_NORM: np.ones(24, np.float16)}, "float32", r"is float16 \(24,\); expected float32"),
        ({}, "int8", "dtype is 'int8'; expected one of float32, float16, bfloat16"),
    ],
)
def test_save_weights_refuses_wrong_weights(tmp_path, tiny_config, change, dtype, message):
    with pytest.raises(ValueError, match=message):
        save_weights(tmp_path, tiny_config, random_weights(tiny_config) | change, dtype=dtype)
    assert list(tmp_path.iterdir()) == []  # nothing half written


def test_saved_files_obey_the_umask(tmp_path, tiny_config):
    mask = os.umask(0o027)
    try:
        saved(tmp_path, tiny_config)
    finally:
        os.umask(mask)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o640}
