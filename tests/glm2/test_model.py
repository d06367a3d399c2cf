"""GLM2Model on random checkpoints on disk, against the numpy reference."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")

import glm2.device_weights
import glm2.model
from glm2.kv_cache import KVCache
from glm2.model import GLM2Model
from glm2.weights import save_weights
from glm2_reference import GLM2Config
from glm2_reference import GLM2Model as ReferenceModel
from glm2_reference import KVCache as ReferenceCache
from glm2_reference.testing import random_weights

pytestmark = pytest.mark.mindspore

MQA = GLM2Config(
    num_layers=3,
    hidden_size=64,
    ffn_hidden_size=96,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    vocab_size=101,
    seq_length=512,
    norm_eps=1e-5,
    add_qkv_bias=True,
)
VARIANTS = {
    "chatglm2": MQA,
    "chatglm3-32k": dataclasses.replace(MQA, rope_ratio=50.0),
    "chatglm2-32k": dataclasses.replace(MQA, rope_ratio=16.0, rope_scaling="position"),
    "one-group": dataclasses.replace(MQA, num_heads=16, num_kv_heads=1, head_dim=16),
    "no-bias": dataclasses.replace(MQA, add_qkv_bias=False),
    "tied": dataclasses.replace(MQA, tie_word_embeddings=True),
    "multi-head": dataclasses.replace(MQA, multi_query_attention=False, num_kv_heads=4),
}


def numpy_dtype(name):
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def saved(folder, config, *, seed=0, dtype="float32"):
    weights = random_weights(config, np.random.default_rng(seed))
    weights = {name: w.astype(numpy_dtype(dtype)) for name, w in weights.items()}
    fields = {"rope_scaling": config.rope_scaling}
    save_weights(folder, config, weights, dtype=dtype, fields=fields)
    return folder


def reference(config, *, seed=0, round_to=None):
    weights = random_weights(config, np.random.default_rng(seed))
    if round_to is not None:
        weights = {name: w.astype(round_to).astype(np.float32) for name, w in weights.items()}
    return ReferenceModel(config, weights)


def random_ids(config, count, seed=1):
    return np.random.default_rng(seed).integers(0, config.vocab_size, count).astype(np.int32)


def relative_error(got, wanted):
    return np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = saved(tmp_path_factory.mktemp("checkpoint"), MQA)
    return GLM2Model.from_pretrained(folder, cache_dtype="float32")


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_match_reference(tmp_path, name):
    config = VARIANTS[name]
    model = GLM2Model.from_pretrained(saved(tmp_path, config), cache_dtype="float32")
    assert model.config == config
    ids = random_ids(config, 141)  # past a page edge
    wanted = reference(config).forward(ids)
    assert relative_error(model.logits(ids), wanted) < 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_logits_of_narrow_weights_match_reference(tmp_path, dtype):
    folder = saved(tmp_path, MQA, dtype=dtype)
    model = GLM2Model.from_pretrained(folder, cache_dtype="float32")
    ids = random_ids(MQA, 40)
    wanted = reference(MQA, round_to=numpy_dtype(dtype)).forward(ids)
    assert relative_error(model.logits(ids), wanted) < 1e-4


def test_float16_cache_is_close(tmp_path):
    model = GLM2Model.from_pretrained(saved(tmp_path, MQA))
    assert model.new_cache(1).k[0].dtype == np.float16
    ids = random_ids(MQA, 60)
    error = relative_error(model.logits(ids), reference(MQA).forward(ids))
    assert 0 < error < 5e-3  # the operands of attention carry 11 bits, everything else 24


def greedy(step, ids, count):
    tokens, logits = [], step(ids)
    for _ in range(count):
        tokens.append(int(logits.argmax()))
        logits = step(np.array(tokens[-1:], np.int32))
    return tokens


def test_two_turns_of_64_greedy_tokens_match_reference(model):
    ours, theirs = model.new_cache(400), ReferenceCache.new(MQA, max_tokens=400)
    wanted = reference(MQA)
    for turn in range(2):  # the second turn continues on the same cache
        ids = random_ids(MQA, 37 + turn, seed=turn)
        got = greedy(lambda new: model.forward(new, ours), ids, 64)
        assert got == greedy(lambda new: wanted.forward(new, cache=theirs)[-1], ids, 64)
    assert ours.length == theirs.length == 2 * 64 + 37 + 38


def test_prefill_in_chunks_equals_prefill_at_once(model):
    ids = random_ids(MQA, 200)
    whole, chunked = model.new_cache(200), model.new_cache(200)
    wanted = model.forward(ids, whole)
    for begin in range(0, 200, 67):
        got = model.forward(ids[begin : begin + 67], chunked)
    assert relative_error(got, wanted) < 1e-5


def test_truncated_cache_forgets(model):
    ids = random_ids(MQA, 50)
    cache = model.new_cache(100)
    model.forward(random_ids(MQA, 70, seed=9), cache)
    cache.truncate(0)
    assert np.array_equal(model.forward(ids, cache), model.forward(ids, model.new_cache(100)))


def test_ragged_batch_equals_each_alone(model):
    lengths = [5, 1, 130]
    parts = [random_ids(MQA, n, seed=n) for n in lengths]
    cu_seqlens = np.cumsum([0, *lengths], dtype=np.int32)
    cache = model.new_cache(200, num_seqs=3)
    together = model.forward_ragged(np.concatenate(parts), cu_seqlens, cache)
    caches = [model.new_cache(200) for _ in parts]
    alone = [model.forward(part, c) for part, c in zip(parts, caches, strict=True)]
    assert relative_error(together, np.stack(alone)) < 1e-5
    step = np.array([7, 8, 9], np.int32)
    together = model.forward_ragged(step, np.arange(4, dtype=np.int32), cache)
    alone = [model.forward(step[i : i + 1], c) for i, c in enumerate(caches)]
    assert relative_error(together, np.stack(alone)) < 1e-5


def test_token_counts_share_one_compilation(model):
    model.forward(random_ids(MQA, 3), model.new_cache(64))
    compiled = set(model._cell.compile_cache)
    assert len(compiled) == 1
    for count, room in ((1, 64), (17, 300), (129, 511)):
        model.forward(random_ids(MQA, count), model.new_cache(room))
    assert set(model._cell.compile_cache) == compiled


def test_mapped_weights_are_not_copied(tmp_path):
    model = GLM2Model.from_pretrained(saved(tmp_path, MQA), cache_dtype="float32")
    maps = Path("/proc/self/maps").read_text().splitlines()
    mapped = [line.split() for line in maps if str(tmp_path) in line]
    assert mapped
    begin, end = (int(x, 16) for x in mapped[0][0].split("-"))
    weights = [t for t in model.device_weights if t.size > 1]  # not what stands for absent scales
    assert all(begin <= t.data_ptr() < end for t in weights)


BAD_CALLS = {
    "empty": (lambda m: m.forward(np.array([], np.int32), m.new_cache(9)), "ids is empty"),
    "id too large": (
        lambda m: m.forward(np.array([101], np.int32), m.new_cache(9)),
        "ids holds 101; the vocabulary has ids 0 to 100",
    ),
    "negative id": (lambda m: m.forward(np.array([-1]), m.new_cache(9)), "ids holds -1"),
    "float ids": (lambda m: m.forward(np.array([0.5]), m.new_cache(9)), "ids has dtype float64"),
    "two axes": (lambda m: m.forward(np.zeros((1, 2), int), m.new_cache(9)), "expected 1 axes"),
    "cache full": (
        lambda m: m.forward(random_ids(MQA, 6), m.new_cache(5)),
        "holds 5 tokens a sequence and 6 are needed",
    ),
    "too long": (
        lambda m: m.forward(random_ids(MQA, 513), m.new_cache(1000)),
        "would have 513 tokens, but the model's seq_length is 512",
    ),
    "wrong batch": (
        lambda m: m.forward(random_ids(MQA, 4), m.new_cache(9, num_seqs=2)),
        "the cache has 2 sequences and cu_seqlens names 1",
    ),
    "no tokens for anyone": (
        lambda m: m.forward_ragged(
            random_ids(MQA, 0), np.array([0, 0, 0], np.int32), m.new_cache(9, num_seqs=2)
        ),
        "ids is empty",
    ),
    "prefix of another batch": (
        lambda m: m.forward_ragged(
            random_ids(MQA, 4),
            np.array([0, 4], np.int32),
            m.new_cache(9),
            prefix_len=np.array([1, 1], np.int32),
        ),
        r"prefix_len has shape \(2,\); expected \(1,\)",
    ),
    "prefix longer than the tokens": (
        lambda m: m.forward(random_ids(MQA, 4), m.new_cache(9), prefix_len=5),
        "prefix_len is 5 and the tokens are 0 to 3; feed the whole bidirectional prefix in one",
    ),
    "foreign cache": (
        lambda m: m.forward(
            random_ids(MQA, 4),
            KVCache(num_layers=3, num_kv_heads=1, head_dim=32, max_tokens=9, dtype=np.float32),
        ),
        "the cache was made for another model",
    ),
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_call_is_a_clear_error_and_the_next_call_works(model, name):
    call, message = BAD_CALLS[name]
    with pytest.raises((ValueError, TypeError), match=message):
        call(model)
    ids = random_ids(MQA, 12)
    assert relative_error(model.logits(ids), reference(MQA).forward(ids)) < 1e-4


def test_overwritten_cache_tables_are_refused(model):
    for name, value, message in (
        ("block_table", 99, r"block_table\[0, 0\] is 99"),
        ("lengths", -3, r"seq_len_kv\[0\] is "),
    ):
        cache = model.new_cache(50)
        getattr(cache, name)[:] = value
        with pytest.raises(ValueError, match=message):
            model.forward(random_ids(MQA, 4), cache)
    with pytest.raises(TypeError, match="cache is a NoneType; make one with this model's"):
        model.forward(random_ids(MQA, 4), None)


def test_threads_take_turns(model):
    ids = random_ids(MQA, 30)
    wanted = model.forward(ids, model.new_cache(64))
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(model.forward, ids, model.new_cache(64)) for _ in range(12)]
        for call in calls:
            assert np.array_equal(call.result(), wanted)


def test_failure_inside_an_operator_does_not_poison_the_model(model):
    cache = model.new_cache(64)
    cache.k = [pages[:, :, :24].copy() for pages in cache.k]  # a page size that no kernel serves
    cache.v = [pages[:, :, :24].copy() for pages in cache.v]
    with pytest.raises(RuntimeError, match="page_size is 24"):
        model.forward(random_ids(MQA, 4), cache)
    assert cache.length == 0
    ids = random_ids(MQA, 12)
    assert relative_error(model.logits(ids), reference(MQA).forward(ids)) < 1e-4


def test_nan_weights_are_an_error_not_a_token(tmp_path):
    weights = dict(random_weights(MQA, np.random.default_rng(0)))
    weights["transformer.encoder.final_layernorm.weight"][3] = np.nan
    save_weights(tmp_path, MQA, weights, dtype="float32")
    model = GLM2Model.from_pretrained(tmp_path)
    cache = model.new_cache(9)
    with pytest.raises(FloatingPointError, match="NaN or infinity"):
        model.forward(random_ids(MQA, 4), cache)
    assert cache.length == 0


def test_unserved_settings_are_refused():
    weights = random_weights(MQA, np.random.default_rng(0))
    with pytest.raises(ValueError, match="cache_dtype is 'int8'; expected float16 or float32"):
        GLM2Model(MQA, weights, cache_dtype="int8")
    narrow = dataclasses.replace(MQA, head_dim=24)
    with pytest.raises(ValueError, match="kv_channels is 24"):
        GLM2Model(narrow, random_weights(narrow, np.random.default_rng(0)))
    wide = dataclasses.replace(MQA, hidden_size=11280)
    with pytest.raises(
        ValueError, match="hidden_size is 11280; the norm operator serves up to 112"
    ):
        GLM2Model(wide, {})


def test_a_bidirectional_prefix_is_fed_whole(model):
    ids = random_ids(MQA, 6)
    cache = model.new_cache(9)
    model.forward(ids[:3], cache)
    with pytest.raises(ValueError, match="prefix_len is 5 and the tokens are 3 to 5"):
        model.forward(ids[3:], cache, prefix_len=5)
    model.forward(ids[3:], cache, prefix_len=3)  # what is cached has seen all of it
    assert cache.length == 6


def test_sequences_without_new_tokens_keep_theirs(model):
    ids = random_ids(MQA, 12)
    cache = model.new_cache(20, num_seqs=3)
    model.forward_ragged(ids[:9], np.array([0, 4, 4, 9], np.int32), cache)
    assert cache.lengths.tolist() == [4, 0, 5]
    logits = model.forward_ragged(ids[9:], np.array([0, 0, 2, 3], np.int32), cache)
    assert cache.lengths.tolist() == [4, 2, 6]
    wanted = [model.logits(ids[9:11])[-1], model.logits([*ids[4:9], ids[11]])[-1]]
    assert relative_error(logits, np.stack(wanted)) < 1e-5


def test_logits_of_a_long_text_come_in_chunks(model, monkeypatch):
    ids = random_ids(MQA, 50)
    whole = model.logits(ids)
    monkeypatch.setattr(glm2.model, "PREFILL_CHUNK", 16)
    assert relative_error(model.logits(ids), whole) < 1e-5
    both_ways = model.logits(ids, prefix_len=20)
    assert relative_error(both_ways, reference(MQA).forward(ids, prefix_len=20)) < 1e-4


BROKEN = {
    "word_embeddings.weight": ("transformer.embedding.", "the embedding"),
    "self_attention.dense.weight": (
        "transformer.encoder.layers.1.",
        "transformer.encoder.layers.1, attention",
    ),
    "mlp.dense_h_to_4h.weight": (
        "transformer.encoder.layers.2.",
        "transformer.encoder.layers.2, MLP",
    ),
    "final_layernorm.weight": ("transformer.encoder.", "the output layer"),
}


@pytest.mark.parametrize("short", BROKEN)
def test_nan_is_an_error_that_names_the_first_bad_layer(short):
    where, layer = BROKEN[short]
    tensor = where + short
    weights = random_weights(MQA, np.random.default_rng(0))
    weights[tensor].reshape(-1)[:: weights[tensor].size - 1] = np.nan
    model = GLM2Model(MQA, weights, cache_dtype="float32")
    cache = model.new_cache(9)
    ids = np.array([0, MQA.vocab_size - 1], np.int32)
    with pytest.raises(FloatingPointError, match=f"first bad layer is {layer}") as caught:
        model.forward(ids, cache)
    assert f"{short} holds 2 NaN or infinite numbers" in str(caught.value)
    assert cache.length == 0


def test_overflow_of_a_float16_cache_names_the_layer_and_the_remedy():
    weights = random_weights(MQA, np.random.default_rng(0))
    weights["transformer.encoder.layers.1.self_attention.query_key_value.bias"][:] = 1e5
    with pytest.raises(FloatingPointError, match=r"layers\.1, attention\. The weights.*float32"):
        GLM2Model(MQA, weights).logits(random_ids(MQA, 5))
    assert np.isfinite(GLM2Model(MQA, weights, cache_dtype="float32").logits([1, 2])).all()


def test_weights_that_do_not_fit_the_memory_are_refused(monkeypatch):
    weights = random_weights(MQA, np.random.default_rng(0), np.float16)
    monkeypatch.setattr(glm2.device_weights, "available_bytes", lambda: 10**5)
    with pytest.raises(MemoryError, match=r"weights need 0\.\d GB as float32 and this machine has"):
        GLM2Model(MQA, weights)
