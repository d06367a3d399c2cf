"""Blank infilling: spans, examples, positions, masks and the loss."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm2_reference import GLM2Model
from glm2_reference.infilling import (
    IGNORED,
    Span,
    SpecialIds,
    infilling_loss,
    make_example,
    restore_text,
    sample_long_span,
    sample_short_spans,
)
from glm2_reference.testing import random_weights

SPECIAL = SpecialIds(blank=90, sop=91, eop=92)


def test_example_of_the_paper():
    """x1 [x2] x3 x4 [x5 x6], spans swapped: GLM's figure 2."""
    rng = np.random.default_rng(
        next(s for s in range(9) if np.random.default_rng(s).permutation(2)[0])
    )
    example = make_example([1, 2, 3, 4, 5, 6], [Span(1, 2), Span(4, 6)], SPECIAL, rng=rng)
    no = IGNORED
    assert example.ids.tolist() == [1, 90, 3, 4, 90, 91, 5, 6, 91, 2]
    assert example.labels.tolist() == [no, no, no, no, no, 5, 6, 92, 2, 92]
    assert example.text_positions.tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 1, 1]
    assert example.span_positions.tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 1, 2]
    assert example.rotary_positions.tolist() == list(range(10))
    assert (example.len_a, example.order) == (5, (1, 0))
    assert example.mask[:5, :5].all()
    assert not example.mask[:5, 5:].any()
    assert example.mask[9].all()


@given(seed=st.integers(0, 10**6), length=st.integers(2, 200), ratio=st.floats(0.01, 0.5))
def test_short_spans_cut_out_their_share_and_never_touch(seed, length, ratio):
    spans = sample_short_spans(np.random.default_rng(seed), length, ratio=ratio)
    assert sum(span.stop - span.start for span in spans) == max(1, round(ratio * length))
    for before, after in itertools.pairwise(spans):
        assert before.stop < after.start
    assert spans[0].start >= 0
    assert spans[-1].stop <= length


def test_short_spans_have_the_poisson_mean_and_reach_everywhere():
    rng = np.random.default_rng(0)
    covered = np.zeros(1000)
    lengths = []
    for _ in range(300):
        spans = sample_short_spans(rng, 1000)
        lengths += [span.stop - span.start for span in spans]
        for span in spans:
            covered[span.start : span.stop] += 1
    assert np.mean(lengths) == pytest.approx(3 / (1 - np.exp(-3)), rel=0.05)  # 0 is drawn again
    assert covered.min() > 0
    assert covered[:100].mean() == pytest.approx(covered[450:550].mean(), rel=0.15)


@given(seed=st.integers(0, 10**6), length=st.integers(1, 100))
def test_long_span_is_half_of_the_text_or_more(seed, length):
    (span,) = sample_long_span(np.random.default_rng(seed), length)
    assert max(1, int(0.5 * length)) <= span.stop - span.start <= length
    assert 0 <= span.start < span.stop <= length


@given(seed=st.integers(0, 10**6), length=st.integers(2, 60), shuffled=st.booleans())
def test_an_example_restores_its_text(seed, length, shuffled):
    rng = np.random.default_rng(seed)
    text = rng.integers(0, 80, length).tolist()
    spans = sample_short_spans(rng, length, ratio=0.3)
    example = make_example(text, spans, SPECIAL, rng=rng if shuffled else None)
    assert restore_text(example, SPECIAL) == text
    assert example.len_a == length - sum(s.stop - s.start for s in spans) + len(spans)
    assert (example.labels != IGNORED).sum() == sum(s.stop - s.start + 1 for s in spans)
    assert shuffled or example.order == tuple(range(len(spans)))
    # What is predicted at a position is what is read at the next one of the same span.
    for i in range(example.len_a, len(example.ids) - 1):
        if example.labels[i] != SPECIAL.eop:
            assert example.ids[i + 1] == example.labels[i]


def test_loss_counts_part_b_alone():
    rng = np.random.default_rng(3)
    example = make_example(list(range(10)), [Span(2, 4)], SPECIAL)
    logits = rng.standard_normal((len(example.ids), 100))
    wanted = []
    for row, label in zip(logits, example.labels, strict=True):
        if label != IGNORED:
            probs = np.exp(row) / np.exp(row).sum()
            wanted.append(-np.log(probs[label]))
    assert len(wanted) == 3
    assert infilling_loss(logits, example.labels) == pytest.approx(np.mean(wanted))
    logits[: example.len_a] = 1e3 * rng.standard_normal((example.len_a, 100))
    assert infilling_loss(logits, example.labels) == pytest.approx(np.mean(wanted))


def test_the_model_reads_part_a_both_ways(tiny_config):
    """A change late in part A reaches the first logits; one in part B reaches only what follows."""
    model = GLM2Model(tiny_config, random_weights(tiny_config, np.random.default_rng(0)))
    special = SpecialIds(blank=40, sop=41, eop=42)
    example = make_example(list(range(12)), [Span(3, 6)], special)
    before = model.forward(example.ids, prefix_len=example.len_a)
    changed = example.ids.copy()
    changed[example.len_a - 1] = 30
    late_in_a = np.abs(model.forward(changed, prefix_len=example.len_a) - before).max(axis=1)
    assert (late_in_a > 1e-6).all()
    changed = example.ids.copy()
    changed[-1] = 30
    in_b = np.abs(model.forward(changed, prefix_len=example.len_a) - before).max(axis=1)
    assert (in_b[:-1] == 0).all()
    assert in_b[-1] > 1e-6


WRONG = {
    "no spans": (lambda: make_example([1, 2], [], SPECIAL), "there are no spans"),
    "empty span": (
        lambda: make_example([1, 2], [Span(1, 1)], SPECIAL),
        "span 0 is 1 to 1; expected",
    ),
    "outside": (lambda: make_example([1, 2], [Span(1, 3)], SPECIAL), "stop at 2 or before"),
    "touching": (
        lambda: make_example([1, 2, 3], [Span(0, 1), Span(1, 2)], SPECIAL),
        "span 1 is 1 to 2; expected it to start at 2",
    ),
    "nothing to learn": (
        lambda: infilling_loss(np.zeros((2, 3)), np.array([IGNORED] * 2)),
        "every label is IGNORED",
    ),
    "short text": (lambda: sample_short_spans(np.random.default_rng(0), 1), "length is 1"),
    "ratio": (lambda: sample_short_spans(np.random.default_rng(0), 9, ratio=0.6), r"ratio 0\.6"),
    "shares": (
        lambda: sample_long_span(np.random.default_rng(0), 9, least=0.9, most=0.5),
        r"least 0\.9",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_labels_must_be_ids_of_the_vocabulary():
    logits = np.zeros((3, 5))
    for wrong in (-3, 5):
        with pytest.raises(ValueError, match=f"label {wrong} is no id of a vocabulary of 5"):
            infilling_loss(logits, np.array([IGNORED, 2, wrong]))
    with pytest.raises(ValueError, match="labels has shape"):
        infilling_loss(logits, np.array([1, 2]))
