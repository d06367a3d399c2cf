import json

import pytest

from glm2.config import read_checkpoint_config
from glm2.sampling import SamplingParams

CHATGLM2 = {
    "model_type": "chatglm",
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
    "torch_dtype": "float16",
    "eos_token_id": 2,
}

PACKED = {"format": "int4", "head": "int8", "activation_bits": 8, "layout": 1}


@pytest.fixture
def folder(tmp_path):
    """``folder(**changes)``: a checkpoint folder of which only config.json is there."""

    def build(**changes):
        (tmp_path / "config.json").write_text(json.dumps(CHATGLM2 | changes))
        return tmp_path

    return build


@pytest.mark.parametrize(
    ("name", "chat_format"),
    [
        ("THUDM/chatglm2-6b", "chatglm2"),
        ("THUDM/chatglm3-6b-32k", "chatglm3"),
        ("THUDM/ChatGLM3_6B", "chatglm3"),
        ("/models/chatglm2/chatglm3-6b", "chatglm3"),
        ("/models/chatglm3-6b/checkpoint-500", "chatglm3"),
        ("chatglm2-merged-into-chatglm3", "chatglm2"),  # says both: falls through to the default
        ("codegeex2-6b", "chatglm2"),
    ],
)
def test_family_from_name(folder, name, chat_format):
    assert read_checkpoint_config(folder(_name_or_path=name)).chat_format == chat_format


def test_family_explicit_argument_then_key_then_name(folder):
    path = folder(_name_or_path="chatglm2-6b", chat_format="chatml")
    assert read_checkpoint_config(path).chat_format == "chatml"
    assert read_checkpoint_config(path, "chatglm3").chat_format == "chatglm3"


@pytest.mark.parametrize(
    ("file_name", "text", "chat_format"),
    [
        ("tokenizer_config.json", '{"chat_template": "{% for m %}<|{{ role }}|>"}', "chatglm3"),
        ("tokenizer_config.json", '{"chat_template": "[Round {{ n }}]"}', "chatglm2"),
        ("tokenizer_config.json", '{"chat_template": "<|im_start|>"}', "chatml"),
        ("tokenizer_config.json", '{"tokenizer_class": "ChatGLMTokenizer"}', "chatglm2"),
        ("chat_template.jinja", "<|user|>", "chatglm3"),
        ("tokenization_chatglm.py", 'raise SystemExit  # ["<|system|>"]', "chatglm3"),
        ("tokenization_chatglm.py", '["[gMASK]", "sop"]', "chatglm2"),
    ],
)
def test_family_from_tokenizer_files(folder, file_name, text, chat_format):
    path = folder()
    (path / file_name).write_text(text)
    assert read_checkpoint_config(path).chat_format == chat_format


def test_family_unreadable_tokenizer_config_is_an_error(folder):
    path = folder()
    (path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is not a JSON object"):
        read_checkpoint_config(path)


@pytest.mark.parametrize(
    ("changes", "scaling", "base"),
    [
        ({"_name_or_path": "THUDM/chatglm2-6b-32k", "rope_ratio": 16}, "position", 10000),
        ({"_name_or_path": "/x/chatglm2_6b_32k", "rope_ratio": 16}, "position", 10000),
        ({"_name_or_path": "THUDM/chatglm3-6b-32k", "rope_ratio": 50}, "base", 500000),
        ({"_name_or_path": "mine", "rope_ratio": 16}, "base", 160000),
        ({"_name_or_path": "mine", "rope_ratio": 16, "rope_scaling": "position"}, "position", 1e4),
        ({"_name_or_path": "chatglm2-6b-32k", "rope_ratio": 16, "rope_scaling": "base"}, "base", 16e4),
    ],
)  # fmt: skip
def test_rope_ratio_scales_base_or_positions(folder, changes, scaling, base):
    config = read_checkpoint_config(folder(**changes)).config
    assert (config.rope_scaling, config.rope_base) == (scaling, base)


def test_rope_scaling_by_the_folder_name(tmp_path):
    path = tmp_path / "chatglm2-6b-32k"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CHATGLM2 | {"rope_ratio": 16}))
    assert read_checkpoint_config(path).config.rope_scaling == "position"


def test_defaults_of_each_family(folder):
    chatglm2 = read_checkpoint_config(folder(_name_or_path="chatglm2-6b"))
    assert chatglm2.max_length == 8192  # though seq_length says 32768
    assert chatglm2.sampling == SamplingParams(temperature=0.8, top_p=0.8, top_k=50)
    assert (chatglm2.eos_token_ids, chatglm2.torch_dtype) == ((2,), "float16")
    assert chatglm2.default_system is None
    long = read_checkpoint_config(folder(_name_or_path="chatglm2-6b-32k", rope_ratio=16))
    assert long.max_length == 32768
    chatglm3 = read_checkpoint_config(folder(_name_or_path="chatglm3-6b", seq_length=8192))
    assert chatglm3.max_length == 8192
    assert chatglm3.sampling.repetition_penalty == 1.1


@pytest.mark.parametrize(("value", "ids"), [(None, ()), (7, (7,)), ([2, 3], (2, 3))])
def test_eos_token_ids(folder, value, ids):
    assert read_checkpoint_config(folder(eos_token_id=value)).eos_token_ids == ids


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chat_format": "llama"}, "config.json's chat_format is 'llama'; expected one of"),
        ({"eos_token_id": "</s>"}, "eos_token_id = '</s>'; expected an integer"),
        ({"_name_or_path": 3}, "_name_or_path = 3; expected a string"),
        ({"model_type": "llama"}, "model_type = 'llama'; only 'chatglm' is supported"),
        ({"quantization_bit": 3}, "quantization_bit = 3; expected 8, 4, or null"),
        ({"glm2": {"format": "int4"}}, "has glm2 = .*; convert the checkpoint again"),
        ({"glm2": PACKED | {"layout": 2}}, "packed in layout 2 and this version reads layout 1"),
        ({"glm2": PACKED | {"format": "int3"}}, "weights is 'int3'; expected one of fp16, int8"),
        ({"glm2": PACKED | {"head": "int4-g32"}}, "head is 'int4-g32'; expected one of fp16, "),
        ({"glm2": PACKED | {"activation_bits": 4}}, "activation_bits is 4; expected 16 or 8"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling = .*expected 'base' or 'position'"),
        ({"default_system": 3}, "default_system = 3; expected a string"),
    ],
)
def test_read_checkpoint_config_refuses(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        read_checkpoint_config(folder(**changes))


def test_read_checkpoint_config_refuses_unknown_argument(folder):
    with pytest.raises(ValueError, match=r"^chat_format is 'x'; expected one of chatglm2"):
        read_checkpoint_config(folder(), "x")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not valid JSON"), ("[1]", "holds a JSON list; expected")]
)
def test_read_checkpoint_config_refuses_damaged_file(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_checkpoint_config(tmp_path)


def test_read_checkpoint_config_says_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder; --model takes"):
        read_checkpoint_config(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        read_checkpoint_config(tmp_path)
