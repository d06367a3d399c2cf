"""GLM2Model on packed checkpoints, against the reference with the reference's quantised weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")

import glm2_reference.model
from glm2.config import read_checkpoint_config
from glm2.convert import PublishedFormat, convert_checkpoint
from glm2.model import GLM2Model
from glm2.packed_cache import packed_copy_folder
from glm2.packed_format import PackedFormat
from glm2.partial_folder import MANIFEST
from glm2.weights import EMBEDDING, OUTPUT, load_weights, save_weights
from glm2_reference import GLM2Config, quant
from glm2_reference import GLM2Model as ReferenceModel
from glm2_reference.testing import random_weights

pytestmark = pytest.mark.mindspore

GOLDEN = Path(__file__).parents[1] / "golden"
MQA = GLM2Config(
    num_layers=3,
    hidden_size=64,
    ffn_hidden_size=96,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    vocab_size=101,
    seq_length=512,
    norm_eps=1e-5,
    add_qkv_bias=True,
)
CONFIGS = {
    "mqa": MQA,
    "tied, no bias": dataclasses.replace(MQA, tie_word_embeddings=True, add_qkv_bias=False),
    "multi-head": dataclasses.replace(MQA, multi_query_attention=False, num_kv_heads=4),
}
LINEARS = ("query_key_value.weight", "dense.weight", "h_to_4h.weight", "4h_to_h.weight")
FORMATS = {
    "fp16": ("fp16", "fp16"),
    "int8": ("int8", "int8"),
    "int4": ("int4", "int8"),
    "int4, fp16 head": ("int4", "fp16"),
    "int4, int4 head": ("int4", "int4"),
    "groups": ("int4-g32", "int8"),
}
# Rounding an activation the other way, where two sums of floats differ in their last bits, is worth a
# 119th of a row's largest; 16 bits round to float16.
TOLERANCE = {16: 3e-3, 8: 2e-2}


def nothing(stage, done, total):
    del stage, done, total


def packed_format(name, activation_bits):
    weights, head = FORMATS[name]
    return PackedFormat(weights=weights, head=head, activation_bits=activation_bits)


@pytest.fixture
def floats(tmp_path):
    """``floats(config)``: a float16 checkpoint."""

    def build(config=MQA, seed=0):
        weights = random_weights(config, np.random.default_rng(seed), np.float16)
        folder = tmp_path / f"floats {seed}"
        save_weights(folder, config, weights, dtype="float16")
        return folder

    return build


def convert(source, target, wanted):
    convert_checkpoint(source, target, wanted, report=nothing)
    return target


class QuantisedReference(ReferenceModel):
    """The reference, its matrices quantised and its tokens rounded as the operator is to do it."""

    def __init__(self, config, weights, packed):
        weights = {
            name: array.astype(np.float16).astype(np.float32) for name, array in weights.items()
        }
        super().__init__(config, weights, np.float64)
        self.matrices = {}
        if config.tie_word_embeddings:
            self.output_layer = self.output_layer.copy()
        self.quantise(self.output_layer, packed.head, packed.activation_bits)
        for block in self.blocks:
            for matrix in (block.qkv, block.dense, block.h_to_4h, block.four_h_to_h):
                self.quantise(matrix, packed.weights, packed.activation_bits)

    def quantise(self, matrix, weight_format, bits):
        weight = matrix.astype(np.float16)
        if weight_format == "fp16":
            plain, largest = weight.astype(np.float64), None
        elif weight_format == "int4-g32":
            plain = quant.dequantize_groups(*quant.quantize_groups(weight, group_size=32))
            largest = 119
        else:
            values, scale = quant.quantize_rows(weight, bits=8 if weight_format == "int8" else 4)
            plain = quant.dequantize_rows(values, scale.astype(np.float64))
            largest = 127 if weight_format == "int8" else 119
        self.matrices[id(matrix)] = (plain, largest if bits == 8 else None)

    def linear(self, x, weight, bias=None):
        plain, largest = self.matrices[id(weight)]
        if largest is None:
            x = x.astype(np.float16).astype(np.float64)
        else:
            values, scale = quant.quantize_tokens(x.astype(np.float32), largest=largest)
            x = values * scale[:, None].astype(np.float64)
        return x @ plain.T + (0 if bias is None else bias)

    def forward(self, ids, **options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(glm2_reference.model, "linear", self.linear)
            return super().forward(ids, **options)


def random_ids(config, count, seed=1):
    return np.random.default_rng(seed).integers(0, config.vocab_size, count).astype(np.int32)


def relative_error(got, wanted):
    assert got.shape == wanted.shape
    return np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("bits", [16, 8])
@pytest.mark.parametrize("name", FORMATS)
def test_logits_match_the_quantised_reference(floats, tmp_path, name, bits):
    source, wanted = floats(), packed_format(name, bits)
    model = GLM2Model.from_pretrained(
        convert(source, tmp_path / "packed", wanted), cache_dtype="float32"
    )
    reference = QuantisedReference(MQA, load_weights(source, MQA), wanted)
    ids = random_ids(MQA, 141)
    golden = reference.forward(ids)
    assert relative_error(model.logits(ids), golden) < TOLERANCE[16 if name == "fp16" else bits]
    if name != "fp16":  # the formats do differ by more than the tolerance
        plain = ReferenceModel(MQA, load_weights(source, MQA)).forward(ids)
        assert relative_error(plain, golden) > 2 * TOLERANCE[16]


def test_activation_bits_can_be_chosen_when_opened(floats, tmp_path):
    source = floats()
    packed = convert(source, tmp_path / "packed", packed_format("int4", 8))
    model = GLM2Model.from_pretrained(packed, cache_dtype="float32", activation_bits=16)
    ids = random_ids(MQA, 30)
    wanted = packed_format("int4", 16)
    golden = QuantisedReference(MQA, load_weights(source, MQA), wanted).forward(ids)
    assert relative_error(model.logits(ids), golden) < TOLERANCE[16]
    with pytest.raises(
        ValueError, match=r"activation_bits is 16, but .* holds floats; run glm2 conv"
    ):
        GLM2Model.from_pretrained(source, activation_bits=16)


@pytest.mark.parametrize("family", CONFIGS)
def test_families_match_the_quantised_reference(floats, tmp_path, family):
    config = CONFIGS[family]
    source, wanted = floats(config), packed_format("int4", 16)
    packed = convert(source, tmp_path / "packed", wanted)
    model = GLM2Model.from_pretrained(packed, cache_dtype="float32")
    ids = random_ids(config, 60)
    golden = QuantisedReference(config, load_weights(source, config), wanted).forward(ids)
    assert relative_error(model.logits(ids), golden) < TOLERANCE[16]


@pytest.mark.parametrize("bits", [16, 8])
def test_64_greedy_tokens_are_the_references(floats, tmp_path, bits):
    """Prefill, then decode on the cache. Each token is the reference's best, but for a tie."""
    source, wanted = floats(), packed_format("int4", bits)
    packed = convert(source, tmp_path / "packed", wanted)
    model = GLM2Model.from_pretrained(packed, cache_dtype="float32")
    cache = model.new_cache(128)
    ids = random_ids(MQA, 37)
    tokens = [int(model.forward(ids, cache).argmax())]
    while len(tokens) < 64:
        tokens.append(int(model.forward(np.array(tokens[-1:], np.int32), cache).argmax()))
    reference = QuantisedReference(MQA, load_weights(source, MQA), wanted)
    golden = reference.forward(np.concatenate([ids, tokens[:-1]]))[len(ids) - 1 :]
    chosen = golden[np.arange(64), tokens]
    tie = 2 * TOLERANCE[bits] * np.abs(golden).max()
    assert (golden.max(axis=1) - chosen).max() <= tie
    assert (golden.argmax(axis=1) == tokens).mean() > 0.9
    assert len(set(tokens)) > 5


