import numpy as np
import pytest

from glm2.generate import ContextLengthError, stream_tokens
from glm2.sampling import Sampler, SamplingParams


def greedy():
    return Sampler(SamplingParams(temperature=0.0))


def run(tokens):
    """Collect the tokens, and the reason that the generator returns."""
    collected = []
    while True:
        try:
            collected.append(next(tokens))
        except StopIteration as end:
            return collected, end.value


def test_stream_tokens_prefills_once_then_decodes_one_by_one(fake_model):
    model = fake_model(len)
    cache = model.new_cache(100)
    tokens, reason = run(
        stream_tokens(model, [7, 8, 9], cache, greedy(), stop_ids=(), max_new_tokens=3)
    )
    assert (tokens, reason) == ([3, 4, 5], "max_new_tokens")
    assert model.fed == [[7, 8, 9], [3], [4]]
    assert cache.ids == [7, 8, 9, 3, 4]


def test_stream_tokens_keeps_the_stop_token(fake_model):
    model = fake_model(len)
    cache = model.new_cache(100)
    generated = stream_tokens(model, [7, 8], cache, greedy(), stop_ids={4}, max_new_tokens=50)
    assert run(generated) == ([2, 3], "stop")
    assert cache.ids == [7, 8, 2, 3]


def test_stream_tokens_second_turn_on_one_cache(fake_model):
    model = fake_model(len)
    cache = model.new_cache(100)
    run(stream_tokens(model, [1, 1], cache, greedy(), stop_ids=(), max_new_tokens=2))
    generated = stream_tokens(
        model, [3, 9], cache, greedy(), stop_ids=(), max_new_tokens=2, cached_ids=[1, 1, 2]
    )
    assert run(generated) == ([5, 6], "max_new_tokens")
    assert cache.ids == [1, 1, 2, 3, 9, 5]


def test_stream_tokens_penalty_sees_prompt_cache_and_answer(fake_model):
    model = fake_model(lambda _: np.array([5, 4, 3, 2, 1], np.float32))
    cache = model.new_cache(10)
    cache.ids.append(0)
    sampler = Sampler(SamplingParams(temperature=0.0, repetition_penalty=10.0))
    generated = stream_tokens(
        model, [1], cache, sampler, stop_ids=(), max_new_tokens=3, cached_ids=[0]
    )
    assert run(generated)[0] == [2, 3, 4]


def test_stream_tokens_ends_where_the_context_is_full(fake_model):
    model = fake_model(lambda _: 1)
    cache = model.new_cache(8)
    generated = stream_tokens(
        model, [0] * 5, cache, greedy(), stop_ids=(), max_new_tokens=99, max_length=8
    )
    assert run(generated) == ([1, 1, 1], "max_length")
    assert cache.length == 7


@pytest.mark.parametrize("num_prompt", [400, 401])
def test_stream_tokens_refuses_long_prompt_with_both_numbers(fake_model, num_prompt):
    model = fake_model(lambda _: 1)
    generated = stream_tokens(
        model, [0] * num_prompt, model.new_cache(500), greedy(), stop_ids=(), max_new_tokens=1
    )
    message = rf"prompt has {num_prompt} tokens and the context holds 400 \(.*seq_length is 400\)"
    with pytest.raises(ContextLengthError, match=message):
        next(generated)
    assert not model.fed


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([], {}, "the prompt is empty"),
        ([1], {"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ([1], {"max_length": 401}, "max_length is 401; the model's seq_length allows 1 to 400"),
    ],
)
def test_stream_tokens_refuses_wrong_arguments(fake_model, ids, options, message):
    model = fake_model(lambda _: 1)
    options = {"stop_ids": (), "max_new_tokens": 1} | options
    with pytest.raises(ValueError, match=message):
        next(stream_tokens(model, ids, model.new_cache(9), greedy(), **options))


def test_stream_tokens_closed_early_leaves_what_was_fed(fake_model):
    model = fake_model(len)
    cache = model.new_cache(100)
    tokens = stream_tokens(model, [7, 8], cache, greedy(), stop_ids=(), max_new_tokens=50)
    assert [next(tokens), next(tokens)] == [2, 3]
    tokens.close()
    assert cache.ids == [7, 8, 2]


def test_stream_tokens_interrupted_in_the_model_forgets_that_step(fake_model):
    def reply(ids):
        if len(ids) == 4:
            raise KeyboardInterrupt
        return len(ids)

    model = fake_model(reply)
    cache = model.new_cache(100)
    tokens = stream_tokens(model, [7, 8], cache, greedy(), stop_ids=(), max_new_tokens=50)
    assert [next(tokens), next(tokens)] == [2, 3]
    with pytest.raises(KeyboardInterrupt):
        next(tokens)
    assert cache.ids == [7, 8, 2]


def test_stream_tokens_nan_is_an_error_not_a_token(fake_model):
    model = fake_model(lambda _: np.full(8, np.nan, np.float32))
    tokens = stream_tokens(model, [1], model.new_cache(9), greedy(), stop_ids=(), max_new_tokens=5)
    with pytest.raises(FloatingPointError, match="8 of 8 logits are NaN"):
        next(tokens)
