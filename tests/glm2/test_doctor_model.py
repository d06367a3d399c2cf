"""``glm2 doctor MODEL``: what a checkpoint is, and whether it fits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

pytest.importorskip("mindspore", reason="needs MindSpore")

import glm2.commands._checkpoint as command
from glm2.config import CheckpointConfig, read_checkpoint_config
from glm2.convert import PublishedFormat, convert_checkpoint
from glm2.memory_needs import memory_needs
from glm2.packed_cache import packed_copy
from glm2.packed_format import PackedFormat
from glm2.sampling import SamplingParams
from glm2.synthetic_checkpoint import LIKE
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


def converted(folder, target, wanted):
    convert_checkpoint(folder, target, wanted, report=lambda *_: None)
    (target / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes())
    return report(target)


def test_packed_checkpoint(folder, tmp_path):
    wanted = PackedFormat(weights="int4", head="int8", activation_bits=8)
    found = converted(folder, tmp_path / "packed", wanted)
    assert [state for state, _ in found.values()] == ["ok", "info", "ok", "ok", "info", "ok"]
    assert found["weights"][1].startswith(
        "26 tensors, packed int4, output layer int8, activations of 8 bits, 0.00 GB"
    )
    assert "of int4 weights, mapped (output layer int8)" in found["fits"][1]


def test_published_int4_checkpoint_tells_where_its_copy_goes(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("GLM2_CACHE", str(tmp_path / "cache"))
    found = converted(folder, tmp_path / "published", PublishedFormat(4))
    assert "published INT4, to be packed once into" in found["weights"][1]
    assert str(tmp_path / "cache" / "packed") in found["weights"][1]
    assert not (tmp_path / "cache").exists()  # looking changes nothing
    packed_copy(read_checkpoint_config(tmp_path / "published"))
    assert "published INT4, packed in " in report(tmp_path / "published")["weights"][1]


def test_what_does_not_fit_may_fit_quantised(folder, monkeypatch):
    monkeypatch.setattr(command, "available_bytes", lambda: 10**6)
    assert "glm2 convert --quantize int4 makes one that needs 0.5 GB" in report(folder)["fits"][1]


def test_6b_needs():
    """The figures that docs/checkpoints.md gives."""
    fields = {"folder": Path(), "config": LIKE["chatglm2-6b"], "chat_format": "chatglm2", "name": "",
              "torch_dtype": "float16", "eos_token_ids": (2,), "default_system": None,
              "max_length": 8192, "sampling": SamplingParams()}  # fmt: skip
    for bits, weights, total in ((4, 3.1, 4.1), (8, 6.0, 6.9)):
        needs = memory_needs(CheckpointConfig(**fields, quantization_bit=bits), None)
        assert needs.cache_per_token == 28_672
        assert needs.weights / 1e9 == pytest.approx(weights, abs=0.05)
        assert needs.total / 1e9 == pytest.approx(total, abs=0.05)
