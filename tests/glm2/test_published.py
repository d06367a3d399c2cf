"""GLM2Model and generation against recorded outputs of the published modeling code."""

from __future__ import annotations

import functools
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")

from glm2.batch import generate_batch
from glm2.beam_search import BeamParams, beam_search
from glm2.model import GLM2Model
from glm2.prefix_encoder import encode_prefix
from glm2.sampling import Sampler, SamplingParams
from glm2.weights import save_weights
from glm2_reference import GLM2Config, generate
from glm2_reference import GLM2Model as ReferenceModel
from glm2_reference.adapters import encode_prefix as reference_prefix
from glm2_reference.testing import random_weights

pytestmark = pytest.mark.mindspore

# Test modules are no package, so a helper beside them is loaded by its path.
WRITER = Path(__file__).with_name("torch_writer.py")
write_torch_file = runpy.run_path(str(WRITER))["write_torch_file"]

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ("chatglm2", "chatglm3", "mha")
GREEDY = SamplingParams(temperature=0.0)
PRE_SEQ_LEN = 5


class Recorded:
    """One recorded case, and the models that must reproduce it."""

    def __init__(self, case):
        self.outputs = dict(np.load(GOLDEN / f"published_{case}.npz"))
        self.seed = int(self["seed"])
        self.config = GLM2Config.from_published(json.loads(str(self["fields"])))
        self.weights = random_weights(self.config, np.random.default_rng(self.seed))

    def __getitem__(self, name):
        return self.outputs[name]

    @functools.cached_property
    def model(self):
        return GLM2Model(self.config, self.weights, cache_dtype="float32")

    @functools.cached_property
    def reference(self):
        return ReferenceModel(self.config, self.weights)

    def prefix_encoder(self, *, projection):
        """Draw what record_published.py drew, in its order."""
        config = self.config
        kv_size = 2 * config.num_layers * config.num_kv_heads * config.head_dim
        shapes = {"embedding.weight": (PRE_SEQ_LEN, kv_size)}
        if projection:
            shapes |= {
                "trans.0.bias": (config.hidden_size,),
                "trans.0.weight": (config.hidden_size, kv_size),
                "trans.2.bias": (kv_size,),
                "trans.2.weight": (kv_size, config.hidden_size),
            }
        draw = np.random.default_rng(self.seed + 2000)
        return {
            name: draw.standard_normal(shape).astype(np.float32)
            * np.float32(0.3 if "embedding" in name else 0.1)
            for name, shape in shapes.items()
        }


@functools.cache
def load(case):
    return Recorded(case)


@pytest.fixture(params=CASES)
def recorded(request):
    return load(request.param)


def relative_error(got, wanted):
    assert got.shape == wanted.shape
    return np.abs(got - wanted).max() / np.abs(wanted).max()


def continued(model, prompts, *, max_new_tokens, sampling=GREEDY, stop_ids=(), **options):
    samplers = [Sampler(sampling) for _ in prompts]
    made = generate_batch(
        model, prompts, samplers, stop_ids=stop_ids, max_new_tokens=max_new_tokens, **options
    )
    return [generated.ids for generated in made]


def test_logits_match_published(recorded):
    assert relative_error(recorded.model.logits(recorded["ids"]), recorded["logits"]) < 1e-4


FORMS = ("safetensors", "sharded safetensors", "bin", "sharded bin")