def test_float16_weights_match_published():
    """A checkpoint that the publisher's libraries saved, and the logits that they computed."""
    folder = GOLDEN / "saved_by_torch"
    outputs = np.load(folder / "outputs.npz")
    assert outputs["logits"].ndim == 2
    wanted = packed_format("fp16", 16)
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        packed = convert(folder, Path(made) / "packed", wanted)
        model = GLM2Model.from_pretrained(packed, cache_dtype="float32")
        assert relative_error(model.logits(outputs["ids"]), outputs["logits"]) < TOLERANCE[16]


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("bits", [8, 4])
def test_published_folder_is_packed_once_with_a_notice(
    floats, tmp_path, cache_folder, capsys, bits
):
    source = floats()
    published = convert(source, tmp_path / "published", PublishedFormat(bits))
    before = {path: path.read_bytes() for path in published.iterdir()}
    model = GLM2Model.from_pretrained(published, cache_dtype="float32")
    notice = capsys.readouterr().err
    assert f"is a published INT{bits} checkpoint: packing it for the operators, this once" in notice
    assert "Converting ..." in notice
    copies = list((cache_folder / "packed").iterdir())
    assert copies == [packed_copy_folder(read_checkpoint_config(published))]
    assert {path: path.read_bytes() for path in published.iterdir()} == before
    wanted = PackedFormat(weights=f"int{bits}", head="int8", activation_bits=8)
    assert model.packed == wanted
    ids = random_ids(MQA, 40)
    logits = model.logits(ids)
    golden = QuantisedReference(MQA, load_weights(source, MQA), wanted).forward(ids)
    assert relative_error(logits, golden) < TOLERANCE[8]
    made = (copies[0] / MANIFEST).stat().st_mtime_ns
    again = GLM2Model.from_pretrained(published, cache_dtype="float32")
    assert "packing" not in capsys.readouterr().err
    assert (copies[0] / MANIFEST).stat().st_mtime_ns == made
    assert np.array_equal(again.logits(ids), logits)


