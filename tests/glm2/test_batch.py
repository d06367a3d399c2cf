"""Batches: each prompt gets what it would get alone."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")

from glm2.batch import generate_batch
from glm2.beam_search import BeamParams, beam_search
from glm2.generate import ContextLengthError, stream_tokens
from glm2.model import GLM2Model
from glm2.sampling import Sampler, SamplingParams
from glm2_reference import GLM2Config
from glm2_reference.testing import random_weights

pytestmark = pytest.mark.mindspore

CONFIG = GLM2Config(
    num_layers=2,
    hidden_size=64,
    ffn_hidden_size=96,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    vocab_size=120,
    seq_length=256,
    norm_eps=1e-5,
    add_qkv_bias=True,
)
GREEDY = SamplingParams(temperature=0.0)


@pytest.fixture(scope="module")
def model():
    weights = random_weights(CONFIG, np.random.default_rng(5))
    return GLM2Model(CONFIG, weights, cache_dtype="float32")


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(6)
    return [rng.integers(0, CONFIG.vocab_size, n).tolist() for n in (1, 140, 17, 64)]


def alone(model, prompt, params, *, count, **options):
    tokens = stream_tokens(
        model,
        prompt,
        model.new_cache(256),
        Sampler(params),
        stop_ids=(),
        max_new_tokens=count,
        **options,
    )
    return list(tokens)


def test_batch_equals_each_alone_in_the_default_dtypes(prompts):
    weights = random_weights(CONFIG, np.random.default_rng(5), np.float16)
    model = GLM2Model(CONFIG, weights)
    made = generate_batch(
        model, prompts, [Sampler(GREEDY) for _ in prompts], stop_ids=(), max_new_tokens=40
    )
    assert [m.ids for m in made] == [alone(model, p, GREEDY, count=40) for p in prompts]


@pytest.mark.parametrize(
    "params",
    [GREEDY, SamplingParams(temperature=0.9, top_p=0.8, repetition_penalty=1.2, seed=3)],
    ids=["greedy", "sampled"],
)
def test_batch_equals_each_alone(model, prompts, params):
    made = generate_batch(
        model, prompts, [Sampler(params) for _ in prompts], stop_ids=(), max_new_tokens=40
    )
    assert [m.ids for m in made] == [alone(model, p, params, count=40) for p in prompts]
    assert {m.finish_reason for m in made} == {"max_new_tokens"}


def test_rows_end_apart(model, prompts):
    whole = [alone(model, prompt, GREEDY, count=30) for prompt in prompts]
    stop = whole[1][7]
    made = generate_batch(
        model, prompts, [Sampler(GREEDY) for _ in prompts], stop_ids={stop}, max_new_tokens=30
    )
    for generated, ids in zip(made, whole, strict=True):
        end = ids.index(stop) if stop in ids else 30
        assert generated.ids == ids[:end]
        assert (generated.finish_reason, generated.stop_id) == (
            ("stop", stop) if stop in ids else ("max_new_tokens", None)
        )
    assert len(made[1].ids) <= 7


def test_on_token_ends_a_row(model, prompts):
    seen = []

    def on_token(index, token):
        seen.append((index, token))
        return index == 2 and sum(i == 2 for i, _ in seen) == 3

    made = generate_batch(
        model,
        prompts,
        [Sampler(GREEDY) for _ in prompts],
        stop_ids=(),
        max_new_tokens=5,
        on_token=on_token,
    )
    assert [len(generated.ids) for generated in made] == [5, 5, 3, 5]
    assert [token for index, token in seen if index == 3] == made[3].ids


def test_length_limit_ends_the_longest_row_first(model, prompts):
    made = generate_batch(
        model,
        prompts,
        [Sampler(GREEDY) for _ in prompts],
        stop_ids=(),
        max_new_tokens=20,
        max_length=150,
    )
    assert [len(generated.ids) for generated in made] == [20, 10, 20, 20]
    assert [g.finish_reason for g in made] == ["max_new_tokens", "max_length"] + [
        "max_new_tokens"
    ] * 2


@pytest.mark.parametrize("chunk_tokens", [1, 13, 64, 1000])
@pytest.mark.parametrize("prefix_lens", [None, [0, 90, 17, 30]])
def test_chunks_make_no_difference(model, prompts, chunk_tokens, prefix_lens):
    def run(chunk):
        return generate_batch(
            model,
            prompts,
            [Sampler(GREEDY) for _ in prompts],
            stop_ids=(),
            max_new_tokens=12,
            prefix_lens=prefix_lens,
            chunk_tokens=chunk,
        )

    assert run(chunk_tokens) == run(10_000)
    single = [
        alone(model, p, GREEDY, count=12, chunk_tokens=chunk_tokens, prefix_len=n)
        for p, n in zip(prompts, prefix_lens or [0] * 4, strict=True)
    ]
    assert single == [generated.ids for generated in run(chunk_tokens)]


def test_beam_search_in_chunks(model, prompts):
    def run(chunk_tokens, prefix_len):
        return beam_search(
            model,
            prompts[1],
            BeamParams(num_beams=3),
            GREEDY,
            stop_ids=(),
            max_new_tokens=9,
            prefix_len=prefix_len,
            chunk_tokens=chunk_tokens,
        )

    for prefix_len in (0, 60):
        assert run(16, prefix_len) == run(1000, prefix_len)


def test_one_beam_is_greedy(model, prompts):
    for prompt in prompts:
        made = beam_search(
            model, prompt, BeamParams(num_beams=1), GREEDY, stop_ids=(), max_new_tokens=25
        )
        assert made.ids == alone(model, prompt, GREEDY, count=25)
        assert made.finish_reason == "max_new_tokens"


def test_beams_find_a_likelier_text_than_greedy(model, prompts):
    def log_prob(prompt, ids):
        logits = model.logits(np.array([*prompt, *ids], np.int32)).astype(np.float64)
        rows = logits[len(prompt) - 1 : -1]
        log_probs = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
        return log_probs[np.arange(len(ids)), ids].sum()

    for prompt in prompts:
        best = beam_search(
            model, prompt, BeamParams(num_beams=6), GREEDY, stop_ids=(), max_new_tokens=10
        )
        assert (
            log_prob(prompt, best.ids)
            >= log_prob(prompt, alone(model, prompt, GREEDY, count=10)) - 1e-4
        )


def test_sampled_beams_repeat_with_a_seed(model, prompts):
    def run(seed):
        params = SamplingParams(temperature=1.3, top_k=20, top_p=0.9, seed=seed)
        return beam_search(
            model, prompts[2], BeamParams(num_beams=4), params, stop_ids={5}, max_new_tokens=15
        )

    assert run(1) == run(1)
    assert len({tuple(run(seed).ids) for seed in range(4)}) > 1


def test_beams_whose_every_candidate_stops(model, prompts):
    params = SamplingParams(temperature=1.0, top_k=1)
    first = alone(model, prompts[2], GREEDY, count=1)[0]
    made = beam_search(
        model, prompts[2], BeamParams(num_beams=2), params, stop_ids={first}, max_new_tokens=15
    )
    assert (made.ids, made.finish_reason, made.stop_id) == ([], "stop", first)


def test_wrong_arguments_are_refused(model, prompts):
    def run(prompts, **options):
        defaults = {"stop_ids": (), "max_new_tokens": 5}
        generate_batch(model, prompts, [Sampler(GREEDY) for _ in prompts], **defaults | options)

    with pytest.raises(ValueError, match="there are no prompts"):
        run([])
    with pytest.raises(ValueError, match="prompt 1: the prompt is empty"):
        run([[1], []])
    with pytest.raises(
        ContextLengthError, match="prompt 1: the prompt has 140 tokens and the context holds 100"
    ):
        run(prompts, max_length=100)
    with pytest.raises(ValueError, match="max_new_tokens is 0"):
        run([[1]], max_new_tokens=0)
    with pytest.raises(ValueError, match="num_beams is 0; it must be at least 1"):
        BeamParams(num_beams=0)
    with pytest.raises(ValueError, match="chunk_tokens is 0"):
        alone(model, [1], GREEDY, count=1, chunk_tokens=0)
    with pytest.raises(ValueError, match="there are 2 prompts and 1 samplers"):
        generate_batch(model, [[1], [2]], [Sampler(GREEDY)], stop_ids=(), max_new_tokens=1)
    for chunk_tokens in (0, -3):
        with pytest.raises(ValueError, match=f"chunk_tokens is {chunk_tokens}; it must be"):
            run([[1]], chunk_tokens=chunk_tokens)
        with pytest.raises(ValueError, match=f"chunk_tokens is {chunk_tokens}; it must be"):
            beam_search(
                model, [1], BeamParams(num_beams=2), GREEDY,
                stop_ids=(), max_new_tokens=1, chunk_tokens=chunk_tokens,
            )  # fmt: skip
    run([[1]])  # and the next call works
