"""Graphs kept between processes: a warm start is right, whatever the weights and the files are."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")

from glm2.compile_cache import compile_cache
from glm2.weights import save_weights
from glm2_reference import GLM2Config, GLM2Model
from glm2_reference.testing import random_weights

pytestmark = pytest.mark.mindspore

CONFIG = GLM2Config(
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=48,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    vocab_size=40,
    seq_length=128,
    norm_eps=1e-5,
    add_qkv_bias=True,
)
IDS = np.arange(20, dtype=np.int32)


def test_warm_start_uses_the_weights_that_it_is_given(run_in_new_process, tmp_path):
    graphs = tmp_path / "graphs"
    for seed in range(2):
        weights = random_weights(CONFIG, np.random.default_rng(seed))
        save_weights(tmp_path / f"checkpoint-{seed}", CONFIG, weights, dtype="float32")
        got, warm = run_in_new_process(
            tmp_path / f"checkpoint-{seed}", graphs, tmp_path / "logits.npy"
        )
        wanted = GLM2Model(CONFIG, weights).forward(IDS)
        assert np.abs(got - wanted).max() < 1e-4 * np.abs(wanted).max()
        assert warm == (seed == 1)


def test_damaged_graph_is_compiled_again(run_in_new_process, tmp_path):
    graphs = tmp_path / "graphs"
    weights = random_weights(CONFIG, np.random.default_rng(0))
    save_weights(tmp_path / "checkpoint", CONFIG, weights, dtype="float32")
    wanted, _ = run_in_new_process(tmp_path / "checkpoint", graphs, tmp_path / "logits.npy")
    (graph,) = graphs.rglob("*.mindir")
    graph.chmod(0o600)
    graph.write_bytes(graph.read_bytes()[:1000])
    got, warm = run_in_new_process(tmp_path / "checkpoint", graphs, tmp_path / "logits.npy")
    assert not warm
    assert np.array_equal(got, wanted)
    _, warm = run_in_new_process(tmp_path / "checkpoint", graphs, tmp_path / "logits.npy")
    assert warm


def test_program_without_a_file_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-c"])
    with compile_cache(tmp_path, "key"):
        assert "MS_COMPILER_CACHE_PATH" not in os.environ
    assert list(tmp_path.iterdir()) == []


def test_failed_compilation_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), compile_cache(tmp_path, "key"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    assert "MS_COMPILER_CACHE_PATH" not in os.environ


def test_folder_that_cannot_be_made_keeps_nothing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with compile_cache(tmp_path / "file", "key"):
        assert "MS_COMPILER_CACHE_PATH" not in os.environ
    assert (tmp_path / "file").read_text() == "in the way"


def test_second_of_two_processes_keeps_the_first_graph(tmp_path):
    with compile_cache(tmp_path, "key"):
        first = tmp_path / "key"
        first.mkdir()
        (first / "graph").write_text("first")
        (first / "manifest.json").write_text(json.dumps({}))
    assert (first / "graph").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