def test_commands_pack_before_interrupts_are_held_back(floats, tmp_path, cache_folder):
    """Packing takes minutes; `deferred_interrupts` is for MindSpore, and comes after it."""
    from glm2.commands._options import _named

    published = convert(floats(), tmp_path / "published", PublishedFormat(4))
    assert _named(str(published)) == published
    assert packed_copy_folder(read_checkpoint_config(published)).is_dir()
    assert len(list((cache_folder / "packed").iterdir())) == 1


def test_other_weights_in_the_same_folder_get_a_copy_of_their_own(floats, tmp_path, cache_folder):
    ids = random_ids(MQA, 12)
    published = convert(floats(seed=0), tmp_path / "published", PublishedFormat(4))
    first = GLM2Model.from_pretrained(published).logits(ids)
    other = convert(floats(seed=1), tmp_path / "other", PublishedFormat(4))
    for path in published.glob("model*"):
        path.unlink()
    for path in other.glob("model*"):
        path.rename(published / path.name)
    second = GLM2Model.from_pretrained(published).logits(ids)
    assert len(list((cache_folder / "packed").iterdir())) == 2
    assert relative_error(second, first) > 0.1


def test_mapped_weights_are_not_copied(floats, tmp_path):
    packed = convert(floats(), tmp_path / "packed", packed_format("int4", 8))
    model = GLM2Model.from_pretrained(packed)
    maps = Path("/proc/self/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in maps if str(packed) in line]
    spans = [(int(begin, 16), int(end, 16)) for begin, end in spans]
    assert spans
    for tensor in model.device_weights:
        assert any(begin <= tensor.data_ptr() < end for begin, end in spans)
        assert tensor.data_ptr() % 64 == 0


def test_batch_equals_each_alone(floats, tmp_path):
    packed = convert(floats(), tmp_path / "packed", packed_format("int4", 8))
    model = GLM2Model.from_pretrained(packed, cache_dtype="float32")
    lengths = [5, 1, 130]
    parts = [random_ids(MQA, n, seed=n) for n in lengths]
    cu_seqlens = np.cumsum([0, *lengths], dtype=np.int32)
    together = model.forward_ragged(
        np.concatenate(parts), cu_seqlens, model.new_cache(200, num_seqs=3)
    )
    alone = np.stack([model.forward(part, model.new_cache(200)) for part in parts])
    assert relative_error(together, alone) < TOLERANCE[8]


BROKEN = {
    "transformer.encoder.layers.1.self_attention.dense.weight_scale": "layers.1, attention",
    "transformer.encoder.layers.2.mlp.dense_h_to_4h.weight_scale": "layers.2, MLP",
    "transformer.output_layer.weight_scale": "the output layer",
}


@pytest.mark.parametrize("name", BROKEN)
def test_nan_scale_is_an_error_that_names_the_layer(floats, tmp_path, name):
    from glm2.quantized_checkpoint import load_packed

    wanted = packed_format("int4", 8)
    weights = load_packed(convert(floats(), tmp_path / "packed", wanted), MQA, wanted)
    weights[name] = weights[name].copy()
    weights[name][3] = np.nan
    model = GLM2Model(MQA, weights, packed=wanted)
    with pytest.raises(FloatingPointError, match=f"first bad layer is .*{BROKEN[name]}") as caught:
        model.forward(random_ids(MQA, 4), model.new_cache(9))
    short = name.partition("layers.")[2][2:] or name.partition("transformer.")[2]
    assert f"{short} holds 1 NaN or infinite numbers" in str(caught.value)


def test_same_graph_other_weights_from_the_compile_cache(floats, run_in_new_process, tmp_path):
    """A warm start computes with the weights it is given; another format gets another graph."""
    graphs, out = tmp_path / "graphs", tmp_path / "out.npy"
    ids = np.arange(20, dtype=np.int32)
    for number, (seed, name, warm) in enumerate(
        [(0, "int4", False), (1, "int4", True), (0, "int8", False)]
    ):
        wanted = packed_format(name, 16)
        source = floats(seed=seed)
        packed = convert(source, tmp_path / f"packed {number}", wanted)
        logits, found = run_in_new_process(packed, graphs, out)
        assert found == warm
        golden = QuantisedReference(MQA, load_weights(source, MQA), wanted).forward(ids)
        assert relative_error(logits, golden) < TOLERANCE[16]
    sizes = [path.stat().st_size for path in graphs.rglob("*") if path.is_file()]
    assert len(list(graphs.iterdir())) == 2
    assert sum(sizes) < 2_000_000  # graphs hold no weights


DAMAGES = {
    "metadata": ("is not a file of glm2 convert, layout 1; convert the checkpoint again", None),
    "format": (r"query_key_value\.weight is uint8 \(\d+,\), expected uint8", "int8"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_packed_folder_is_a_clear_error(floats, tmp_path, damage):
    message, weights = DAMAGES[damage]
    packed = convert(floats(), tmp_path / "packed", packed_format("int4", 8))
    if weights is None:
        path = packed / "model.safetensors"
        path.write_bytes(path.read_bytes().replace(b'"layout":"1"', b'"layout":"0"'))
    else:
        fields = json.loads((packed / "config.json").read_text())
        fields["glm2"]["format"] = weights
        (packed / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message):
        GLM2Model.from_pretrained(packed)


def test_embedding_is_used_as_it_is_mapped(floats, tmp_path):
    packed = convert(floats(), tmp_path / "packed", packed_format("int4", 8))
    model = GLM2Model.from_pretrained(packed)
    wanted = load_weights(tmp_path / "floats 0", MQA)
    assert np.array_equal(model.device_weights[0].asnumpy(), wanted[EMBEDDING])
    assert OUTPUT in wanted
