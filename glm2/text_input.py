"""What users pass to a tokenizer: texts, batches and pairs of them, token ids in any container."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np


def is_one_text(text: Any, is_split: bool) -> bool:
    """Tell one text from a batch; ``is_split``: a text is a list of words or ids itself."""
    if isinstance(text, str):
        return True
    nested = (list, tuple, np.ndarray)
    return is_split and isinstance(text, nested) and len(text) > 0 and not _is_list(text[0])


def split_batch(text: Any, text_pair: Any, is_split: bool) -> list[tuple[Any, Any]]:
    """Turn what a tokenizer is called with into (text, pair or None), one for each row.

    Parameters
    ----------
    text : str, or list of str or of (str, str)
        With ``is_split`` a text is a list of words or of token ids.
    text_pair : None, or shaped as text
    is_split : bool

    Raises
    ------
    TypeError, ValueError
        If they are something else, or their numbers differ.
    """
    if is_one_text(text, is_split):
        if text_pair is not None and not is_one_text(text_pair, is_split):
            msg = (
                f"text is one text and text_pair a {type(text_pair).__name__}; pass one text for "
                "each, or lists for both"
            )
            raise TypeError(msg)
        return [(text, text_pair)]
    if not _is_list(text):
        msg = f"text is {text!r}; expected str, or a list of str"
        raise TypeError(msg)
    items = list(text)
    if not items:
        msg = "text is an empty list; pass at least one text"
        raise ValueError(msg)
    if text_pair is None:
        rows = [_pair_of(item, is_split) for item in items]
    elif not _is_list(text_pair):
        msg = f"text is a list and text_pair a {type(text_pair).__name__}; pass lists for both"
        raise TypeError(msg)
    elif len(items) != len(text_pair):
        msg = f"there are {len(items)} texts and {len(text_pair)} pairs; pass one for each"
        raise ValueError(msg)
    else:
        rows = list(zip(items, text_pair, strict=True))
    for index, (first, second) in enumerate(rows):
        for part in (first, "" if second is None else second):
            _check_part(part, index, is_split)
    return rows


def plain_ids(ids: Any) -> Any:
    """Turn ids in numpy arrays, MindSpore tensors, tuples or lists into int or lists of them.

    Raises
    ------
    TypeError
        If something in ``ids`` is no integer.
    """
    if hasattr(ids, "asnumpy"):
        ids = ids.asnumpy()
    if isinstance(ids, np.ndarray):
        ids = ids.tolist()
    if isinstance(ids, list | tuple):
        return [plain_ids(item) for item in ids]
    try:
        return operator.index(ids)
    except TypeError:
        msg = f"token ids hold {ids!r:.60}; expected integers in a list, an array or a tensor"
        raise TypeError(msg) from None


def token_ids(ids: Sequence[Any]) -> list[int]:
    """Turn the token ids of one text into a list of int.

    Raises
    ------
    ValueError
        If an id is negative.
    TypeError
        If something in ``ids`` is no integer.
    """
    row = []
    for item in ids:
        value = plain_ids(item)
        if isinstance(value, list):
            msg = f"token ids hold {value!r:.60}; expected integers in a list, an array or a tensor"
            raise TypeError(msg)
        if value < 0:
            msg = f"token id is {value}; ids start at 0"
            raise ValueError(msg)
        row.append(value)
    return row


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple | np.ndarray)


def _pair_of(item: Any, is_split: bool) -> tuple[Any, Any]:
    """Split (text, pair), which a batch may hold."""
    if is_split or not _is_list(item):
        return item, None
    if len(item) == 2 and all(isinstance(part, str) for part in item):
        return item[0], item[1]
    hint = "; pass is_split_into_words=True for ids" if _holds_ids(item) else ""
    msg = f"a text of the batch is {item!r:.60}; expected str or (text, pair){hint}"
    raise TypeError(msg)


def _holds_ids(item: Any) -> bool:
    return len(item) > 0 and isinstance(item[0], int | np.integer)


def _check_part(part: Any, index: int, is_split: bool) -> None:
    """Refuse what is neither text nor, where that is expected, a list."""
    if not isinstance(part, str) and not (is_split and _is_list(part)):
        msg = f"text {index} is {part!r:.60}; expected {'a list' if is_split else 'str'}"
        raise TypeError(msg)
