"""A context of 32,768 tokens: chunked prefill, sampled positions against float64, both RoPE modes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")

from glm2.generate import ContextLengthError, prefill, stream_tokens
from glm2.model import GLM2Model
from glm2.sampling import Sampler, SamplingParams
from glm2_reference import GLM2Config
from glm2_reference.testing import random_weights

pytestmark = pytest.mark.mindspore

NUM_TOKENS = 32768
CONFIG = GLM2Config(
    num_layers=1,
    hidden_size=32,
    ffn_hidden_size=48,
    num_heads=2,
    num_kv_heads=1,
    head_dim=32,
    vocab_size=97,
    seq_length=NUM_TOKENS,
    norm_eps=1e-5,
    add_qkv_bias=True,
)
MODES = {
    "chatglm3": CONFIG,
    "chatglm3-32k": dataclasses.replace(CONFIG, rope_ratio=50.0),
    "chatglm2-32k": dataclasses.replace(CONFIG, rope_ratio=16.0, rope_scaling="position"),
}


def one_layer_logits(config, weights, ids):
    """Logits of the last token of a one-layer model: float64 loops over nothing but its formula."""
    w = {name.rpartition("layers.0.")[2]: x.astype(np.float64) for name, x in weights.items()}

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + config.norm_eps) * weight

    x = w["transformer.embedding.word_embeddings.weight"][ids]
    qkv = norm(x, w["input_layernorm.weight"]) @ w["self_attention.query_key_value.weight"].T
    qkv += w["self_attention.query_key_value.bias"]
    q, k, v = np.split(qkv, [64, 96], axis=1)
    positions, base = np.arange(len(ids), dtype=np.float64), 10000.0
    if config.rope_scaling == "position":
        positions /= config.rope_ratio
    else:
        base *= config.rope_ratio
    angles = positions[:, None] * base ** (-np.arange(0, 16, 2) / 16)

    def rotate(x, rows):
        out = x.copy()
        even, odd = x[:, 0:16:2], x[:, 1:16:2]
        out[:, 0:16:2] = even * np.cos(angles[rows]) - odd * np.sin(angles[rows])
        out[:, 1:16:2] = odd * np.cos(angles[rows]) + even * np.sin(angles[rows])
        return out

    k = rotate(k, slice(None))
    heads = []
    for head in range(2):
        query = rotate(q[-1:, 32 * head : 32 * head + 32], slice(-1, None))
        scores = (query @ k.T / np.sqrt(32.0))[0]
        probs = np.exp(scores - scores.max())
        heads.append(probs @ v / probs.sum())
    last = x[-1] + np.concatenate(heads) @ w["self_attention.dense.weight"].T
    gate, up = np.split(
        norm(last, w["post_attention_layernorm.weight"]) @ w["mlp.dense_h_to_4h.weight"].T, 2
    )
    last = last + (gate / (1 + np.exp(-gate)) * up) @ w["mlp.dense_4h_to_h.weight"].T
    final = norm(last, w["transformer.encoder.final_layernorm.weight"])
    return final @ w["transformer.output_layer.weight"].T


@pytest.mark.parametrize("mode", MODES)
def test_last_token_of_32768_matches_float64(mode):
    config = MODES[mode]
    weights = random_weights(config, np.random.default_rng(0))
    model = GLM2Model(config, weights, cache_dtype="float32")
    ids = np.random.default_rng(1).integers(0, config.vocab_size, NUM_TOKENS)
    cache = model.new_cache(NUM_TOKENS)
    for end in (5001, NUM_TOKENS):
        got = prefill(model, ids[cache.length : end], cache, chunk_tokens=4096)
        wanted = one_layer_logits(config, weights, ids[:end])
        assert np.abs(got - wanted).max() / np.abs(wanted).max() < 1e-4
    assert cache.length == NUM_TOKENS


def test_the_two_modes_differ():
    ids = np.random.default_rng(1).integers(0, 97, 300)
    weights = random_weights(CONFIG, np.random.default_rng(0))
    results = [one_layer_logits(config, weights, ids) for config in MODES.values()]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(results[first] - results[second]).max() > 1e-3


def test_generation_ends_where_the_context_does():
    model = GLM2Model(CONFIG, random_weights(CONFIG, np.random.default_rng(0)))
    ids = np.random.default_rng(2).integers(0, CONFIG.vocab_size, NUM_TOKENS - 3).tolist()
    sampler = Sampler(SamplingParams(temperature=0.0))
    options = {"stop_ids": (), "max_new_tokens": 10, "chunk_tokens": 8192}
    tokens = stream_tokens(model, ids, model.new_cache(NUM_TOKENS), sampler, **options)
    made = [next(tokens) for _ in range(3)]
    with pytest.raises(StopIteration, match="max_length"):
        next(tokens)
    message = "the prompt has 32768 tokens and the context holds 32768"
    with pytest.raises(ContextLengthError, match=message):
        next(stream_tokens(model, [*ids, *made], model.new_cache(NUM_TOKENS), sampler, **options))
