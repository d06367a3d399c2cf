import numpy as np
import pytest

from glm2_reference import GLM2Model, KVCache, generate
from glm2_reference.testing import random_weights


@pytest.fixture
def model(tiny_config, rng):
    return GLM2Model(tiny_config, random_weights(tiny_config, rng, np.float64), np.float64)


def loop_generate(model, ids, count):
    """Without a cache: the whole text again for every token."""
    text = list(ids)
    for _ in range(count):
        logits = model.forward(np.array(text))[-1].tolist()
        text.append(logits.index(max(logits)))
    return text[len(ids) :]


def test_generate_matches_full_recomputation(model):
    want = loop_generate(model, [3, 1, 4, 1, 5], 20)
    assert len(set(want)) > 2  # not one token for ever
    assert generate(model, [3, 1, 4, 1, 5], max_new_tokens=20) == want


def test_generate_ends_with_the_stop_id(model):
    ids = [3, 1, 4, 1, 5]
    want = loop_generate(model, ids, 20)
    stop = want[3]
    end = want.index(stop) + 1
    assert generate(model, ids, max_new_tokens=20, stop_ids={stop}) == want[:end]


def test_a_second_turn_on_one_cache_matches_full_recomputation(model, tiny_config):
    cache = KVCache.new(tiny_config, max_tokens=40, page_size=16, dtype=np.float64)
    first = generate(model, [3, 1, 4], max_new_tokens=6, cache=cache)
    assert cache.length == 3 + 6 - 1
    second = generate(model, [first[-1], 7, 8], max_new_tokens=9, cache=cache)
    assert second == loop_generate(model, [3, 1, 4, *first, 7, 8], 9)


def test_generate_fills_the_model_to_its_last_position(model):
    assert len(generate(model, [1] * 60, max_new_tokens=5)) == 5  # 64 tokens are read


@pytest.mark.parametrize(
    ("ids", "max_new_tokens", "message"),
    [
        ([1], 0, "ids hold 1 tokens and max_new_tokens is 0; expected 1 or more"),
        ([], 3, "ids hold 0 tokens and max_new_tokens is 3"),
        ([1] * 60, 6, "0 cached tokens, 60 ids and 6 new tokens exceed the model's seq_length 64"),
    ],
)
def test_generate_refuses(model, ids, max_new_tokens, message):
    with pytest.raises(ValueError, match=message):
        generate(model, ids, max_new_tokens=max_new_tokens)


def test_generate_refuses_a_small_cache_before_it_computes(model, tiny_config):
    cache = KVCache.new(tiny_config, max_tokens=16, page_size=16, dtype=np.float64)
    with pytest.raises(ValueError, match="the cache holds 0 of 16 tokens and 17 more do not fit"):
        generate(model, [1] * 10, max_new_tokens=8, cache=cache)
    assert cache.length == 0
