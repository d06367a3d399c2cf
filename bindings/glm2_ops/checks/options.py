"""Checks of numbers and switches."""

from __future__ import annotations

import operator

import numpy as np

_MAX_INT32 = 2**31 - 1
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def check_int(name: str, value: int) -> int:
    """Require an integer; numpy's count too, floats do not."""
    try:
        return operator.index(value)
    except TypeError:
        msg = f"{name} is {value!r}; expected an integer"
        raise TypeError(msg) from None


def check_bool(name: str, value: bool) -> bool:
    """Require True or False."""
    if not isinstance(value, (bool, np.bool_)):
        msg = f"{name} is {value!r}; expected True or False"
        raise TypeError(msg)
    return bool(value)


def check_scale(scale: float) -> float:
    """Require a number that is finite in float32."""
    return _check_number("scale", scale)


def _check_number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        msg = f"{name} is {value!r}; expected a number"
        raise TypeError(msg)
    if not abs(value) <= _MAX_FLOAT32:
        msg = f"{name} is {value}; expected a finite float32"
        raise ValueError(msg)
    return float(value)


def check_eps(eps: float) -> float:
    """Require a number that is finite in float32 and not negative."""
    if _check_number("eps", eps) < 0:
        msg = f"eps is {eps}; it is added under a square root, so it must not be negative"
        raise ValueError(msg)
    return float(eps)


def check_window(window: int | None) -> int:
    """Require a positive window; None means none and becomes 0, as the kernels spell it."""
    if window is None:
        return 0
    if isinstance(window, bool) or not 1 <= check_int("window", window) <= _MAX_INT32:
        msg = f"window is {window}; expected a positive number of keys, or None"
        raise ValueError(msg)
    return int(window)
