"""Beam search, deterministic or sampled, over one prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2.batch import BatchModel, Generated, prefill_batch
from glm2.generate import PREFILL_CHUNK, FinishReason, check_lengths
from glm2.sampling import SamplingParams, check_logits, nucleus_probs, penalise

_MAX_PENALTY = 10
_LEAST_TEMPERATURE = 1e-3  # below it, sums of log probabilities leave what float64 can tell apart
Scores = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamParams:
    """How a beam search ranks and ends.

    Parameters
    ----------
    num_beams : int
        Hypotheses that go on side by side.
    length_penalty : float
        A finished hypothesis scores its log probability over ``new_tokens ** length_penalty``:
        above 0 favours long answers.
    early_stopping : bool
        End once ``num_beams`` hypotheses have finished; else once none that goes on can beat them.

    Raises
    ------
    ValueError
        If ``num_beams`` is not positive, or ``length_penalty`` outside -10 to 10.
    TypeError
        If ``num_beams`` is no integer.
    """

    num_beams: int
    length_penalty: float = 1.0
    early_stopping: bool = False

    def __post_init__(self) -> None:
        beams: Any = self.num_beams
        if isinstance(beams, bool) or not isinstance(beams, int | np.integer):
            msg = f"num_beams is {beams!r}; expected an integer"
            raise TypeError(msg)
        if self.num_beams < 1:
            msg = f"num_beams is {self.num_beams}; it must be at least 1"
            raise ValueError(msg)
        if not -_MAX_PENALTY <= self.length_penalty <= _MAX_PENALTY:
            msg = f"length_penalty is {self.length_penalty}; expected -{_MAX_PENALTY} to {_MAX_PENALTY}"
            raise ValueError(msg)


def beam_search(
    model: BatchModel[Any],
    prompt: Sequence[int],
    beams: BeamParams,
    sampling: SamplingParams,
    *,
    stop_ids: Collection[int],
    max_new_tokens: int,
    max_length: int | None = None,
    prefix_len: int = 0,
    chunk_tokens: int = PREFILL_CHUNK,
) -> Generated:
    """Continue ``prompt`` by the hypothesis that scores best.

    Parameters
    ----------
    model : BatchModel
        Its cache can `reorder`, as `glm2.kv_cache.KVCache` does.
    prompt : sequence of int
    beams : BeamParams
    sampling : SamplingParams
        The repetition penalty acts on log probabilities. Temperature 0 takes the best candidates;
        above 0, candidates are drawn, after temperature, top-k and top-p.
    stop_ids, max_new_tokens, max_length, prefix_len, chunk_tokens
        As `glm2.batch.generate_batch` takes them.

    Raises
    ------
    ContextLengthError, ValueError, MemoryError
        As `glm2.batch.generate_batch` does.

    References
    ----------
    ``transformers`` 4.40 ``GenerationMixin._beam_search`` and ``BeamSearchScorer``, whose results on
    the published modeling code are recorded in ``tests/golden``.
    """
    seq_length = model.config.seq_length
    limit = seq_length if max_length is None else max_length
    check_lengths(0, len(prompt), limit, seq_length, max_new_tokens)
    if chunk_tokens < 1:
        msg = f"chunk_tokens is {chunk_tokens}; it must be at least 1"
        raise ValueError(msg)
    if 0 < sampling.temperature < _LEAST_TEMPERATURE:
        msg = (
            f"temperature is {sampling.temperature}; sampled beams need {_LEAST_TEMPERATURE} or more, "
            "and 0 is deterministic"
        )
        raise ValueError(msg)
    num_beams = beams.num_beams
    most = min(max_new_tokens, limit - len(prompt))
    cache = model.new_cache(len(prompt) + most, num_seqs=num_beams)
    others: list[Sequence[int]] = [()] * (num_beams - 1)  # the beams get the prompt by reordering
    prefixes = [prefix_len, *[0] * (num_beams - 1)]
    last = prefill_batch(model, [prompt, *others], cache, prefixes, chunk_tokens)
    cache.reorder([0] * num_beams)
    logits = np.repeat(last, num_beams, axis=0)
    rng = np.random.default_rng(sampling.seed)
    texts: list[list[int]] = [[] for _ in range(num_beams)]
    sums = np.full(num_beams, -1e9)
    sums[0] = 0.0  # all beams are the same at first: only one may spread
    finished: list[tuple[float, list[int], int]] = []
    for count in range(1, most + 1):
        scores = _log_probs(logits, prompt, texts, sampling) + sums[:, None]
        parents, tokens, totals = [], [], []
        num_candidates = (
            max(2, 1 + len(stop_ids)) * num_beams
        )  # enough if all stop tokens are among them
        candidates = _candidates(scores, num_candidates, sampling, rng)
        for rank, flat in enumerate(candidates):
            parent, token = divmod(int(flat), scores.shape[1])
            if token in stop_ids:
                if rank < num_beams:
                    score = scores.flat[flat] / count**beams.length_penalty
                    finished.append((float(score), texts[parent], token))
            else:
                parents.append(parent)
                tokens.append(token)
                totals.append(scores.flat[flat])
            if len(tokens) == num_beams:
                break
        finished = sorted(finished, key=lambda item: -item[0])[:num_beams]
        best_open = float(scores.flat[candidates[0]]) / count**beams.length_penalty
        if len(finished) == num_beams and (beams.early_stopping or finished[-1][0] >= best_open):
            return Generated(finished[0][1], "stop", finished[0][2])
        if not tokens:
            return Generated(finished[0][1], "stop", finished[0][2])
        for _ in range(num_beams - len(tokens)):  # sampling left fewer: a beam that cannot win
            parents.append(parents[0])
            tokens.append(tokens[0])
            totals.append(-1e9)
        texts = [[*texts[parent], token] for parent, token in zip(parents, tokens, strict=True)]
        sums = np.array(totals)
        if count < most:
            cache.reorder(parents)
            every = np.arange(num_beams + 1, dtype=np.int32)
            logits = model.forward_ragged(np.array(tokens, np.int32), every, cache)
    reason: FinishReason = "max_new_tokens" if most == max_new_tokens else "max_length"
    best = int(np.argmax(sums))
    score = float(sums[best]) / most**beams.length_penalty
    if finished and finished[0][0] >= score:
        return Generated(finished[0][1], "stop", finished[0][2])
    return Generated(texts[best], reason)


def _log_probs(
    logits: npt.NDArray[np.float32],
    prompt: Sequence[int],
    texts: Sequence[Sequence[int]],
    sampling: SamplingParams,
) -> Scores:
    """Return log probabilities (num_beams, vocab_size) after penalty and, if sampled, warping."""
    rows = []
    for row, text in zip(logits, texts, strict=True):
        check_logits(row)
        shifted = row.astype(np.float64) - row.max()
        scores = shifted - np.log(np.exp(shifted).sum())
        if sampling.repetition_penalty != 1.0:
            penalise(scores, [*prompt, *text], sampling.repetition_penalty)
        if sampling.temperature > 0:
            scores /= sampling.temperature
            scores[nucleus_probs(scores, sampling.top_k, sampling.top_p) == 0] = -np.inf
        rows.append(scores)
    return np.stack(rows)


def _candidates(
    scores: Scores, count: int, sampling: SamplingParams, rng: np.random.Generator
) -> npt.NDArray[np.intp]:
    """Return flat indices of up to ``count`` continuations, the best first."""
    flat = scores.reshape(-1)
    if sampling.temperature == 0:
        chosen = np.argpartition(-flat, min(count, flat.size) - 1)[:count]
    else:
        # Drawing without replacement is taking the best after adding Gumbel noise.
        noisy = flat + rng.gumbel(size=flat.size)
        chosen = np.argpartition(-noisy, min(count, flat.size) - 1)[:count]
    chosen = chosen[np.isfinite(flat[chosen])]
    return chosen[np.lexsort((chosen, -flat[chosen]))]
