import json
import sys

import numpy as np
import pytest

from glm2.config import read_checkpoint_config
from glm2.gguf_llama import convert_gguf
from glm2.tokenizer import load_tokenizer
from glm2.weights import load_weights
from glm2_reference import GLM2Model

gguf = pytest.importorskip("gguf")
pytest.importorskip("tokenizers")

NUM_LAYERS, HIDDEN, FFN, NUM_HEADS, NUM_KV_HEADS = 2, 64, 96, 4, 2
HEAD_DIM = HIDDEN // NUM_HEADS
ROPE_BASE, EPS = 100_000.0, 1e-5
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_tokens():
    """The 256 characters of byte-level BPE, in the order of the bytes they stand for last."""
    import tokenizers

    return sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


TOKENS = [*SPECIAL, *byte_tokens(), "th", "the", "Ġthe", "12"]
MERGES = ["t h", "th e", "Ġ the", "1 2"]


def llama_tensors(rng, *, tied=True):
    def matrix(rows, columns):
        return (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    tensors = {"token_embd.weight": matrix(len(TOKENS), HIDDEN) * 8}
    tensors["output_norm.weight"] = 1 + matrix(1, HIDDEN)[0]
    if not tied:
        tensors["output.weight"] = matrix(len(TOKENS), HIDDEN)
    for layer in range(NUM_LAYERS):
        tensors |= {
            f"blk.{layer}.attn_norm.weight": 1 + matrix(1, HIDDEN)[0],
            f"blk.{layer}.attn_q.weight": matrix(HIDDEN, HIDDEN) * 2,
            f"blk.{layer}.attn_k.weight": matrix(NUM_KV_HEADS * HEAD_DIM, HIDDEN) * 2,
            f"blk.{layer}.attn_v.weight": matrix(NUM_KV_HEADS * HEAD_DIM, HIDDEN),
            f"blk.{layer}.attn_output.weight": matrix(HIDDEN, HIDDEN),
            f"blk.{layer}.ffn_norm.weight": 1 + matrix(1, HIDDEN)[0],
            f"blk.{layer}.ffn_gate.weight": matrix(FFN, HIDDEN),
            f"blk.{layer}.ffn_up.weight": matrix(FFN, HIDDEN),
            f"blk.{layer}.ffn_down.weight": matrix(HIDDEN, FFN),
        }
    return tensors


def write_gguf(path, tensors, *, arch="llama", pre="smollm", rope_dims=HEAD_DIM, quantise=False):
    """Write what a converter for llama.cpp writes; returns the tensors as they can be read."""
    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(NUM_LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_rope_dimension_count(rope_dims)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(2)
    readable = {}
    for name, array in tensors.items():
        if quantise and array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            packed = gguf.quants.quantize(array, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            readable[name] = gguf.quants.dequantize(packed, kind)
        else:
            writer.add_tensor(name, array)
            readable[name] = array
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return readable


def llama_logits(tensors, ids):
    """A llama forward pass, float64, one head and one query at a time."""
    w = {name: array.astype(np.float64) for name, array in tensors.items()}

    def norm(x, weight):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPS) * weight

    def rotate(head, position):
        pairs = head.reshape(-1, 2)
        angles = position * ROPE_BASE ** (-2 * np.arange(len(pairs)) / HEAD_DIM)
        turned = (pairs[:, 0] + 1j * pairs[:, 1]) * np.exp(1j * angles)
        return np.stack([turned.real, turned.imag], axis=-1).reshape(-1)

    x = w["token_embd.weight"][ids]
    for layer in range(NUM_LAYERS):
        block = {
            key.split(".")[2]: value for key, value in w.items() if key.startswith(f"blk.{layer}.")
        }
        normed = norm(x, block["attn_norm"])
        q, k, v = (
            (normed @ block[name].T).reshape(len(ids), -1, HEAD_DIM)
            for name in ("attn_q", "attn_k", "attn_v")
        )
        heads = np.zeros_like(q)
        for n in range(NUM_HEADS):
            group = n // (NUM_HEADS // NUM_KV_HEADS)
            keys = [rotate(k[j, group], j) for j in range(len(ids))]
            for i in range(len(ids)):
                query = rotate(q[i, n], i)
                weights = np.exp([query @ keys[j] / np.sqrt(HEAD_DIM) for j in range(i + 1)])
                heads[i, n] = weights / weights.sum() @ v[: i + 1, group]
        x = x + heads.reshape(len(ids), -1) @ block["attn_output"].T
        normed = norm(x, block["ffn_norm"])
        gate = normed @ block["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (normed @ block["ffn_up"].T)) @ block["ffn_down"].T
    output = w.get("output.weight", w["token_embd.weight"])
    return norm(x, w["output_norm.weight"]) @ output.T


@pytest.mark.parametrize("quantise", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_converted_model_computes_what_llama_does(tmp_path, rng, quantise, tied):
    path = tmp_path / "model.gguf"
    tensors = write_gguf(path, llama_tensors(rng, tied=tied), quantise=quantise)
    convert_gguf(path, tmp_path / "glm", {"chat_format": "chatml"})
    checkpoint = read_checkpoint_config(tmp_path / "glm")
    config = checkpoint.config
    assert (config.head_dim, config.rotary_dim) == (2 * HEAD_DIM, HEAD_DIM)
    assert (config.rope_base, config.norm_eps) == (ROPE_BASE, EPS)
    assert (checkpoint.chat_format, checkpoint.eos_token_ids) == ("chatml", (2,))
    weights = load_weights(tmp_path / "glm", config)
    ids = rng.integers(0, len(TOKENS), 23)
    got = GLM2Model(config, weights, np.float64).forward(ids)
    wanted = llama_logits(tensors, ids)
    # sqrt(2) in the query rows is rounded to float32; nothing else is.
    np.testing.assert_allclose(got, wanted, atol=1e-5 * np.abs(wanted).max())


def test_converted_tokenizer_merges_and_splits_digits(tmp_path, rng):
    path = tmp_path / "model.gguf"
    write_gguf(path, llama_tensors(rng))
    convert_gguf(path, tmp_path / "glm", {})
    tokenizer = load_tokenizer(tmp_path / "glm")
    assert tokenizer.vocab_size == len(TOKENS)
    names = {token: token_id for token_id, token in enumerate(TOKENS)}
    assert tokenizer.encode("the the") == [names["the"], names["Ġthe"]]
    assert tokenizer.encode("12") == [names["1"], names["2"]]  # although "1 2" is a merge
    assert tokenizer.encode(" 1") == [names["Ġ"], names["1"]]
    assert tokenizer.special_id("<|im_end|>") == 2
    assert 2 not in tokenizer.encode("<|im_end|>")
    assert tokenizer.decode([1, *tokenizer.encode("你好 the 12\n"), 2]) == "你好 the 12\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "qwen2"}, "general.architecture = 'qwen2'; only 'llama' can"),
        ({"pre": "gpt-2"}, r"tokenizer\.ggml\.pre = 'gpt-2'; only 'smollm' can be re-laid"),
        ({"rope_dims": 8}, r"rope\.dimension_count = 8; only 16 can be re-laid"),
    ],
)
def test_other_models_are_refused(tmp_path, rng, options, message):
    path = tmp_path / "model.gguf"
    write_gguf(path, llama_tensors(rng), **options)
    with pytest.raises(ValueError, match=message):
        convert_gguf(path, tmp_path / "glm", {})
    assert not (tmp_path / "glm").exists()


def test_missing_and_unknown_tensors_are_refused(tmp_path, rng):
    tensors = llama_tensors(rng)
    bias = {"blk.0.attn_q.bias": np.ones(HIDDEN, np.float32)}
    write_gguf(tmp_path / "more.gguf", tensors | bias)
    with pytest.raises(ValueError, match=r"has no place for blk\.0\.attn_q\.bias"):
        convert_gguf(tmp_path / "more.gguf", tmp_path / "glm", {})
    del tensors["blk.1.ffn_up.weight"]
    write_gguf(tmp_path / "less.gguf", tensors)
    with pytest.raises(ValueError, match=r"has no tensor blk\.1\.ffn_up\.weight"):
        convert_gguf(tmp_path / "less.gguf", tmp_path / "glm", {})


def test_conversion_without_gguf_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r'pip install "glm2\[demo\]"'):
        convert_gguf(tmp_path / "model.gguf", tmp_path / "glm", {})


def test_config_json_of_the_conversion_is_published_form(tmp_path, rng):
    write_gguf(tmp_path / "model.gguf", llama_tensors(rng))
    convert_gguf(tmp_path / "model.gguf", tmp_path / "glm", {"_name_or_path": "demo"})
    fields = json.loads((tmp_path / "glm" / "config.json").read_text())
    assert fields["_name_or_path"] == "demo"
    assert (fields["kv_channels"], fields["multi_query_group_num"]) == (2 * HEAD_DIM, NUM_KV_HEADS)
    assert (fields["rope_ratio"], fields["torch_dtype"]) == (10.0, "float32")
