"""The one accuracy rule: error against a float64 golden, over that of the plain formula."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from glm2_reference.checks import BoolArray, FloatArray

_LIMITS = {
    "L1": {"max": 5.0, "mean": 1.5, "RMSE": 1.5},
    "L2": {"max": 2.0, "mean": 1.2, "RMSE": 1.2},
}
# Stored significand bits: a value is rounded by at most 2 ** -(bits + 1) of itself.
_FRACTION_BITS = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}
# What rounding an exact result to nearest makes of each statistic, in half ulps.
_ROUNDING_ALONE = {"max": 1.0, "mean": 0.35, "RMSE": 0.41}


def assert_accurate(
    got: FloatArray, plain: FloatArray, golden: FloatArray, level: Literal["L1", "L2"]
) -> None:
    """Require that ``got`` is about as near to ``golden`` as ``plain`` is.

    The relative error is ``|x - golden| / max(|golden|, floor)``; floor is 2**-14 of the golden's
    RMS for float32 and 2**-7 of it for float16 and bfloat16. Its max, mean and RMSE over all
    elements, each divided by that of ``plain``, must stay within 5, 1.5, 1.5 (L1) or 2, 1.2, 1.2 (L2).

    A ``plain`` that is exact, or nearly, would allow nothing. So each of its statistics counts as at
    least what rounding an exact result to nearest makes: half an ulp of the dtype of ``got`` for the
    max, 0.35 and 0.41 of that for mean and RMSE. A ``plain`` whose output was rounded is above these
    already, unless its values happen to be representable. The rule is statistical: give it some
    hundred elements.

    Where the golden is infinite (the lse of a row that sees nothing), ``got`` must equal it.

    Parameters
    ----------
    got : float
        Of the implementation under test.
    plain : float, same shape
        Of the formula with the same rounding points, such as
        ``attention(..., round_dtype=cache.dtype)``.
    golden : float64, same shape
        Of the formula on the exactly upcast inputs.
    level : "L1" or "L2"

    Raises
    ------
    AssertionError
        If a ratio is over its limit, shapes differ, or a value is not finite where the golden is.
    TypeError
        If ``golden`` is not float64.
    """
    if golden.dtype != np.float64:
        msg = f"golden is {golden.dtype}; compute it in float64 from upcast inputs"
        raise TypeError(msg)
    if not got.shape == plain.shape == golden.shape:
        msg = f"got has shape {got.shape}, plain {plain.shape}, golden {golden.shape}"
        raise AssertionError(msg)
    finite = np.isfinite(golden)
    got64, plain64 = got.astype(np.float64), plain.astype(np.float64)
    for name, x in {"got": got64, "plain": plain64}.items():
        bad = np.where(finite, ~np.isfinite(x), x != golden)
        if np.any(bad):
            at = _first(bad)
            msg = f"{name} is {x[at]} at {at}, where golden is {golden[at]}"
            raise AssertionError(msg)
    if not np.any(finite):
        return
    divisor = _relative_to(golden[finite], got.dtype)
    half_ulp = 2.0 ** -(_FRACTION_BITS[got.dtype.name] + 1)
    errors = np.abs(got64[finite] - golden[finite]) / divisor
    plain_errors = np.abs(plain64[finite] - golden[finite]) / divisor
    worst = tuple(int(axis[np.argmax(errors)]) for axis in np.nonzero(finite))
    parts = []
    failed = False
    for name, limit in _LIMITS[level].items():
        least = half_ulp * _ROUNDING_ALONE[name]
        ours, theirs = _statistic(name, errors), max(_statistic(name, plain_errors), least)
        failed |= ours > limit * theirs
        parts.append(f"{name} {ours:.3g} / {theirs:.3g} = {ours / theirs:.2f} (limit {limit})")
    if failed:
        msg = (
            f"got is less accurate than {level} allows: {', '.join(parts)}; "
            f"worst at {worst}: got {got64[worst]}, golden {golden[worst]}"
        )
        raise AssertionError(msg)


def _first(where: BoolArray) -> tuple[int, ...]:
    return tuple(int(axis[0]) for axis in np.nonzero(where))


def _relative_to(golden: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    rms = np.sqrt(np.mean(golden**2))
    floor = rms * (2.0**-7 if dtype.itemsize == 2 else 2.0**-14)
    smallest_normal = 2.0**-14 if dtype.name == "float16" else 2.0**-126
    return np.maximum(np.abs(golden), floor if rms > 0 else smallest_normal)


def _statistic(name: str, errors: FloatArray) -> float:
    if name == "RMSE":
        return float(np.sqrt(np.mean(errors**2)))
    return float(np.max(errors) if name == "max" else np.mean(errors))
