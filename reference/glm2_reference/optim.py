"""AdamW, on dicts of arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from glm2_reference.checks import FloatArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamWParams:
    """Constants of the optimiser.

    Parameters
    ----------
    learning_rate : float
    beta1, beta2 : float
        How much of the running means of gradient and squared gradient stays each step.
    eps : float
        Added to the root of the squared mean.
    weight_decay : float
        Share of a matrix that is taken away each step, times the learning rate. Vectors (norms and
        biases) do not decay.

    Raises
    ------
    ValueError
        If a constant is out of its range.
    """

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        ranges = {
            "learning_rate": self.learning_rate > 0,
            "beta1": 0 <= self.beta1 < 1,
            "beta2": 0 <= self.beta2 < 1,
            "eps": self.eps > 0,
            "weight_decay": self.weight_decay >= 0,
        }
        for name, in_range in ranges.items():
            if not in_range:
                msg = f"{name} is {getattr(self, name)}, which is out of its range"
                raise ValueError(msg)


class AdamW:
    """The optimiser with its running means.

    Parameters
    ----------
    weights : mapping of str to array
        Updated in place by `step`.
    params : AdamWParams

    References
    ----------
    Loshchilov and Hutter 2019, algorithm 2.
    """

    def __init__(self, weights: Mapping[str, FloatArray], params: AdamWParams) -> None:
        self._weights = weights
        self._params = params
        self._means = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self._squares = {name: np.zeros_like(weight) for name, weight in weights.items()}
        self.num_steps = 0

    def step(self, grads: Mapping[str, FloatArray], *, learning_rate: float | None = None) -> None:
        """Move every weight against its gradient.

        Parameters
        ----------
        grads : mapping of str to array
            One for each weight, of its shape.
        learning_rate : float, optional
            Of this step; the constant one unless given.

        Raises
        ------
        ValueError
            If the gradients are not those of the weights.
        """
        if set(grads) != set(self._weights):
            odd = sorted(set(grads) ^ set(self._weights))
            msg = f"gradients and weights differ in {', '.join(odd[:5])}; pass one for each weight"
            raise ValueError(msg)
        p = self._params
        rate = p.learning_rate if learning_rate is None else learning_rate
        self.num_steps += 1
        for name, weight in self._weights.items():
            grad, mean, square = grads[name], self._means[name], self._squares[name]
            mean += (1 - p.beta1) * (grad - mean)
            square += (1 - p.beta2) * (grad * grad - square)
            unbiased = mean / (1 - p.beta1**self.num_steps)
            root = np.sqrt(square / (1 - p.beta2**self.num_steps))
            decay = p.weight_decay if weight.ndim > 1 else 0.0
            np.subtract(weight, rate * (unbiased / (root + p.eps) + decay * weight), out=weight)
