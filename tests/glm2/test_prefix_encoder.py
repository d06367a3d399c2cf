"""P-tuning v2 prefix encoders on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from glm2.prefix_encoder import encode_prefix, has_prefix_encoder, load_prefix_encoder
from glm2_reference import GLM2Config

CONFIG = GLM2Config(
    num_layers=3,
    hidden_size=10,
    ffn_hidden_size=8,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=20,
    seq_length=64,
    norm_eps=1e-5,
    add_qkv_bias=True,
)
KV_SIZE = 2 * 3 * 2 * 8
SHAPES = {
    "embedding.weight": (5, KV_SIZE),
    "trans.0.weight": (10, KV_SIZE),
    "trans.0.bias": (10,),
    "trans.2.weight": (KV_SIZE, 10),
    "trans.2.bias": (KV_SIZE,),
}


def tensors(*names, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(SHAPES[name]).astype(np.float16) for name in names or SHAPES}


def write(folder, found, start="transformer.prefix_encoder."):
    save_file({start + name: array for name, array in found.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("start", ["transformer.prefix_encoder.", "prefix_encoder."])
@pytest.mark.parametrize(
    "names", [("embedding.weight",), tuple(SHAPES)], ids=["plain", "projected"]
)
def test_both_forms_load(tmp_path, start, names):
    wanted = tensors(*names)
    got = load_prefix_encoder(write(tmp_path, wanted, start), CONFIG)
    assert set(got) == set(wanted)
    assert all(np.array_equal(got[name], wanted[name]) for name in wanted)


def test_prefix_is_laid_out_as_published():
    """Number (token, layer, key or value, group, dim) of the flat embedding by hand."""
    embedding = np.arange(5 * KV_SIZE, dtype=np.float32).reshape(5, KV_SIZE)
    prefix = encode_prefix({"embedding.weight": embedding}, CONFIG)
    assert prefix.shape == (3, 2, 5, 2, 8)
    for layer, kv, token, group, dim in [(0, 0, 0, 0, 0), (2, 1, 4, 1, 7), (1, 0, 3, 1, 2)]:
        column = ((layer * 2 + kv) * 2 + group) * 8 + dim
        assert prefix[layer, kv, token, group, dim] == embedding[token, column]


def test_projection_is_two_layers_with_a_tanh():
    w = {name: array.astype(np.float64) for name, array in tensors().items()}
    token = 2
    hidden = [
        np.tanh(
            sum(w["trans.0.weight"][j, i] * w["embedding.weight"][token, i] for i in range(KV_SIZE))
            + w["trans.0.bias"][j]
        )
        for j in range(10)
    ]
    flat = w["trans.2.weight"] @ hidden + w["trans.2.bias"]
    got = encode_prefix(tensors(), CONFIG)[:, :, token].reshape(-1)
    np.testing.assert_allclose(got, flat, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_one_error(tmp_path):
    found = tensors() | {"extra": np.zeros(3, np.float32)}
    found["trans.0.bias"] = np.zeros(11, np.float32)
    del found["trans.2.bias"]
    message = (
        r"does not fit the base model: missing trans\.2\.bias; unknown extra; "
        r"trans\.0\.bias has shape \(11,\), expected \(10,\)"
    )
    with pytest.raises(ValueError, match=message):
        load_prefix_encoder(write(tmp_path, found), CONFIG)


@pytest.mark.parametrize("shape", [(5, KV_SIZE + 1), (KV_SIZE,), (0, KV_SIZE), ()])
def test_embedding_of_another_model(tmp_path, shape):
    write(tmp_path, {"embedding.weight": np.zeros(shape, np.float32)})
    with pytest.raises(ValueError, match=r"embedding\.weight has shape .*, expected \(\d+, 96\)"):
        load_prefix_encoder(tmp_path, CONFIG)


def test_folder_without_a_prefix_encoder(tmp_path):
    write(tmp_path, {"x": np.zeros(2, np.float32)}, start="")
    with pytest.raises(
        ValueError, match=r"holds no transformer\.prefix_encoder\.embedding\.weight"
    ):
        load_prefix_encoder(tmp_path, CONFIG)


CONTRADICTIONS = {
    "length": (
        {"pre_seq_len": 64},
        ("embedding.weight",),
        r"embedding\.weight has shape \(5, 96\), expected \(64,",
    ),
    "projection is missing": (
        {"pre_seq_len": 5, "prefix_projection": True},
        ("embedding.weight",),
        r"missing trans\.0\.bias, trans\.0\.weight, trans\.2\.bias, trans\.2\.weight",
    ),
    "projection is there": (
        {"prefix_projection": False},
        tuple(SHAPES),
        "prefix_projection = false, but a projection is there",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_config_that_contradicts_the_tensors(tmp_path, name):
    fields, names, message = CONTRADICTIONS[name]
    write(tmp_path, tensors(*names))
    (tmp_path / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=message):
        load_prefix_encoder(tmp_path, CONFIG)


def test_config_that_agrees_with_the_tensors(tmp_path):
    write(tmp_path, tensors())
    (tmp_path / "config.json").write_text(json.dumps({"pre_seq_len": 5, "prefix_projection": True}))
    assert len(load_prefix_encoder(tmp_path, CONFIG)) == 5
    assert has_prefix_encoder(tmp_path)
