"""GLM's autoregressive blank infilling: cut spans out of a text and learn to write them back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glm2_reference.checks import BoolArray, FloatArray, check_shape
from glm2_reference.masks import glm_mask

IGNORED = -100  # label of a position that the loss leaves out


@dataclasses.dataclass(frozen=True)
class Span:
    """Tokens ``start`` to ``stop - 1`` of a text."""

    start: int
    stop: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """Token ids of a blank and of the two ends of a span.

    Parameters
    ----------
    blank : int
        [MASK] for short spans, [sMASK] for sentences, [gMASK] for a long one: 64789, 64791, 64790.
    sop, eop : int
        Start and end of a span: 64792, 64793.
    """

    blank: int
    sop: int
    eop: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class InfillingExample:
    """One training example: part A, then the spans of part B.

    Parameters
    ----------
    ids : int32, (n,)
        What the model reads: the corrupted text, then each span behind a ``sop``.
    labels : int32, (n,)
        What it is to predict at each position: `IGNORED` in part A; in part B the span, then ``eop``.
    len_a : int
        Tokens of part A: ``prefix_len`` of attention.
    text_positions, span_positions : int32, (n,)
        GLM's two positions of a token: where it, or the blank that its span fills, stands in part A;
        and 0 in part A, 1, 2, ... inside a span.
    order : tuple of int
        Which span (numbered from left to right) stands at each place of part B.
    """

    ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    len_a: int
    text_positions: npt.NDArray[np.int32]
    span_positions: npt.NDArray[np.int32]
    order: tuple[int, ...]

    @property
    def rotary_positions(self) -> npt.NDArray[np.int32]:
        """ChatGLM2's one position of a token, int32, (n,): its place in the sequence."""
        return np.arange(len(self.ids), dtype=np.int32)

    @property
    def mask(self) -> BoolArray:
        """Who sees whom, (n, n); see `glm2_reference.masks.glm_mask`."""
        return glm_mask(self.len_a, len(self.ids) - self.len_a)


def sample_short_spans(
    rng: np.random.Generator, length: int, *, ratio: float = 0.15, mean_length: float = 3.0
) -> list[Span]:
    """Draw spans whose lengths are Poisson distributed, until ``ratio`` of the text is cut out.

    Parameters
    ----------
    rng : Generator
    length : int
        Tokens of the text.
    ratio : float
        Share of the tokens to cut out, rounded up to at least one.
    mean_length : float
        Of the Poisson distribution; 0 is drawn again.

    Returns
    -------
    spans : list of Span
        From left to right; at least one token stands between two.

    Raises
    ------
    ValueError
        If the text is too short or the ratio too large for separate spans.

    References
    ----------
    Du et al. 2022, GLM, section 2.1: lambda = 3, 15% of the tokens.
    """
    if length < 2 or not 0 < ratio <= 0.5 or mean_length <= 0:
        msg = (
            f"length is {length}, ratio {ratio} and mean_length {mean_length}; expected 2 tokens or "
            "more, a ratio up to 0.5 and a positive mean"
        )
        raise ValueError(msg)
    wanted = max(1, round(ratio * length))
    lengths: list[int] = []
    while sum(lengths) < wanted:
        drawn = int(rng.poisson(mean_length))
        if drawn:
            lengths.append(min(drawn, wanted - sum(lengths)))
    # Deal the tokens that stay to the gaps, one to each gap between two spans first.
    spare = length - wanted - (len(lengths) - 1)
    cuts = np.sort(rng.integers(0, spare + 1, len(lengths)))
    gaps = np.diff(cuts, prepend=0)
    gaps[1:] += 1
    spans, at = [], 0
    for gap, size in zip(gaps.tolist(), rng.permutation(lengths).tolist(), strict=True):
        spans.append(Span(at + gap, at + gap + size))
        at += gap + size
    return spans


def sample_long_span(
    rng: np.random.Generator, length: int, *, least: float = 0.5, most: float = 1.0
) -> list[Span]:
    """Draw one span of a share of the text, uniform in ``least`` to ``most``, anywhere in it.

    Raises
    ------
    ValueError
        If the text is empty or the shares are not in order between 0 and 1.

    References
    ----------
    Du et al. 2022, GLM, section 2.2: document-level spans of 50% to 100%.
    """
    if length < 1 or not 0 < least <= most <= 1:
        msg = f"length is {length}, least {least}, most {most}; expected tokens and 0 < least <= most <= 1"
        raise ValueError(msg)
    size = max(1, int(rng.uniform(least, most) * length))
    start = int(rng.integers(0, length - size + 1))
    return [Span(start, start + size)]


