"""MHA to GQA and MQA: the conversion against attention that repeats the shared heads."""

import dataclasses

import numpy as np
import pytest

from glm2_reference import GLM2Config, GLM2Model
from glm2_reference.head_sharing import share_checkpoint, share_kv_heads
from glm2_reference.testing import random_weights

MHA = GLM2Config(
    num_layers=2,
    hidden_size=16,
    ffn_hidden_size=12,
    num_heads=4,
    num_kv_heads=4,
    head_dim=8,
    vocab_size=30,
    seq_length=64,
    norm_eps=1e-5,
    add_qkv_bias=True,
    multi_query_attention=False,
)
QKV = "transformer.encoder.layers.{}.self_attention.query_key_value.{}"


@pytest.fixture
def weights():
    return random_weights(MHA, np.random.default_rng(0), np.float64)


def test_mean_pooling_is_the_mean_of_each_group():
    rows = np.random.default_rng(1).standard_normal((4, 3, 5))
    got = share_kv_heads(rows, num_kv_heads=2, pooling="mean")
    for group in range(2):
        for d in range(3):
            for i in range(5):
                assert got[group, d, i] == pytest.approx(
                    (rows[2 * group, d, i] + rows[2 * group + 1, d, i]) / 2
                )


def test_first_takes_the_first_head_and_random_only_the_scale():
    rows = np.random.default_rng(1).standard_normal((8, 32, 64)) * 0.3 + 2
    assert np.array_equal(share_kv_heads(rows, num_kv_heads=2, pooling="first"), rows[[0, 4]])
    drawn = share_kv_heads(rows, num_kv_heads=2, pooling="random", rng=np.random.default_rng(2))
    assert drawn.shape == (2, 32, 64)
    assert drawn.mean() == pytest.approx(rows.mean(), abs=0.05)
    assert drawn.std() == pytest.approx(rows.std(), rel=0.05)
    assert not np.isin(drawn, rows).any()


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_heads_that_are_equal_in_a_group_convert_without_loss(weights, num_kv_heads, pooling):
    size = 4 // num_kv_heads
    for layer in range(2):
        for kind in ("weight", "bias"):
            tensor = weights[QKV.format(layer, kind)]
            heads = tensor.reshape(4, 3, 8, *tensor.shape[1:])  # a head's q, k, v in turn
            for head in range(4):
                heads[head, 1:] = heads[head - head % size, 1:]
    config, shared = share_checkpoint(MHA, weights, num_kv_heads=num_kv_heads, pooling=pooling)
    assert config == dataclasses.replace(MHA, num_kv_heads=num_kv_heads, multi_query_attention=True)
    ids = np.arange(20)
    wanted = GLM2Model(MHA, weights, np.float64).forward(ids)
    got = GLM2Model(config, shared, np.float64).forward(ids)
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-10)


def test_conversion_of_unequal_heads_changes_the_model_and_keeps_the_queries(weights):
    ids = np.arange(20)
    before = GLM2Model(MHA, weights, np.float64).forward(ids)
    config, shared = share_checkpoint(MHA, weights, num_kv_heads=1)
    after = GLM2Model(config, shared, np.float64).forward(ids)
    assert np.abs(after - before).max() > 1e-2
    tensor = weights[QKV.format(0, "weight")].reshape(4, 3, 8, 16)
    assert np.array_equal(shared[QKV.format(0, "weight")][:32], tensor[:, 0].reshape(32, 16))
    assert shared[QKV.format(1, "bias")].shape == (48,)


def test_groups_convert_on_to_fewer(weights):
    two, grouped = share_checkpoint(MHA, weights, num_kv_heads=2)
    one, single = share_checkpoint(two, grouped, num_kv_heads=1)
    direct, wanted = share_checkpoint(MHA, weights, num_kv_heads=1)
    assert one == direct
    for name, tensor in wanted.items():
        np.testing.assert_allclose(single[name], tensor, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_kv_heads": 3, "pooling": "mean"}, "num_kv_heads is 3; it must divide the 4 heads"),
        ({"num_kv_heads": 0, "pooling": "mean"}, "num_kv_heads is 0"),
        ({"num_kv_heads": 2, "pooling": "max"}, "pooling is 'max'; expected 'mean'"),
        ({"num_kv_heads": 2, "pooling": "random"}, "there is no rng; pass one"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        share_kv_heads(np.zeros((4, 2)), **options)