def save(folder, recorded, form):
    """Write a case's weights in one of the published forms."""
    fields = json.loads(str(recorded["fields"])) | {"eos_token_id": 2}
    if form.endswith("safetensors"):
        most = 30_000 if form.startswith("sharded") else 10**9
        save_weights(
            folder, recorded.config, recorded.weights, dtype="float32", max_shard_bytes=most
        )
    elif form == "bin":
        write_torch_file(folder / "pytorch_model.bin", recorded.weights)
    else:
        files = {f"pytorch_model-{i}-of-3.bin": list(recorded.weights)[i::3] for i in range(3)}
        for file_name, names in files.items():
            tensors = {name: recorded.weights[name] for name in names}
            write_torch_file(folder / file_name, tensors)
        index = {"weight_map": {name: file for file, names in files.items() for name in names}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_checkpoint_of_every_form_matches_published(recorded, form, tmp_path):
    model = GLM2Model.from_pretrained(save(tmp_path, recorded, form), cache_dtype="float32")
    assert relative_error(model.logits(recorded["ids"]), recorded["logits"]) < 1e-4
    names = {path.suffix for path in tmp_path.iterdir()}
    assert names == {".json", ".safetensors" if "safetensors" in form else ".bin"}


def test_checkpoint_that_torch_saved_matches_published():
    """A whole folder as the publisher's libraries write it: float16 shards, index, config.json."""
    folder = GOLDEN / "saved_by_torch"
    outputs = np.load(folder / "outputs.npz")
    assert len(list(folder.glob("pytorch_model-*.bin"))) == 3
    model = GLM2Model.from_pretrained(folder, cache_dtype="float32")
    assert relative_error(model.logits(outputs["ids"]), outputs["logits"]) < 1e-4


@pytest.mark.parametrize("beside", [True, False], ids=["beside", "in one folder"])
@pytest.mark.parametrize("form", ["prefix", "projected_prefix"])
def test_prefix_encoder_on_disk_matches_published(form, beside, tmp_path):
    recorded = load("chatglm3")
    tensors = recorded.prefix_encoder(projection=form == "projected_prefix")
    tensors = {f"transformer.prefix_encoder.{name}": array for name, array in tensors.items()}
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    base.mkdir()
    tuned.mkdir()
    save(base, recorded, "bin")
    if beside:
        write_torch_file(tuned / "pytorch_model.bin", tensors)
    else:
        write_torch_file(base / "pytorch_model.bin", recorded.weights | tensors)
        fields = json.loads((base / "config.json").read_text()) | {"pre_seq_len": PRE_SEQ_LEN}
        (base / "config.json").write_text(json.dumps(fields))
    model = GLM2Model.from_pretrained(
        base, cache_dtype="float32", prefix_encoder=tuned if beside else None
    )
    assert relative_error(model.logits(recorded["ids"]), recorded[f"{form}_logits"]) < 1e-4


def test_reference_logits_match_published(recorded):
    got = recorded.reference.forward(recorded["ids"])
    assert relative_error(got, recorded["logits"]) < 1e-4


def test_64_greedy_tokens_match_published(recorded):
    got = continued(recorded.model, [recorded["ids"].tolist()], max_new_tokens=64)
    assert got == [recorded["greedy"].tolist()]


def test_stop_token_ends_where_published(recorded):
    wanted = recorded["greedy_stopped"].tolist()
    stop = {int(recorded["greedy"][20])}
    got = continued(recorded.model, [recorded["ids"].tolist()], max_new_tokens=64, stop_ids=stop)
    assert got == [wanted[:-1]]
    assert wanted[-1] in stop


def test_repetition_penalty_matches_published(recorded):
    sampling = SamplingParams(temperature=0.0, repetition_penalty=1.3)
    ids = recorded["ids"].tolist()
    got = continued(recorded.model, [ids], max_new_tokens=32, sampling=sampling)
    assert got == [recorded["penalised"].tolist()]


def test_second_turn_on_the_cache_matches_published(recorded):
    model = recorded.model
    cache = model.new_cache(200)
    model.forward(np.concatenate([recorded["ids"], recorded["greedy"][:-1]]), cache)
    ids = recorded["turn2_ids"]
    got = [model.forward(ids[i : i + 1], cache) for i in range(3)]  # decodes, then a prefill
    got.append(model.forward(ids[3:], cache))
    wanted = recorded["turn2_logits"][[0, 1, 2, -1]]
    assert relative_error(np.stack(got), wanted) < 1e-4


def test_batch_matches_published_left_padded_batch(recorded):
    mask = recorded["batch_mask"].astype(bool)
    prompts = [row[keep].tolist() for row, keep in zip(recorded["batch_ids"], mask, strict=True)]
    cache = recorded.model.new_cache(64, num_seqs=len(prompts))
    cu_seqlens = np.cumsum([0, *map(len, prompts)]).astype(np.int32)
    logits = recorded.model.forward_ragged(np.concatenate(prompts), cu_seqlens, cache)
    assert relative_error(logits, recorded["batch_logits"]) < 1e-4
    got = continued(recorded.model, prompts, max_new_tokens=32)
    assert got == recorded["batch_greedy"].tolist()


def test_bidirectional_prefix_matches_published(recorded):
    prefix_len = int(recorded["bidirectional_len"])
    wanted = recorded["bidirectional_logits"]
    got = recorded.model.logits(recorded["ids"], prefix_len=prefix_len)
    assert relative_error(got, wanted) < 1e-4
    assert relative_error(recorded["logits"], wanted) > 1e-2  # it makes a difference


def test_positions_past_5000_match_published(recorded):
    ids = recorded["long_ids"]
    cache = recorded.model.new_cache(len(ids))
    recorded.model.forward(ids[:-4], cache)
    got = np.stack([recorded.model.forward(ids[i : i + 1], cache) for i in range(-4, -1)])
    assert relative_error(got, recorded["long_logits"][:3]) < 1e-4


@pytest.mark.parametrize("form", ["prefix", "projected_prefix"])
def test_prefix_encoder_matches_published(recorded, form):
    tensors = recorded.prefix_encoder(projection=form == "projected_prefix")
    prefix = encode_prefix(tensors, recorded.config)
    model = GLM2Model(recorded.config, recorded.weights, cache_dtype="float32", prefix=prefix)
    assert relative_error(model.logits(recorded["ids"]), recorded[f"{form}_logits"]) < 1e-4
    reference = ReferenceModel(
        recorded.config, recorded.weights, prefix=reference_prefix(tensors, recorded.config)
    )
    assert relative_error(reference.forward(recorded["ids"]), recorded[f"{form}_logits"]) < 1e-4
    greedy = generate(reference, recorded["ids"].tolist(), max_new_tokens=24)
    assert greedy == recorded[f"{form}_greedy"].tolist()
    got = continued(model, [recorded["ids"].tolist()] * 2, max_new_tokens=24)
    assert got == [recorded[f"{form}_greedy"].tolist()] * 2


@pytest.mark.parametrize(
    ("name", "beams", "penalty"),
    [
        ("beams", BeamParams(num_beams=4), 1.0),
        ("beams_penalised", BeamParams(num_beams=3, length_penalty=0.4), 1.2),
    ],
)
def test_beam_search_matches_published(recorded, name, beams, penalty):
    sampling = SamplingParams(temperature=0.0, repetition_penalty=penalty)
    ids = recorded["ids"].tolist()
    got = beam_search(recorded.model, ids, beams, sampling, stop_ids=(), max_new_tokens=24)
    assert got.ids == recorded[name].tolist()


@pytest.mark.parametrize("early_stopping", [False, True])
def test_beam_search_with_stop_tokens_matches_published(recorded, early_stopping):
    beams = BeamParams(num_beams=4, length_penalty=0.7, early_stopping=early_stopping)
    stop_ids = recorded["beam_stops"].tolist()
    wanted = recorded[f"beams_stopped_{early_stopping}".lower()].tolist()
    got = beam_search(
        recorded.model,
        recorded["ids"].tolist(),
        beams,
        GREEDY,
        stop_ids=stop_ids,
        max_new_tokens=24,
    )
    ended = next((i for i, token in enumerate(wanted) if token in stop_ids), len(wanted))
    assert got.ids == wanted[:ended]
