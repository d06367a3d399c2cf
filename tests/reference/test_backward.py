"""Gradients against finite differences in float64, and a tiny model that learns."""

import dataclasses

import numpy as np
import pytest

from glm2_reference import GLM2Model, attention
from glm2_reference.backward import loss_and_gradients
from glm2_reference.infilling import IGNORED, Span, SpecialIds, infilling_loss, make_example
from glm2_reference.layer_gradients import attention_gradients, cross_entropy_gradients
from glm2_reference.optim import AdamW, AdamWParams
from glm2_reference.testing import random_qkv, random_weights, upcast

STEP = 1e-5


def difference_quotient(function, x, index):
    """Slope of ``function()`` along one element of x."""
    kept = x[index]
    values = []
    for step in (STEP, -STEP):
        x[index] = kept + step
        values.append(function())
    x[index] = kept
    return (values[0] - values[1]) / (2 * STEP)


VARIANTS = {
    "mqa": {},
    "mha": {"multi_query_attention": False, "num_kv_heads": 4},
    "one group, tied": {"num_kv_heads": 1, "tie_word_embeddings": True},
    "no bias, long": {"add_qkv_bias": False, "rope_ratio": 16.0, "rope_scaling": "position"},
}


@pytest.mark.parametrize("prefix_len", [0, 4])
@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_of_every_weight_is_the_slope_of_the_loss(tiny_config, name, prefix_len):
    config = dataclasses.replace(tiny_config, **VARIANTS[name])
    weights = random_weights(config, np.random.default_rng(0), np.float64)
    rng = np.random.default_rng(1)
    ids, labels = rng.integers(0, 50, 9), rng.integers(0, 50, 9)
    labels[[0, 3]] = IGNORED

    def loss():
        return loss_and_gradients(config, weights, ids, labels, prefix_len=prefix_len)[0]

    _, grads = loss_and_gradients(config, weights, ids, labels, prefix_len=prefix_len)
    assert {n: g.shape for n, g in grads.items()} == {n: w.shape for n, w in weights.items()}
    for tensor, weight in weights.items():
        flat = weight.reshape(-1)
        largest = int(np.abs(grads[tensor]).argmax())
        for index in {largest, int(rng.integers(flat.size))}:
            slope = difference_quotient(loss, flat, index)
            assert grads[tensor].reshape(-1)[index] == pytest.approx(slope, rel=1e-5, abs=1e-8), (
                tensor
            )


def test_loss_is_that_of_the_model(tiny_config):
    weights = random_weights(tiny_config, np.random.default_rng(0), np.float64)
    special = SpecialIds(blank=40, sop=41, eop=42)
    example = make_example(list(range(12)), [Span(3, 6)], special)
    loss, _ = loss_and_gradients(
        tiny_config, weights, example.ids, example.labels, prefix_len=example.len_a
    )
    model = GLM2Model(tiny_config, weights, np.float64)
    logits = model.forward(example.ids, prefix_len=example.len_a)
    assert loss == pytest.approx(infilling_loss(logits, example.labels), rel=1e-12)


@pytest.mark.parametrize("options", [{}, {"causal": False}, {"prefix_len": 3}, {"window": 2}])
@pytest.mark.parametrize(("seq_len_q", "seq_len_kv"), [(6, 6), (2, 6), (6, 3)])
def test_attention_gradients_are_slopes(rng, seq_len_q, seq_len_kv, options):
    q, k, v = upcast(
        *random_qkv(
            rng, seq_len_q=seq_len_q, seq_len_kv=seq_len_kv, num_heads=4, num_kv_heads=2, head_dim=8
        )
    )
    do = rng.standard_normal(q.shape)

    def loss():
        return float((attention(q, k, v, scale=0.3, **options)[0] * do).sum())

    o, lse = attention(q, k, v, scale=0.3, **options)
    grads = attention_gradients(do, q, k, v, o, lse, scale=0.3, **options)
    for x, grad in zip((q, k, v), grads, strict=True):
        assert grad.shape == x.shape
        for index in rng.integers(0, x.size, 12):
            slope = difference_quotient(loss, x.reshape(-1), int(index))
            assert grad.reshape(-1)[index] == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_nothing_to_learn_is_an_error():
    with pytest.raises(ValueError, match="every label is IGNORED"):
        cross_entropy_gradients(np.zeros((2, 3)), np.array([IGNORED, IGNORED]))


def test_adamw_matches_the_paper_step_by_step():
    params = AdamWParams(learning_rate=0.1, beta1=0.8, beta2=0.9, eps=1e-3, weight_decay=0.5)
    weight, vector = np.array([[2.0, -1.0]]), np.array([3.0])
    optimiser = AdamW({"w": weight, "b": vector}, params)
    m = v = np.zeros(3)
    theta = np.array([2.0, -1.0, 3.0])
    for t, grad in enumerate(([1.0, -2.0, 0.5], [0.0, 3.0, -0.5]), start=1):
        g = np.array(grad)
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        update = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + 1e-3)
        theta = theta - 0.1 * (update + 0.5 * theta * [1, 1, 0])
        optimiser.step({"w": g[None, :2], "b": g[2:]})
        np.testing.assert_allclose([*weight[0], *vector], theta, rtol=1e-12)
    optimiser.step({"w": weight * 0, "b": vector * 0}, learning_rate=1e-30)
    np.testing.assert_allclose([*weight[0], *vector], theta, rtol=1e-12)


def test_adamw_refuses_wrong_arguments():
    with pytest.raises(ValueError, match=r"beta1 is 1\.0, which is out of its range"):
        AdamWParams(learning_rate=0.1, beta1=1.0)
    optimiser = AdamW({"w": np.zeros(2)}, AdamWParams(learning_rate=0.1))
    with pytest.raises(ValueError, match="gradients and weights differ in w, x"):
        optimiser.step({"x": np.zeros(2)})


def test_a_tiny_model_learns_to_count(tiny_config):
    """Two layers of hidden 64: text that counts round, 200 steps, loss falls to almost nothing."""
    config = dataclasses.replace(tiny_config, hidden_size=64, ffn_hidden_size=96, head_dim=16)
    weights = random_weights(config, np.random.default_rng(0))
    optimiser = AdamW(weights, AdamWParams(learning_rate=3e-3, weight_decay=0.01))
    rng = np.random.default_rng(1)
    losses = []
    for step in range(200):
        start, stride = rng.integers(0, 20), rng.integers(1, 3)
        text = (start + stride * np.arange(33)) % 20
        loss, grads = loss_and_gradients(config, weights, text[:-1], text[1:])
        optimiser.step(grads, learning_rate=3e-3 * min(1, (step + 1) / 20))
        losses.append(loss)
    assert np.mean(losses[:5]) > 3
    assert np.mean(losses[-20:]) < 0.5
    text = (7 + 2 * np.arange(12)) % 20
    predicted = GLM2Model(config, weights).forward(text)[2:].argmax(axis=1)
    assert np.mean(predicted == (text[2:] + 2) % 20) >= 0.8  # guessing gives 0.05
