import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from glm2.sampling import Sampler, SamplingParams, nucleus_probs

LOGITS = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-20, 20, width=32, allow_subnormal=False)
)


def plain_nucleus(scores, top_k, top_p):
    """The definition, token by token."""
    weights = [float(np.exp(score - max(scores))) for score in scores]
    order = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    if top_k:
        order = order[:top_k]
    total = sum(weights[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        if reached >= top_p:
            break
        kept.append(token)
        reached += weights[token] / total
    probs = np.zeros(len(scores))
    for token in kept:
        probs[token] = weights[token] / sum(weights[kept_token] for kept_token in kept)
    return probs


@settings(deadline=None)
@given(LOGITS, st.integers(0, 70), st.floats(0.01, 1.0))
@example(np.array([0, 2.0**-52, 0], np.float32), 0, 0.25)  # equal once divided by their sum
def test_nucleus_probs_match_plain_loop(logits, top_k, top_p):
    scores = logits.astype(np.float64)
    got, wanted = nucleus_probs(scores, top_k, top_p), plain_nucleus(scores, top_k, top_p)
    # A sum within rounding of top_p may fall on either side: then one token more is kept.
    if np.array_equal(got > 0, wanted > 0):
        np.testing.assert_allclose(got, wanted, rtol=1e-9)
    else:
        nearby = [plain_nucleus(scores, top_k, top_p + step) for step in (-1e-12, 1e-12)]
        assert any(np.allclose(got, other, rtol=1e-9) for other in nearby)


@settings(deadline=None)
@given(LOGITS)
def test_sampler_greedy_takes_first_of_the_highest(logits):
    token = Sampler(SamplingParams(temperature=0.0)).sample(logits, [])
    assert token == int(np.flatnonzero(logits == logits.max())[0])


def test_sampler_frequencies_match_probabilities():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(SamplingParams(temperature=1.0, top_p=0.9, seed=7))
    counts = np.bincount([sampler.sample(logits, []) for _ in range(20000)], minlength=4)
    wanted = np.array([0.5, 0.3, 0.15, 0]) / 0.95
    assert counts[3] == 0
    np.testing.assert_allclose(counts / 20000, wanted, atol=4 * np.sqrt(0.25 / 20000))


def test_sampler_equal_seeds_give_equal_tokens(rng):
    logits = rng.standard_normal((50, 300)).astype(np.float32)
    runs = []
    for seed in (3, 3, 4):
        sampler = Sampler(SamplingParams(temperature=0.9, seed=seed))
        runs.append([sampler.sample(row, []) for row in logits])
    assert runs[0] == runs[1] != runs[2]


def test_sampler_repetition_penalty_acts_on_both_signs():
    logits = np.array([2.0, 1.5, -1.0, -1.5], np.float32)
    sampler = Sampler(SamplingParams(temperature=0.0, repetition_penalty=2.0))
    assert sampler.sample(logits, []) == 0
    assert sampler.sample(logits, [0, 0]) == 1
    assert sampler.sample(np.array([-1.0, -1.5], np.float32), [0]) == 1


def test_sampler_repetition_penalty_refuses_unknown_ids():
    sampler = Sampler(SamplingParams(repetition_penalty=1.1))
    with pytest.raises(ValueError, match=r"previous_ids hold 1\.\.9; the logits have only 4"):
        sampler.sample(np.zeros(4, np.float32), [1, 9])


def test_sampler_tiny_temperature_is_greedy():
    logits = np.array([1.0, 3.0, 2.0], np.float32)
    assert Sampler(SamplingParams(temperature=1e-300, seed=0)).sample(logits, []) == 1


def test_sampler_never_draws_forbidden_tokens():
    logits = np.array([-np.inf, 0.0, -np.inf, 0.0], np.float32)
    sampler = Sampler(SamplingParams(seed=0, repetition_penalty=1.2))
    assert {sampler.sample(logits, [0, 1]) for _ in range(50)} == {1, 3}


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([0, np.nan, np.nan], "2 of 3 logits are NaN or inf \\(the first is token 1\\)"),
        ([0, 1, np.inf], "1 of 3 logits are NaN or inf \\(the first is token 2\\)"),
        ([-np.inf, -np.inf], "all 2 logits are -inf"),
    ],
)
def test_sampler_refuses_broken_logits(temperature, logits, message):
    sampler = Sampler(SamplingParams(temperature=temperature))
    with pytest.raises(FloatingPointError, match=message):
        sampler.sample(np.array(logits, np.float32), [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-30),
        ("repetition_penalty", 100.5),
        ("seed", -1),
    ],
)
def test_sampling_params_refuse_value_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be"):
        SamplingParams(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("temperature", None, "a number"),
        ("temperature", "hot", "a number"),
        ("top_p", True, "a number"),
        ("top_k", 1.5, "an integer"),
        ("seed", "x", "an integer"),
    ],
)
def test_sampling_params_refuse_what_is_no_number(name, value, wanted):
    with pytest.raises(TypeError, match=f"{name} is {value!r}; expected {wanted}"):
        SamplingParams(**{name: value})
    SamplingParams(temperature=np.float32(0.5), top_k=np.int64(3), seed=np.int32(1))
