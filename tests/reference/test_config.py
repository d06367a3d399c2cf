import dataclasses
import json

import pytest

from glm2_reference.config import GLM2Config, published_tensor_shapes

CHATGLM2 = {
    "num_layers": 28,
    "hidden_size": 4096,
    "ffn_hidden_size": 13696,
    "num_attention_heads": 32,
    "kv_channels": 128,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "padded_vocab_size": 65024,
    "seq_length": 32768,
    "layernorm_epsilon": 1e-5,
    "add_qkv_bias": True,
    "add_bias_linear": False,
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "original_rope": True,
    "torch_dtype": "float16",
}


def test_config_derives_chatglm2_sizes():
    config = GLM2Config.from_published(CHATGLM2)
    assert (config.group_size, config.rotary_dim, config.qkv_size) == (16, 64, 4608)
    assert (config.rope_base, config.rope_position_scale) == (10000.0, 1.0)


def test_config_survives_a_round_trip(tmp_path):
    config = GLM2Config.from_published(CHATGLM2)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_published()))
    assert GLM2Config.from_json(path) == config


def test_rope_ratio_scales_the_base_or_the_positions():
    fields = CHATGLM2 | {"rope_ratio": 50}
    base = GLM2Config.from_published(fields)
    assert (base.rope_base, base.rope_position_scale) == (500000.0, 1.0)
    position = GLM2Config.from_published(fields, rope_scaling="position")
    assert (position.rope_base, position.rope_position_scale) == (10000.0, 50)


def test_config_without_multi_query_has_as_many_kv_heads():
    config = GLM2Config.from_published(
        {k: v for k, v in CHATGLM2.items() if k != "multi_query_group_num"}
        | {"multi_query_attention": False}
    )
    assert config.num_kv_heads == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0; expected more than 0"),
        ({"num_layers": 10**9}, "num_layers is 1000000000; expected more than 0, at most 4096"),
        ({"layernorm_epsilon": 10**400}, "norm_eps is a number of many digits; expected"),
        ({"num_layers": True}, "num_layers is True; expected int"),
        ({"hidden_size": 4096.0}, "hidden_size is 4096.0; expected int"),
        ({"add_qkv_bias": 1}, "add_qkv_bias is 1; expected bool"),
        ({"layernorm_epsilon": float("nan")}, "norm_eps is nan; expected more than 0"),
        ({"rope_ratio": float("inf")}, "rope_ratio is inf; expected more than 0"),
        ({"multi_query_group_num": 3}, "num_heads must be a multiple of num_kv_heads"),
        ({"kv_channels": 6}, "head_dim is 6; half of it is rotated in pairs"),
        ({"rmsnorm": False}, "config.json has rmsnorm = False; only True is supported"),
    ],
)
def test_config_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        GLM2Config.from_published(CHATGLM2 | change)


def test_config_names_every_missing_key():
    with pytest.raises(ValueError, match=r"lacks hidden_size, multi_query_group_num;"):
        GLM2Config.from_published(
            {k: v for k, v in CHATGLM2.items() if k not in {"hidden_size", "multi_query_group_num"}}
        )


def test_config_refuses_unknown_rope_scaling(tiny_config):
    with pytest.raises(ValueError, match="rope_scaling is 'linear'; expected 'base' or"):
        dataclasses.replace(tiny_config, rope_scaling="linear")


def test_config_refuses_groups_without_multi_query(tiny_config):
    with pytest.raises(ValueError, match="multi_query_attention is false, but num_heads is 4"):
        dataclasses.replace(tiny_config, multi_query_attention=False)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not valid JSON"), ("[]", "holds a JSON list; expected an obj")]
)
def test_config_refuses_a_file(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        GLM2Config.from_json(path)


def test_published_tensors_of_chatglm2_have_the_published_size():
    shapes = published_tensor_shapes(GLM2Config.from_published(CHATGLM2))
    elems = 0
    for shape in shapes.values():
        size = 1
        for axis in shape:
            size *= axis
        elems += size
    # 12,487,168,064 bytes of float16 in the published index, of which 64 are inv_freq.
    assert 2 * elems == 12_487_168_064 - 64
    name = "transformer.encoder.layers.27.self_attention.query_key_value.bias"
    assert shapes[name] == (4608,)


def test_published_tensors_leave_out_what_the_config_does_not_have(tiny_config):
    config = dataclasses.replace(tiny_config, add_qkv_bias=False, tie_word_embeddings=True)
    shapes = published_tensor_shapes(config)
    assert "transformer.output_layer.weight" not in shapes
    assert not [name for name in shapes if name.endswith("bias")]
