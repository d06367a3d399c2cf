import dataclasses
import math

import numpy as np
import pytest

from glm2_reference import GLM2Model, KVCache, generate
from glm2_reference.testing import random_weights


def matvec(weight, x):
    return [math.fsum(float(a) * b for a, b in zip(row, x, strict=True)) for row in weight]


def norm(x, weight, eps):
    root = math.sqrt(math.fsum(value * value for value in x) / len(x) + eps)
    return [float(w) * value / root for w, value in zip(weight, x, strict=True)]


def rotate(x, position, rotary_dim, base, position_scale):
    x = list(x)
    for i in range(rotary_dim // 2):
        angle = position / position_scale * base ** (-2 * i / rotary_dim)
        a, b = x[2 * i], x[2 * i + 1]
        x[2 * i] = a * math.cos(angle) - b * math.sin(angle)
        x[2 * i + 1] = b * math.cos(angle) + a * math.sin(angle)
    return x


def loop_model(config, weights, ids, loop_attention, prefix_len=0, prefix=None):
    """The published model, token by token, in Python floats."""
    n_heads, g_heads, d = config.num_heads, config.num_kv_heads, config.head_dim
    ratio = config.rope_ratio
    base, divide = (1e4 * ratio, 1) if config.rope_scaling == "base" else (1e4, ratio)
    table = weights["transformer.embedding.word_embeddings.weight"]
    hidden = [[float(value) for value in table[i]] for i in ids]
    for layer in range(config.num_layers):
        at = f"transformer.encoder.layers.{layer}."
        q, k, v = [], [], []
        for position, x in enumerate(hidden):
            h = norm(x, weights[at + "input_layernorm.weight"], config.norm_eps)
            fused = matvec(weights[at + "self_attention.query_key_value.weight"], h)
            if config.add_qkv_bias:
                bias = weights[at + "self_attention.query_key_value.bias"]
                fused = [a + float(b) for a, b in zip(fused, bias, strict=True)]
            heads = [fused[j : j + d] for j in range(0, len(fused), d)]
            if config.multi_query_attention:
                parts = heads[:n_heads], heads[n_heads : n_heads + g_heads], heads[-g_heads:]
            else:
                parts = heads[0::3], heads[1::3], heads[2::3]
            q.append([rotate(head, position, d // 2, base, divide) for head in parts[0]])
            k.append([rotate(head, position, d // 2, base, divide) for head in parts[1]])
            v.append(parts[2])
        if prefix is not None:
            k, v = [*prefix[layer, 0], *k], [*prefix[layer, 1], *v]
        seen = prefix_len + len(k) - len(q)
        o, _ = loop_attention(
            np.array(q), np.array(k), np.array(v), scale=1 / math.sqrt(d), prefix_len=seen
        )
        for t, x in enumerate(hidden):
            dense = matvec(weights[at + "self_attention.dense.weight"], o[t].reshape(-1).tolist())
            x = [a + b for a, b in zip(x, dense, strict=True)]  # noqa: PLW2901
            h = norm(x, weights[at + "post_attention_layernorm.weight"], config.norm_eps)
            up = matvec(weights[at + "mlp.dense_h_to_4h.weight"], h)
            half = len(up) // 2
            gated = [a / (1 + math.exp(-a)) * b for a, b in zip(up[:half], up[half:], strict=True)]
            down = matvec(weights[at + "mlp.dense_4h_to_h.weight"], gated)
            hidden[t] = [a + b for a, b in zip(x, down, strict=True)]
    final = weights["transformer.encoder.final_layernorm.weight"]
    head = table if config.tie_word_embeddings else weights["transformer.output_layer.weight"]
    return np.array([matvec(head, norm(x, final, config.norm_eps)) for x in hidden])


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"add_qkv_bias": False},
        {"tie_word_embeddings": True},
        {"num_kv_heads": 4},
        {"num_kv_heads": 4, "multi_query_attention": False},
        {"num_kv_heads": 4, "multi_query_attention": False, "add_qkv_bias": False},
        {"rope_ratio": 16.0, "rope_scaling": "position"},
        {"rope_ratio": 50.0},
    ],
    ids=str,
)
def test_model_matches_loops(tiny_config, rng, loop_attention, change):
    config = dataclasses.replace(tiny_config, **change)
    weights = random_weights(config, rng, np.float64)
    ids = np.array([3, 49, 0, 3, 17])
    want = loop_model(config, weights, ids, loop_attention)
    assert 0.3 < np.std(want) < 3  # healthy logits, or the comparison would say little
    logits = GLM2Model(config, weights, np.float64).forward(ids)
    np.testing.assert_allclose(logits, want, atol=1e-12)
    logits = GLM2Model(config, weights).forward(ids)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, want, atol=1e-4)


@pytest.mark.parametrize("prefix_len", [0, 1, 4, 5])
def test_model_with_a_bidirectional_prefix_matches_loops(
    tiny_config, rng, loop_attention, prefix_len
):
    weights = random_weights(tiny_config, rng, np.float64)
    ids = np.array([3, 49, 0, 3, 17])
    want = loop_model(tiny_config, weights, ids, loop_attention, prefix_len)
    logits = GLM2Model(tiny_config, weights, np.float64).forward(ids, prefix_len=prefix_len)
    np.testing.assert_allclose(logits, want, atol=1e-12)


def test_prefill_then_decodes_then_a_second_turn_equal_one_prefill(tiny_config, rng):
    model = GLM2Model(tiny_config, random_weights(tiny_config, rng, np.float64), np.float64)
    ids = rng.integers(0, 50, 40)
    want = model.forward(ids)
    cache = KVCache.new(tiny_config, max_tokens=40, page_size=16, dtype=np.float64)
    parts = [(0, 14), (14, 15), (15, 16), (16, 17), (17, 35), (35, 36), (36, 40)]
    got = [model.forward(ids[start:stop], cache=cache) for start, stop in parts]
    assert cache.length == 40
    np.testing.assert_allclose(np.concatenate(got), want, atol=1e-12)


def test_a_prefix_stays_visible_over_decodes(tiny_config, rng, loop_attention):
    weights = random_weights(tiny_config, rng, np.float64)
    ids = np.array([3, 49, 0, 3, 17, 8])
    want = loop_model(tiny_config, weights, ids, loop_attention, prefix_len=3)
    model = GLM2Model(tiny_config, weights, np.float64)
    cache = KVCache.new(tiny_config, max_tokens=6, dtype=np.float64)
    got = [model.forward(ids[a:b], cache=cache, prefix_len=3) for a, b in [(0, 4), (4, 5), (5, 6)]]
    np.testing.assert_allclose(np.concatenate(got), want, atol=1e-12)


def test_a_float16_cache_serves_a_float32_model(tiny_config, rng):
    model = GLM2Model(tiny_config, random_weights(tiny_config, rng))
    ids = rng.integers(0, 50, 12)
    cache = KVCache.new(tiny_config, max_tokens=12, dtype=np.float16)
    np.testing.assert_allclose(model.forward(ids, cache=cache), model.forward(ids), atol=0.02)


def test_published_float16_weights_load(tiny_config, rng):
    weights = random_weights(tiny_config, rng, np.float16)
    weights["transformer.rotary_pos_emb.inv_freq"] = np.ones(2, np.float16)
    assert GLM2Model(tiny_config, weights).forward(np.array([1, 2])).shape == (2, 50)


def test_model_lists_every_weight_that_does_not_fit(tiny_config, rng):
    weights = random_weights(tiny_config, rng)
    del weights["transformer.output_layer.weight"]
    name = "transformer.encoder.layers.1.mlp.dense_h_to_4h.weight"
    weights[name] = weights[name][:-1]
    with pytest.raises(ValueError, match="2 weights do not fit the config: ") as caught:
        GLM2Model(tiny_config, weights)
    assert f"{name} has shape (39, 24), expected (40, 24)" in str(caught.value)
    assert "transformer.output_layer.weight (50, 24) is missing" in str(caught.value)


def test_model_refuses_a_narrow_dtype(tiny_config, rng):
    with pytest.raises(TypeError, match="dtype is float16; the reference computes in float32 or"):
        GLM2Model(tiny_config, random_weights(tiny_config, rng), np.float16)


@pytest.mark.parametrize(
    ("ids", "prefix_len", "error", "message"),
    [
        (np.zeros(0, int), 0, ValueError, "ids are empty; pass at least one token"),
        (np.zeros(65, int), 0, ValueError, "the text has 75 tokens, 65 of them new, but the model"),
        (np.zeros(100, int), 0, ValueError, "the cache holds 10 of 80 tokens and 100 more do not"),
        (np.array([50]), 0, ValueError, "ids contain 50; expected 0 to 49"),
        (np.array([1.5]), 0, TypeError, "ids have dtype float64; expected integers"),
        (np.array([1]), 12, ValueError, r"prefix_len\[0\] is 12; expected 0 to 11"),
    ],
)
def test_forward_refuses_and_leaves_the_length(tiny_config, rng, ids, prefix_len, error, message):
    model = GLM2Model(tiny_config, random_weights(tiny_config, rng))
    cache = KVCache.new(tiny_config, max_tokens=80, page_size=16)
    model.forward(np.arange(10), cache=cache)
    with pytest.raises(error, match=message):
        model.forward(ids, cache=cache, prefix_len=prefix_len)
    assert cache.length == 10


# ---- P-tuning prefix ----------------------------------------------------------------------------


@pytest.fixture
def prefixed(tiny_config, rng):
    """A model with a prefix of 5 tokens, the same model without, and the weights of both."""
    weights = random_weights(tiny_config, rng)
    shape = (tiny_config.num_layers, 2, 5, tiny_config.num_kv_heads, tiny_config.head_dim)
    prefix = rng.standard_normal(shape)
    with_prefix = GLM2Model(tiny_config, weights, np.float64, prefix=prefix)
    return with_prefix, GLM2Model(tiny_config, weights, np.float64), weights


def test_a_prefix_is_seen_by_every_token_and_moves_no_position(prefixed, loop_attention):
    model, plain, weights = prefixed
    ids = np.array([7, 3, 9, 1, 4, 4])
    got = model.forward(ids)
    assert not np.allclose(got, plain.forward(ids))
    for prefix_len in (0, 4):
        got = model.forward(ids, prefix_len=prefix_len)
        want = loop_model(model.config, weights, ids, loop_attention, prefix_len, model.prefix)
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_a_prefix_serves_prefill_then_decodes(prefixed):
    model, _, _ = prefixed
    ids = np.array([7, 3, 9, 1, 4, 4])
    whole = model.forward(ids, prefix_len=2)
    cache = model.new_cache(6, page_size=16)
    parts = [model.forward(ids[:4], cache=cache, prefix_len=2)]
    parts += [model.forward(ids[i : i + 1], cache=cache, prefix_len=2) for i in (4, 5)]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=1e-10, atol=1e-12)
    assert cache.length == 11


def test_generate_leaves_the_prefix_out_of_the_length(prefixed):
    model, _, _ = prefixed
    length = model.config.seq_length
    assert len(generate(model, [1] * (length - 3), max_new_tokens=4)) == 4
    with pytest.raises(ValueError, match="exceed the model's seq_length 64"):
        generate(model, [1] * (length - 3), max_new_tokens=5)
    with pytest.raises(ValueError, match="the text has 65 tokens"):
        model.forward(np.ones(length + 1, int))


def test_a_prefix_that_does_not_fit_is_refused(prefixed):
    model, plain, weights = prefixed
    empty = KVCache.new(model.config, max_tokens=10, dtype=np.float64)
    with pytest.raises(
        ValueError, match=r"holds 0 tokens, .* prefix has 5; make the cache with new"
    ):
        model.forward(np.array([1]), cache=empty)
    with pytest.raises(ValueError, match="max_tokens is 0"):
        model.new_cache(0)
    with pytest.raises(ValueError, match=r"prefix has shape .* keys and values of every layer"):
        GLM2Model(plain.config, weights, prefix=model.prefix[:, :1])
