"""Rows of token ids cut to a length, padded to a rectangle, and turned into arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

PaddingSide = Literal["left", "right"]
Padding = Literal["longest", "max_length", "do_not_pad"]
Truncation = Literal["longest_first", "only_first", "only_second", "do_not_truncate"]


class BatchEncoding(dict[str, Any]):
    """``input_ids``, ``attention_mask`` and ``position_ids``, also as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            msg = f"the encoding has no {name}; it has {', '.join(self)}"
            raise AttributeError(msg) from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How rows are cut, padded and returned, as Hugging Face's tokenizers name it.

    Parameters
    ----------
    padding : bool, "longest", "max_length" or "do_not_pad"
        True is "longest": to the longest row. "max_length" needs ``max_length``, and leaves longer
        rows as they are.
    truncation : None, bool, "longest_first", "only_first", "only_second" or "do_not_truncate"
        True is "longest_first". None cuts if ``max_length`` is given and ``padding`` is not.
    max_length : int, optional
        Most tokens of a row, special tokens included.
    padding_side : "left" or "right"
    pad_to_multiple_of : int, optional
        Rounds the padded length up.
    return_tensors : None, "np" or "ms"
        Lists, int32 numpy arrays or int32 MindSpore tensors.

    Raises
    ------
    ValueError
        If an option is unknown, or one needs another.
    """

    padding: bool | str = False
    truncation: bool | str | None = None
    max_length: int | None = None
    padding_side: str = "left"
    pad_to_multiple_of: int | None = None
    return_tensors: str | None = None

    def __post_init__(self) -> None:
        check_padding_side(self.padding_side)
        for name in ("max_length", "pad_to_multiple_of"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                msg = f"{name} is {value!r}; expected an integer from 1 on"
                raise ValueError(msg)
        _check_choice("padding", self.padding, (True, False, *get_args(Padding)))
        _check_choice("truncation", self.truncation, (None, True, False, *get_args(Truncation)))
        _check_choice("return_tensors", self.return_tensors, (None, "np", "ms"))
        cuts, pads = self.cut != "do_not_truncate", self.pad != "do_not_pad"
        if self.max_length is None:
            if cuts or self.pad == "max_length":
                needs = f"truncation={self.truncation!r}" if cuts else "padding='max_length'"
                msg = f"{needs} needs max_length, and it is None; pass max_length"
                raise ValueError(msg)
        elif cuts and pads and self.max_length % (self.pad_to_multiple_of or 1):
            msg = (
                f"max_length is {self.max_length}, and pad_to_multiple_of {self.pad_to_multiple_of} "
                "would pad past it; pass a multiple"
            )
            raise ValueError(msg)

    @property
    def pad(self) -> str:
        """One of `Padding`."""
        if isinstance(self.padding, str):
            return self.padding
        return "longest" if self.padding else "do_not_pad"

    @property
    def cut(self) -> str:
        """One of `Truncation`."""
        if isinstance(self.truncation, str):
            return self.truncation
        implied = self.max_length is not None and self.padding is False
        wanted = implied if self.truncation is None else self.truncation
        return "longest_first" if wanted else "do_not_truncate"


def truncate(
    ids: list[int], pair: list[int] | None, num_specials: int, options: BatchOptions
) -> tuple[list[int], list[int] | None]:
    """Cut a text and its pair from the right, so that with special tokens they fit.

    Parameters
    ----------
    ids : list of int
    pair : list of int or None
    num_specials : int
        Tokens of the row that are never cut.
    options : BatchOptions
        "longest_first" takes from the longer one a token at a time, from the pair where both are
        as long; "only_first" and "only_second" from that one alone.

    Raises
    ------
    ValueError
        If that cannot make them fit.
    """
    if options.max_length is None or options.cut == "do_not_truncate":
        return ids, pair
    if num_specials > options.max_length:
        msg = (
            f"max_length is {options.max_length}, and special tokens alone are {num_specials}; "
            "raise max_length"
        )
        raise ValueError(msg)
    first, second = len(ids), len(pair or [])
    excess = max(0, first + second + num_specials - options.max_length)
    cut_first, cut_second = excess, 0
    if options.cut == "only_second":
        cut_first, cut_second = 0, excess
    elif options.cut == "longest_first" and pair is not None:
        of_longer = min(abs(first - second), excess)
        cut_first = (excess - of_longer) // 2 + (of_longer if first > second else 0)
        cut_second = excess - cut_first
    if cut_first > first or cut_second > second:
        msg = (
            f"max_length is {options.max_length}, so that {excess} tokens must go, and "
            f"{options.cut!r} has {second if options.cut == 'only_second' else first} to take from; "
            "raise max_length or pass truncation='longest_first'"
        )
        raise ValueError(msg)
    return ids[: first - cut_first], None if pair is None else pair[: second - cut_second]


def pad_rows(rows: Sequence[Sequence[int]], options: BatchOptions, *, pad_id: int) -> BatchEncoding:
    """Pad rows as the published tokenizers do: ``pad_id``, mask 0 and position 0.

    Returns
    -------
    encoding : BatchEncoding
        Of lists of lists.
    """
    width = 0
    if options.pad != "do_not_pad":
        longest = options.max_length if options.pad == "max_length" else max(map(len, rows))
        step = options.pad_to_multiple_of or 1
        width = -(-(longest or 0) // step) * step
    encoding = BatchEncoding(input_ids=[], attention_mask=[], position_ids=[])
    for row in rows:
        whole = ((list(row), pad_id), ([1] * len(row), 0), (list(range(len(row))), 0))
        for name, (values, filler) in zip(encoding, whole, strict=True):
            fill = [filler] * (width - len(row))
            left = options.padding_side == "left"
            encoding[name].append([*fill, *values] if left else [*values, *fill])
    return encoding


def as_tensors(encoding: BatchEncoding, options: BatchOptions) -> BatchEncoding:
    """Turn lists of lists into what ``options.return_tensors`` says.

    Raises
    ------
    ValueError
        If the rows differ in length.
    """
    if options.return_tensors is None:
        return encoding
    lengths = sorted({len(row) for row in encoding["input_ids"]})
    if len(lengths) > 1:
        wanted = "truncation=True" if options.pad == "max_length" else "padding=True"
        msg = f"the rows have {lengths[0]} to {lengths[-1]} tokens, no rectangle; pass {wanted}"
        raise ValueError(msg)
    arrays = {name: np.array(rows, np.int32) for name, rows in encoding.items()}
    if options.return_tensors == "np":
        return BatchEncoding(arrays)
    import mindspore

    return BatchEncoding({name: mindspore.Tensor(array) for name, array in arrays.items()})


def check_padding_side(side: str) -> None:
    """Refuse anything but left and right."""
    _check_choice("padding_side", side, get_args(PaddingSide))


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Refuse a value that is not among ``choices``."""
    if not any(value is choice or (value == choice and value not in (0, 1)) for choice in choices):
        msg = f"{name} is {value!r}; expected one of {', '.join(map(repr, choices))}"
        raise ValueError(msg)
