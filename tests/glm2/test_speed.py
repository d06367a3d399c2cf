"""``glm2 bench``, and the parts of a step that it shows."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")

import glm2.cli
from glm2 import step_profile
from glm2.convert import convert_checkpoint
from glm2.model import GLM2Model
from glm2.packed_format import PackedFormat
from glm2.speed import Speed, decode_step_s, filled_cache, prefill_s
from glm2.step_profile import StepProfile, profile_step
from glm2.synthetic_checkpoint import LIKE, make_checkpoint

pytestmark = pytest.mark.mindspore


def nothing(stage, done, total):
    del stage, done, total


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny packed checkpoint, without a tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    make_checkpoint(folder / "floats", LIKE["tiny"], seed=0, report=nothing)
    wanted = PackedFormat(weights="int4", head="int8", activation_bits=8)
    convert_checkpoint(folder / "floats", folder / "packed", wanted, report=nothing)
    return folder / "packed"


@pytest.fixture(scope="module")
def model(folder):
    return GLM2Model.from_pretrained(folder)


def test_speed_is_median_and_quartiles():
    assert Speed.of(10, [1.0, 2.0, 4.0, 5.0, 10.0]) == Speed(2.5, 2.0, 5.0, 5)
    assert Speed.of(3, [2.0]) == Speed(1.5, 1.5, 1.5, 1)


def test_filled_cache_is_as_long_as_asked_and_stays_so(model):
    cache = filled_cache(model, 130, batch=3)
    assert cache.lengths.tolist() == [130] * 3
    assert all((pages != 0).any(axis=(1, 2, 3)).all() for pages in (*cache.k, *cache.v))
    assert decode_step_s(model, cache) > 0
    assert cache.lengths.tolist() == [130] * 3
    cache = model.new_cache(40)
    assert prefill_s(model, cache, 40) > 0
    assert cache.length == 0


def test_context_costs_what_a_real_one_does(model):
    """Logits over the noise are those of a cache that a step has really read."""
    cache = filled_cache(model, 20)
    ids = np.array([3], np.int32)
    first = model.forward(ids, cache)
    cache.truncate(20)
    cache.k[0][:] = -cache.k[0]
    cache.device_views = None
    assert np.abs(model.forward(ids, cache) - first).max() > 1e-4


def test_parts_of_a_step_add_up(model):
    cache = filled_cache(model, 64)
    parts = profile_step(model, cache, runs=3)
    assert cache.length == 64
    measured = (parts.linear_s, parts.attention_s, parts.small_ops_s, parts.sampling_s)
    assert min(measured) > 0
    assert sum(measured) + parts.rest_s == pytest.approx(parts.step_s)
    assert parts.overhead == pytest.approx(
        (parts.step_s - parts.linear_s - parts.attention_s) / parts.step_s
    )
    assert StepProfile(10, 6, 2, 0.5, 0.25).rest_s == 1.25
    assert StepProfile(10, 6, 2, 0.5, 0.25).overhead == pytest.approx(0.2)


@pytest.mark.parametrize("matrix", range(4))
@pytest.mark.parametrize("layer", [0, 1])
def test_graph_of_products_runs_every_matrix(folder, layer, matrix):
    """An operator of any layer that must fail does: none is optimised away."""
    model = GLM2Model.from_pretrained(folder)
    place = step_profile.MODEL_WEIGHTS + len(step_profile.BLOCK_WEIGHTS) * layer
    place += (1, 4, 7, 9)[matrix]
    weights = list(model.device_weights)
    short = weights[place].asnumpy()[:512].copy()
    weights[place] = step_profile.ms.Tensor.from_numpy(short)
    model.device_weights = tuple(weights)
    with pytest.raises(RuntimeError, match="weight"):
        step_profile._linears(model, 1)()


def test_graph_of_attention_reads_every_layer(model):
    """NaN in the values of any layer but the last reaches no output, yet a bad page stops the graph."""
    cache = filled_cache(model, 30)
    model.forward(np.array([3], np.int32), cache)
    good = step_profile._attention(model, cache)()
    assert np.isfinite(good).all()
    cache.block_table[:] = 99
    with pytest.raises(RuntimeError, match="block_table"):
        step_profile._attention(model, cache)()


@pytest.fixture
def run(monkeypatch, capfd, tmp_path):
    """``run(*arguments)``: exit code, stdout, stderr of the command line."""

    def invoke(*arguments):
        monkeypatch.setattr(sys, "argv", ["glm2", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as left:
            glm2.cli.main()
        captured = capfd.readouterr()
        return left.value.code or 0, captured.out, captured.err

    monkeypatch.delenv("GLM2_DEBUG", raising=False)
    monkeypatch.setenv("GLM2_CACHE", str(tmp_path / "cache"))
    return invoke


def test_bench_prints_a_line_a_case_and_the_parts(run, folder):
    code, out, _ = run(
        "bench", "--model", folder, "--context", "16", "--context", "140", "--prefill", "8",
        "--batch", "2", "--runs", "2", "--profile",
    )  # fmt: skip
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("opened in ")
    assert [line[:30].split() for line in lines if line.startswith("decode")] == [
        ["decode", "context", "16", "batch"], ["decode", "context", "140", "batch"],
    ]  # fmt: skip
    assert sum(line.startswith("prefill  tokens       8") for line in lines) == 1
    for part in ("products with weights", "attention", "norms, rope_append, SwiGLU",
                 "sampling (top_k and top_p)", "MindSpore and Python", "a step"):  # fmt: skip
        assert sum(line.strip().startswith(part) for line in lines) == 2


def test_bench_as_json(run, folder):
    code, out, _ = run("bench", "--model", folder, "--runs", "2", "--json")
    assert code == 0
    result = json.loads(out)
    (case,) = result["cases"]
    assert (case["phase"], case["context"], case["batch"], case["runs"]) == ("decode", 128, 1, 2)
    assert case["tokens_per_s"] > 0
    assert result["threads"] >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--context", "2048"), "2048 tokens and one more are past seq_length, 2048"),
        (("--cache-dtype", "int8"), "--cache-dtype is 'int8'; expected float16 or float32"),
    ],
)
def test_wrong_options_of_bench(run, folder, options, message):
    code, out, err = run("bench", "--model", folder, *options)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
