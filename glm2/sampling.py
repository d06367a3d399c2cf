"""Choose the next token from logits: repetition penalty, temperature, top-k, top-p."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen.

    Parameters
    ----------
    temperature : float
        Divides the logits. 0 chooses the most likely token, always.
    top_k : int
        Only the ``top_k`` most likely tokens may be drawn; 0 means all.
    top_p : float
        Only the smallest set of most likely tokens whose probabilities reach ``top_p`` may be
        drawn; 1 means all.
    repetition_penalty : float
        Logits of tokens that already occurred are divided by it where positive and multiplied by
        it where negative; 1 changes nothing.
    seed : int or None
        Seed of the random generator; None takes one from the operating system.

    Raises
    ------
    ValueError
        If a value lies outside the range that its message names.
    TypeError
        If one is no number.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            whole = field.name in ("top_k", "seed")
            numbers = (int, np.integer) if whole else (int, float, np.integer, np.floating)
            optional = field.name == "seed" and value is None
            if isinstance(value, bool) or not (optional or isinstance(value, numbers)):
                msg = f"{field.name} is {value!r}; expected {'an integer' if whole else 'a number'}"
                raise TypeError(msg)
        ranges = (
            ("temperature", self.temperature >= 0, "at least 0; 0 is greedy"),
            ("top_k", self.top_k >= 0, "at least 0; 0 keeps all tokens"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1; 1 keeps all tokens"),
            (
                "repetition_penalty",
                0.01 <= self.repetition_penalty <= 100,
                "0.01 to 100; 1 changes nothing",
            ),
            ("seed", self.seed is None or self.seed >= 0, "at least 0"),
        )
        for name, in_range, wanted in ranges:
            value = getattr(self, name)
            if not in_range or (value is not None and not math.isfinite(value)):
                msg = f"{name} is {value}; it must be {wanted}"
                raise ValueError(msg)


class Sampler:
    """Draws tokens as `SamplingParams` says; equal seeds and logits give equal tokens."""

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self._rng = np.random.default_rng(params.seed)

    def sample(self, logits: npt.NDArray[np.float32], previous_ids: Sequence[int]) -> int:
        """Choose the next token.

        Parameters
        ----------
        logits : float32, (vocab_size,)
            Scores of every token. -inf forbids a token.
        previous_ids : sequence of int
            Tokens so far, prompt included; only the repetition penalty looks at them.

        Returns
        -------
        token : int

        Raises
        ------
        FloatingPointError
            If a logit is NaN or +inf, or all are -inf.
        """
        check_logits(logits)
        scores = logits.astype(np.float64)
        if self.params.repetition_penalty != 1.0:
            penalise(scores, previous_ids, self.params.repetition_penalty)
        if self.params.temperature == 0.0:
            return int(np.argmax(scores))
        with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to -inf
            scores = (scores - scores.max()) / self.params.temperature
        probs = nucleus_probs(scores, self.params.top_k, self.params.top_p)
        candidates = np.flatnonzero(probs)
        cumulative = np.cumsum(probs[candidates])
        drawn = np.searchsorted(cumulative, self._rng.random() * cumulative[-1], side="right")
        return int(candidates[min(drawn, len(candidates) - 1)])


def nucleus_probs(
    scores: npt.NDArray[np.float64], top_k: int, top_p: float
) -> npt.NDArray[np.float64]:
    """Return the distribution that top-k and then top-p leave over.

    Parameters
    ----------
    scores : float64, (vocab_size,)
        Logits after temperature.
    top_k : int
        Tokens kept; 0 keeps all. Of equal scores, the lower ids are kept.
    top_p : float
        Probability, after top-k, that the kept tokens must reach. At least one token is kept.

    Returns
    -------
    probs : float64, (vocab_size,)
        Sums to 1; zero for tokens that are not kept.
    """
    if 0 < top_k < len(scores):
        smallest_kept = np.partition(scores, -top_k)[-top_k]
        likely = np.flatnonzero(scores >= smallest_kept)
        kept = likely[np.argsort(-scores[likely], kind="stable")[:top_k]]
        probs = np.zeros_like(scores)
        probs[kept] = _softmax(scores[kept])  # of 50 scores, not of 65,000
    else:
        probs = _softmax(scores)
    if top_p < 1.0:
        # Tokens below this bound hold less than 1 - top_p together: the nucleus needs none of them.
        likely = np.flatnonzero(probs >= (1.0 - top_p) / len(probs))
        order = likely[np.argsort(-scores[likely], kind="stable")]  # probs round to ties
        before = np.cumsum(probs[order]) - probs[order]
        probs = _only(probs, order[before < top_p])
    return probs


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Turn scores into probabilities."""
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def _only(probs: npt.NDArray[np.float64], kept: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    """Zero all but the kept entries and normalise."""
    out = np.zeros_like(probs)
    out[kept] = probs[kept] / probs[kept].sum()
    return out


def penalise(scores: npt.NDArray[np.float64], previous_ids: Sequence[int], penalty: float) -> None:
    """Make tokens that already occurred less likely, in place."""
    seen = np.unique(np.asarray(previous_ids, dtype=np.int64))
    if seen.size and not 0 <= seen[0] <= seen[-1] < len(scores):
        msg = f"previous_ids hold {seen[0]}..{seen[-1]}; the logits have only {len(scores)} tokens"
        raise ValueError(msg)
    scores[seen] = np.where(scores[seen] < 0, scores[seen] * penalty, scores[seen] / penalty)


def check_logits(logits: npt.NDArray[np.float32]) -> None:
    """Refuse what no distribution can be made of; the published code would answer token 5."""
    highest = logits.max()  # NaN wins
    if np.isfinite(highest):
        return
    broken = np.flatnonzero(np.isnan(logits) | np.isposinf(logits))
    if broken.size:
        msg = (
            f"{broken.size} of {len(logits)} logits are NaN or inf (the first is token "
            f"{broken[0]}); the weights are damaged or a layer left the float16 range"
        )
    else:
        msg = f"all {len(logits)} logits are -inf; no token may be chosen"
    raise FloatingPointError(msg)
