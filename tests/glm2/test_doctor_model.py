"""``glm2 doctor MODEL``: what a checkpoint is, and whether it fits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import sentencepiece

pytest.importorskip("mindspore", reason="needs MindSpore")

import glm2.commands._checkpoint as command
from glm2.weights import save_weights
from glm2_reference.config import GLM2Config
from glm2_reference.testing import random_weights

CONFIG = GLM2Config(
    num_layers=2,
    hidden_size=32,
    ffn_hidden_size=24,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    vocab_size=300,
    seq_length=2048,
    norm_eps=1e-5,
    add_qkv_bias=True,
    rope_ratio=50.0,
)


@pytest.fixture
def folder(tmp_path):
    weights = random_weights(CONFIG, np.random.default_rng(0), np.float16)
    fields = {"_name_or_path": "THUDM/chatglm3-6b-32k", "eos_token_id": 2}
    save_weights(tmp_path, CONFIG, weights, dtype="float16", fields=fields)
    (tmp_path / "corpus.txt").write_text("the quick brown fox " * 30)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=280,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    return tmp_path


def report(folder):
    return {
        check.name: (check.state, check.detail) for check in command.checkpoint_checks(str(folder))
    }


def test_whole_checkpoint(folder):
    found = report(folder)
    assert [state for state, _ in found.values()] == ["ok", "info", "ok", "ok", "info", "ok"]
    assert "chatglm3 prompts" in found["model"][1]
    assert "2 layers, 4 heads on 2 K/V heads" in found["model"][1]
    assert found["context"][1] == "2048 tokens in chat, seq_length 2048, rotary base 10000 x 50"
    assert found["tokenizer"][1] == "289 ids, embedding of 300 rows"
    assert found["weights"][1].startswith("17 tensors, float16, 0.00 GB")
    assert (
        "256 bytes a token" in found["fits"][1]
    )  # 2 layers x (k, v) x 2 heads x 16 dims x 2 bytes


def test_what_does_not_fit(folder, monkeypatch):
    monkeypatch.setattr(command, "available_bytes", lambda: 10**6)
    state, detail = report(folder)["fits"]
    assert state == "fail"
    assert "0.0 GB are free: it does not fit" in detail
    monkeypatch.setattr(command, "available_bytes", lambda: None)
    assert report(folder)["fits"][0] == "info"


def test_findings_of_a_broken_checkpoint(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    (folder / "tokenizer.model").unlink()
    found = report(folder)
    assert found["model"][0] == "ok"
    assert found["weights"][0] == found["fits"][0] == found["tokenizer"][0] == "fail"
    assert "truncated" in found["weights"][1]
    assert "no tokenizer.model" in found["tokenizer"][1]


def test_tokenizer_larger_than_the_embedding(folder):
    fields = json.loads((folder / "config.json").read_text())
    weights = random_weights(CONFIG, np.random.default_rng(0), np.float16)
    small = weights["transformer.embedding.word_embeddings.weight"][:200]
    weights |= {
        "transformer.embedding.word_embeddings.weight": small,
        "transformer.output_layer.weight": small,
    }
    config = GLM2Config.from_published(fields | {"padded_vocab_size": 200})
    save_weights(folder, config, weights, dtype="float16")
    state, detail = report(folder)["tokenizer"]
    assert state == "fail"
    assert "it has 289 ids and the embedding 200 rows" in detail


def test_no_checkpoint_at_all(tmp_path):
    found = report(tmp_path)
    assert found["model"][0] == "fail"
    assert "has no config.json" in found["model"][1]
    assert len(found) == 1
    assert "is not a folder; pass the folder" in report("nowhere")["model"][1]
