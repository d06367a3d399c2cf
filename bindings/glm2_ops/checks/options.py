"""Checks of numbers and switches."""

from __future__ import annotations

import operator

import numpy as np

_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


def _shown(value: object) -> str:
    """Spell a value in a message, in few characters."""
    try:
        text = repr(value)
    except ValueError:  # an int longer than Python prints
        return f"an integer of {operator.index(value).bit_length()} bits"  # type: ignore[arg-type]
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_int(name: str, value: int) -> int:
    """Require an integer; numpy's count too, floats and bools do not."""
    try:
        number = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        msg = f"{name} is {_shown(value)}; expected an integer"
        raise TypeError(msg)
    if abs(number) > _MAX_INT64:
        msg = f"{name} is {_shown(number)}; expected an integer of 64 bits at most"
        raise ValueError(msg)
    return number


def check_bool(name: str, value: bool) -> bool:
    """Require True or False."""
    if not isinstance(value, (bool, np.bool_)):
        msg = f"{name} is {_shown(value)}; expected True or False"
        raise TypeError(msg)
    return bool(value)


def check_scale(scale: float) -> float:
    """Require a number that is finite in float32."""
    return _check_number("scale", scale)


def _check_number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        msg = f"{name} is {_shown(value)}; expected a number"
        raise TypeError(msg)
    if not abs(value) <= _MAX_FLOAT32:
        msg = f"{name} is {_shown(value)}; expected a finite float32"
        raise ValueError(msg)
    return float(value)


def check_eps(eps: float) -> float:
    """Require a number that is finite in float32 and not negative."""
    if _check_number("eps", eps) < 0:
        msg = f"eps is {_shown(eps)}; it is added under a square root, so it must not be negative"
        raise ValueError(msg)
    return float(eps)


def check_window(window: int | None) -> int:
    """Require a positive window; None means none and becomes 0, as the kernels spell it."""
    if window is None:
        return 0
    if isinstance(window, bool) or not 1 <= check_int("window", window) <= _MAX_INT32:
        msg = f"window is {_shown(window)}; expected a positive number of keys, or None"
        raise ValueError(msg)
    return int(window)