def make_example(
    ids: Sequence[int],
    spans: Sequence[Span],
    special: SpecialIds,
    *,
    rng: np.random.Generator | None = None,
) -> InfillingExample:
    """Cut spans out of a text and lay them behind it.

    Parameters
    ----------
    ids : sequence of int
        The text.
    spans : sequence of Span
        From left to right, not touching: two blanks in a row could be one.
    special : SpecialIds
    rng : Generator, optional
        Shuffles the spans, as pre-training does; they stay in order without it.

    Raises
    ------
    ValueError
        If the spans are none, empty, out of order, touch each other or leave the text.

    References
    ----------
    Du et al. 2022, GLM, section 2.1 and figure 2.
    """
    _check_spans(len(ids), spans)
    order = list(range(len(spans)))
    if rng is not None:
        order = rng.permutation(len(spans)).tolist()
    part_a: list[int] = []
    blanks, at = [], 0
    for span in spans:
        part_a += ids[at : span.start]
        blanks.append(len(part_a))
        part_a.append(special.blank)
        at = span.stop
    part_a += ids[at:]
    tokens, labels = list(part_a), [IGNORED] * len(part_a)
    text_positions, span_positions = list(range(len(part_a))), [0] * len(part_a)
    for number in order:
        content = list(ids[spans[number].start : spans[number].stop])
        tokens += [special.sop, *content]
        labels += [*content, special.eop]
        text_positions += [blanks[number]] * (len(content) + 1)
        span_positions += range(1, len(content) + 2)
    return InfillingExample(
        ids=np.array(tokens, np.int32),
        labels=np.array(labels, np.int32),
        len_a=len(part_a),
        text_positions=np.array(text_positions, np.int32),
        span_positions=np.array(span_positions, np.int32),
        order=tuple(order),
    )


def restore_text(example: InfillingExample, special: SpecialIds) -> list[int]:
    """Put the spans of an example back into their blanks, and return the text."""
    spans: dict[int, list[int]] = {}
    for place, label in zip(
        example.text_positions[example.len_a :].tolist(),
        example.labels[example.len_a :].tolist(),
        strict=True,
    ):
        if label != special.eop:
            spans.setdefault(place, []).append(label)
    text: list[int] = []
    for place, token in enumerate(example.ids[: example.len_a].tolist()):
        text += spans.get(place, [token])
    return text


def infilling_loss(logits: FloatArray, labels: npt.NDArray[np.int32]) -> float:
    """Return the mean cross entropy of part B.

    Parameters
    ----------
    logits : float, (n, vocab_size)
        At each position of what is to be predicted there.
    labels : int32, (n,)
        `IGNORED` positions are left out.

    Raises
    ------
    ValueError
        If no position has a label, or one is no id of the vocabulary.
    """
    check_shape("labels", labels, logits.shape[:1], "one a row of logits")
    counted = np.flatnonzero(labels != IGNORED)
    if counted.size == 0:
        msg = "every label is IGNORED; there is nothing to learn"
        raise ValueError(msg)
    wrong = [int(x) for x in labels[counted] if not 0 <= x < logits.shape[1]]
    if wrong:
        msg = f"label {wrong[0]} is no id of a vocabulary of {logits.shape[1]}, nor IGNORED"
        raise ValueError(msg)
    rows = logits[counted].astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(rows).sum(axis=1))
    return float(np.mean(log_sums - rows[np.arange(counted.size), labels[counted]]))


def _check_spans(length: int, spans: Sequence[Span]) -> None:
    """Refuse spans that no example can be made of."""
    if not spans:
        msg = "there are no spans; cut out at least one"
        raise ValueError(msg)
    at = 0
    for index, span in enumerate(spans):
        first = at if index == 0 else at + 1
        if not first <= span.start < span.stop <= length:
            msg = (
                f"span {index} is {span.start} to {span.stop}; expected it to start at {first} or "
                f"later, to hold a token and to stop at {length} or before"
            )
            raise ValueError(msg)
        at = span.stop
