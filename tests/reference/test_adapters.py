"""LoRA merged and unmerged, and P-tuning prefixes against the layout by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm2_reference.adapters import encode_prefix, lora_linear, merge_lora


def drawn(seed=0, rank=3, dtype=np.float64):
    rng = np.random.default_rng(seed)
    shapes = ((4, 10), (6, 10), (rank, 10), (6, rank))
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def test_lora_matches_loops():
    x, weight, down, up = drawn()
    got = lora_linear(x, weight, down, up, alpha=8.0)
    for t in range(4):
        low = [sum(x[t, i] * down[r, i] for i in range(10)) for r in range(3)]
        for o in range(6):
            plain = sum(x[t, i] * weight[o, i] for i in range(10))
            assert got[t, o] == pytest.approx(
                plain + 8.0 / 3 * sum(low[r] * up[o, r] for r in range(3))
            )


@given(seed=st.integers(0, 1000), rank=st.integers(1, 8), alpha=st.floats(-32, 32))
def test_merged_equals_unmerged(seed, rank, alpha):
    x, weight, down, up = drawn(seed, rank)
    merged = merge_lora(weight, down, up, alpha=alpha)
    np.testing.assert_allclose(
        x @ merged.T, lora_linear(x, weight, down, up, alpha=alpha), rtol=1e-9, atol=1e-9
    )


def test_an_untrained_adapter_changes_nothing():
    x, weight, down, up = drawn(dtype=np.float32)
    assert np.array_equal(merge_lora(weight, down, 0 * up, alpha=16.0), weight)
    got = lora_linear(x, weight, down, 0 * up, alpha=16.0)
    assert np.array_equal(got, lora_linear(x, weight, 0 * down, up, alpha=16.0))
    assert got.dtype == np.float32


def test_merging_keeps_the_dtype():
    _, weight, down, up = drawn(dtype=np.float16)
    assert merge_lora(weight, down, up, alpha=1.0).dtype == np.float16


def test_prefix_is_laid_out_as_published(tiny_config):
    config = tiny_config
    kv_size = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    embedding = np.arange(5 * kv_size, dtype=np.float64).reshape(5, kv_size)
    prefix = encode_prefix({"embedding.weight": embedding}, config)
    assert prefix.shape == (config.num_layers, 2, 5, config.num_kv_heads, config.head_dim)
    layer, kv, token, group, dim = config.num_layers - 1, 1, 3, config.num_kv_heads - 1, 2
    column = ((layer * 2 + kv) * config.num_kv_heads + group) * config.head_dim + dim
    assert prefix[layer, kv, token, group, dim] == embedding[token, column]


def test_prefix_projection_is_two_layers_with_a_tanh(tiny_config):
    config = tiny_config
    kv_size = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    rng = np.random.default_rng(0)
    tensors = {
        "embedding.weight": rng.standard_normal((2, kv_size)),
        "trans.0.weight": rng.standard_normal((config.hidden_size, kv_size)) * 0.1,
        "trans.0.bias": rng.standard_normal(config.hidden_size),
        "trans.2.weight": rng.standard_normal((kv_size, config.hidden_size)),
        "trans.2.bias": rng.standard_normal(kv_size),
    }
    got = encode_prefix(tensors, config)[:, :, 1].reshape(-1)
    e = tensors["embedding.weight"][1]
    hidden = [
        np.tanh(sum(w * v for w, v in zip(row, e, strict=True)) + bias)
        for row, bias in zip(tensors["trans.0.weight"], tensors["trans.0.bias"], strict=True)
    ]
    for i in range(kv_size):
        wanted = sum(w * h for w, h in zip(tensors["trans.2.weight"][i], hidden, strict=True))
        assert got[i] == pytest.approx(wanted + tensors["trans.2.bias"][i])


WRONG = {
    "down": (lambda x, w, d, u: lora_linear(x, w, d[:, :5], u, alpha=1.0), "down has shape"),
    "up": (lambda x, w, d, u: lora_linear(x, w, d, u[:, :2], alpha=1.0), r"up has shape \(6, 2\)"),
    "rank": (lambda _, w, d, u: merge_lora(w, d[:0], u[:, :0], alpha=1.0), "down has no rows"),
    "axes": (lambda _, w, d, u: merge_lora(w[0], d, u, alpha=1.0), "expected 2 axes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_shapes_are_refused(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call(*drawn())


def test_prefix_of_another_model_is_refused(tiny_config):
    with pytest.raises(ValueError, match=r"embedding has shape \(5, 7\)"):
        encode_prefix({"embedding.weight": np.zeros((5, 7))}, tiny_config)
