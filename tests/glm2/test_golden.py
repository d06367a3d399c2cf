"""GLM2Model against the golden two-layer model that the reference wrote."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators", exc_type=ImportError)

from glm2.generate import stream_tokens
from glm2.model import GLM2Model
from glm2.sampling import Sampler, SamplingParams
from glm2_reference import GLM2Config

pytestmark = pytest.mark.mindspore

FILE = Path(__file__).parents[1] / "golden" / "reference" / "model.npz"


@pytest.fixture(scope="module")
def recorded():
    with np.load(FILE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def model(recorded):
    config = GLM2Config.from_published(json.loads(str(recorded["model.in.config"])))
    weights = {
        name.removeprefix("weights.in."): array
        for name, array in recorded.items()
        if name.startswith("weights.in.")
    }
    return GLM2Model(config, weights, cache_dtype="float32")


def relative_error(got, wanted):
    assert got.shape == wanted.shape
    return np.abs(got - wanted).max() / np.abs(wanted).max()


def test_every_logit_matches_golden(recorded, model):
    got = model.logits(recorded["model.in.ids"])
    assert relative_error(got, recorded["model.out.golden_prefill_logits"]) < 1e-4


def test_prefill_and_two_decodes_match_golden(recorded, model):
    ids, decode_ids = recorded["model.in.ids"], recorded["model.in.decode_ids"]
    assert len(decode_ids) == 2
    cache = model.new_cache(len(ids) + 2)
    got = model.forward(ids, cache)
    assert relative_error(got, recorded["model.out.golden_prefill_logits"][-1]) < 1e-4
    for step, wanted in zip(decode_ids, recorded["model.out.golden_decode_logits"], strict=True):
        got = model.forward(step[None], cache)
        assert relative_error(got, wanted) < 1e-4
    assert cache.length == len(ids) + 2


def test_greedy_ids_equal_golden(recorded, model):
    ids, wanted = recorded["model.in.ids"].tolist(), recorded["model.out.greedy_ids"].tolist()
    assert wanted == recorded["model.out.golden_greedy_ids"].tolist()
    cache = model.new_cache(len(ids) + len(wanted))
    tokens = stream_tokens(
        model,
        ids,
        cache,
        Sampler(SamplingParams(temperature=0.0)),
        stop_ids=(),
        max_new_tokens=len(wanted),
    )
    assert list(tokens) == wanted
