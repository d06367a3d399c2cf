"""ChatGLM as its users call it: generate, logits, blanks, prefixes, and the two Auto classes."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")

import mindspore as ms

import glm2
from glm2.batch import generate_batch
from glm2.generate import ContextLengthError
from glm2.sampling import Sampler, SamplingParams
from glm2.streaming import TextIteratorStreamer, TextStreamer
from glm2_reference import generate as reference_generate

pytestmark = pytest.mark.mindspore

FAMILIES = ("chatglm2", "chatglm3")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_lectures_snippet(opened, reference, family):
    model, tokenizer = opened[family]
    prompt = tokenizer.build_prompt("the quick fox?")
    input_ids = tokenizer([prompt])["input_ids"]
    outputs = model.generate(input_ids, max_length=60)
    text = tokenizer.decode(outputs)[0]
    assert isinstance(text, str)
    assert outputs[0][: len(input_ids[0])] == input_ids[0]
    wanted = reference_generate(
        reference, input_ids[0], max_new_tokens=60 - len(input_ids[0]), stop_ids=(2,)
    )
    assert outputs[0][len(input_ids[0]) :] == wanted


def test_generate_returns_prompt_and_continuation(chatglm2, reference):
    model, _ = chatglm2
    ids = [5, 6, 7, 8]
    wanted = reference_generate(reference, ids, max_new_tokens=30, stop_ids=(2,))
    assert model.generate(ids, max_new_tokens=30, do_sample=False) == ids + wanted
    assert model.generate(np.array(ids), max_new_tokens=30) == ids + wanted
    assert model.generate([ids], max_new_tokens=30) == [ids + wanted]
    assert model.generate(ms.Tensor([ids]), max_new_tokens=30) == [ids + wanted]
    stop = wanted[4]
    ended = ids + wanted[: wanted.index(stop) + 1]
    assert model.generate(ids, max_new_tokens=30, eos_token_id=stop) == ended
    assert model.generate(ids, max_new_tokens=30, eos_token_id=[399, stop]) == ended
    assert list(model.stream_generate(ids, max_new_tokens=30, eos_token_id=stop)) == ended[4:-1]


def test_logits_of_all_positions(chatglm2, reference, small_config):
    model, _ = chatglm2
    ids = list(range(50))
    wanted = reference.forward(np.array(ids))
    for given in (ids, [ids], np.array(ids), ms.Tensor(ids)):
        got = model.logits(given)
        assert (got.dtype, got.shape) == (np.float32, (50, small_config.vocab_size))
        assert np.abs(got - wanted).max() / np.abs(wanted).max() < 1e-4
    assert model.config == small_config


def test_padding_of_either_side_makes_no_difference(chatglm2):
    model, tokenizer = chatglm2
    texts = ["the quick brown fox", "dog", "jumps over the lazy dog 0 1 2"]
    alone = [model.generate(tokenizer(text)["input_ids"], max_new_tokens=12) for text in texts]
    for side in ("left", "right"):
        for kind in (None, "np", "ms"):
            encoded = tokenizer(texts, padding=True, padding_side=side, return_tensors=kind)
            mask = encoded["attention_mask"]
            assert (
                model.generate(encoded["input_ids"], attention_mask=mask, max_new_tokens=12)
                == alone
            )
            assert model.generate(encoded["input_ids"], max_new_tokens=12) == alone
    assert model.generate(tokenizer(texts)["input_ids"], max_new_tokens=12) == alone
    for side in ("left", "right"):
        padded = tokenizer(texts[:1], padding="max_length", max_length=30, padding_side=side)
        assert model.generate(padded["input_ids"], max_new_tokens=12) == alone[:1]
    encoded = tokenizer(texts, padding=True, return_tensors="np")
    assert model.eval().generate(**encoded, max_new_tokens=12) == alone


def test_sampling_repeats_and_does_not_depend_on_the_batch(chatglm2):
    model, _ = chatglm2
    rows = [[5, 6, 7], [8, 9]]
    options = {"do_sample": True, "temperature": 1.5, "top_p": 0.9, "seed": 7, "max_new_tokens": 15}
    made = model.generate(rows, **options)
    assert made == [model.generate(row, **options) for row in rows]
    assert made != model.generate(rows, **options | {"seed": 8})


def test_beams(chatglm2):
    model, _ = chatglm2
    rows = [[5, 6, 7], [8, 9]]
    options = {"num_beams": 3, "length_penalty": 0.5, "max_new_tokens": 10}
    made = model.generate(rows, **options)
    assert made == [model.generate(row, **options) for row in rows]
    assert len({tuple(made[0]), tuple(model.generate(rows[0], max_new_tokens=10))}) == 2


def test_streamer_gets_every_new_token(chatglm2):
    model, tokenizer = chatglm2

    class Recorder:
        def __init__(self):
            self.ids, self.ended = [], 0

        def put(self, token_ids):
            self.ids += token_ids

        def end(self):
            self.ended += 1

    streamer = Recorder()
    ids = tokenizer("the lazy dog")["input_ids"]
    whole = model.generate(ids, max_new_tokens=9, streamer=streamer, eos_token_id=())
    assert (streamer.ids, streamer.ended) == (whole[len(ids) :], 1)
    pieces = []
    model.generate(
        ids,
        max_new_tokens=9,
        eos_token_id=(),
        streamer=TextStreamer(tokenizer.tokenizer, pieces.append),
    )
    assert "".join(pieces) == tokenizer.decode(streamer.ids).rstrip("\ufffd")


def test_stop_strings_end_the_answer(chatglm2):
    model, tokenizer = chatglm2
    ids = tokenizer("fox")["input_ids"]
    whole = model.generate(ids, max_new_tokens=60, eos_token_id=())
    text = tokenizer.tokenizer.decode(whole[len(ids) :])
    stop = next(
        text[i : i + 2]
        for i in range(8, 40)
        if text[i : i + 2].isascii() and len(text[i : i + 2].strip()) == 2
    )
    cut = model.generate(
        ids, max_new_tokens=60, eos_token_id=(), stop_strings=[stop], tokenizer=tokenizer
    )
    assert cut == whole[: len(cut)]
    assert stop in tokenizer.tokenizer.decode(cut[len(ids) :])
    assert stop not in tokenizer.tokenizer.decode(cut[len(ids) : -1])


@pytest.mark.parametrize("wrong", [{"temperature": -1.0, "do_sample": True}, {"max_length": 10**9}])
def test_a_streamer_is_ended_when_the_call_fails(chatglm2, wrong):
    model, tokenizer = chatglm2
    streamer = TextIteratorStreamer(tokenizer.tokenizer, timeout_s=5)
    with pytest.raises(ValueError, match="is"):
        model.generate([1], streamer=streamer, **wrong)
    assert list(streamer) == []


def test_a_mask_may_be_booleans(chatglm2):
    model, _ = chatglm2
    ids = np.array([[0, 0, 5, 6], [0, 7, 8, 9]])
    got = model.generate(ids, attention_mask=ids != 0, max_new_tokens=4)
    assert got == model.generate([[5, 6], [7, 8, 9]], max_new_tokens=4)


def test_a_prompt_of_another_tokenizer_is_refused(opened, byte_tokenizer):
    _, tokenizer = opened["chatglm3"]
    prompt = glm2.ChatTokenizer(byte_tokenizer, "chatglm3").build_prompt("hi")
    with pytest.raises(ValueError, match=r"built for a chatglm3 tokenizer of \d+ ids and this is"):
        tokenizer(prompt)


def test_fill_blanks_reads_both_ways_and_fills_in_order(chatglm2, reference):
    model, tokenizer = chatglm2
    text = "the [MASK] fox jumps over the [gMASK] dog"
    filled = glm2.fill_blanks(model, tokenizer, text, max_new_tokens=6)
    part_a = tokenizer.encode_blanks(text)
    start, end = (tokenizer.get_command(name) for name in ("sop", "eop"))
    ids = [*part_a]
    wanted = []
    for _ in range(2):
        ids.append(start)
        new = []
        for _ in range(6):
            token = int(
                reference.forward(np.array([*ids, *new]), prefix_len=len(part_a))[-1].argmax()
            )
            if token in (end, 2):
                break
            new.append(token)
        ids += new
        wanted.append(tokenizer.tokenizer.decode(new))
    assert filled.fills == wanted
    assert filled.text == text.replace("[MASK]", wanted[0]).replace("[gMASK]", wanted[1])
    with pytest.raises(ValueError, match="has no blank"):
        glm2.fill_blanks(model, tokenizer, "nothing here")
    generated = model.generate(
        [*part_a, start], prefix_len=len(part_a), max_new_tokens=6, eos_token_id=[end, 2]
    )
    assert tokenizer.tokenizer.decode(generated[len(part_a) + 1 :]) == wanted[0]


def test_generate_of_a_batch_is_generate_batch(chatglm2):
    model, _ = chatglm2
    rows = [[4, 5], [6]]
    params = SamplingParams(temperature=0.0)
    made = generate_batch(
        model.model, rows, [Sampler(params) for _ in rows], stop_ids={2}, max_new_tokens=8
    )
    got = model.generate(rows, max_new_tokens=8)
    assert [r[len(p) :] for r, p in zip(got, rows, strict=True)] == [
        [*m.ids, *([m.stop_id] if m.stop_id is not None else [])] for m in made
    ]


def test_tuned_prefix_loads_beside_the_model(folders, tmp_path, chatglm2, small_config):
    """A folder that holds the prefix encoder alone, as P-tuning saves it."""
    kv_size = 2 * small_config.num_layers * small_config.num_kv_heads * small_config.head_dim
    rng = np.random.default_rng(1)
    tensors = {
        "transformer.prefix_encoder.embedding.weight": rng.standard_normal((4, kv_size)).astype(
            np.float32
        )
    }
    from safetensors.numpy import save_file

    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pre_seq_len": 4}))
    tuned = glm2.ChatGLM.from_pretrained(
        folders["chatglm2"], prefix_encoder=tmp_path, cache_dtype="float32"
    )
    plain, _ = chatglm2
    assert np.abs(tuned.logits([5, 6, 7]) - plain.logits([5, 6, 7])).max() > 0.1
    assert tuned.generate([[5, 6], [7]], max_new_tokens=5) == [
        tuned.generate([5, 6], max_new_tokens=5),
        tuned.generate([7], max_new_tokens=5),
    ]
    with pytest.raises(ContextLengthError, match="the context holds 512"):
        tuned.generate([1] * 512)
    assert len(tuned.generate([1] * 511, max_new_tokens=5)) == 512  # the prefix takes no room
