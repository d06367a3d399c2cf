"""Token ids as users pass them: lists, arrays, tensors, padded or not."""

from __future__ import annotations

from typing import Any

import numpy as np

PAD_ID = 0  # pad_token_id of both families


def id_rows(
    input_ids: Any, attention_mask: Any = None, *, padded: bool = True
) -> tuple[list[list[int]], bool]:
    """Bring token ids of any form into lists.

    Parameters
    ----------
    input_ids : integers, (T,) or (B, T), or a list of lists of any lengths
        A list, numpy array or MindSpore tensor.
    attention_mask : integers, shaped as input_ids, or None
        Tokens whose mask is 0 are left out. None leaves out id 0 at either end of a row of a batch.
    padded : bool
        False keeps every id where there is no mask.

    Returns
    -------
    rows : list of lists of int
        One a text, without padding.
    nested : bool
        Whether ``input_ids`` were a batch.

    Raises
    ------
    ValueError, TypeError
        If the mask is shaped otherwise, or something is no token id.
    """
    rows, nested = _lists("input_ids", input_ids)
    if attention_mask is not None:
        masks, _ = _lists("attention_mask", attention_mask)
        if [len(mask) for mask in masks] != [len(row) for row in rows]:
            msg = "attention_mask is not shaped as input_ids; pass the mask that came with them"
            raise ValueError(msg)
        return [
            [token for token, keep in zip(row, mask, strict=True) if keep]
            for row, mask in zip(rows, masks, strict=True)
        ], nested
    return ([_unpadded(row) for row in rows] if nested and padded else rows), nested


def _lists(name: str, value: Any) -> tuple[list[list[int]], bool]:
    """Turn a list, array or tensor of ids into lists of int."""
    value = value.asnumpy() if hasattr(value, "asnumpy") else value
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(value, list | tuple):
        msg = f"{name} is {value!r}; expected token ids, (T,) or (B, T)"
        raise TypeError(msg)
    nested = bool(value) and isinstance(value[0], list | tuple | np.ndarray)
    rows = [
        row.tolist() if isinstance(row, np.ndarray) else row
        for row in (value if nested else [value])
    ]
    for row in rows:
        if not isinstance(row, list | tuple):
            msg = f"{name} holds {row!r} beside rows; expected token ids, (T,) or (B, T)"
            raise TypeError(msg)
        for token in row:
            is_mask = isinstance(token, bool) and name == "attention_mask"
            if not isinstance(token, int | np.integer) or (isinstance(token, bool) and not is_mask):
                msg = f"{name} holds {token!r}; expected token ids, (T,) or (B, T)"
                raise TypeError(msg)
            if not -(2**31) <= token < 2**31:
                msg = (
                    f"{name} holds {token}, which no vocabulary has; token ids are 32-bit integers"
                )
                raise ValueError(msg)
    return [[int(token) for token in row] for row in rows], nested


def _unpadded(row: list[int]) -> list[int]:
    """Take padding off either end; no text holds its id, for bytes stand for unknown characters."""
    kept = [index for index, token in enumerate(row) if token != PAD_ID]
    return row[kept[0] : kept[-1] + 1] if kept else []


def check_prefix_len(prefix_len: Any, seq_length: int) -> None:
    """Raise TypeError or ValueError if a bidirectional prefix has no length that a text can have."""
    if not isinstance(prefix_len, int | np.integer) or isinstance(prefix_len, bool):
        msg = f"prefix_len is {prefix_len!r}; expected an integer"
        raise TypeError(msg)
    if not 0 <= prefix_len <= seq_length:
        msg = f"prefix_len is {prefix_len}; the model's seq_length allows 0 to {seq_length}"
        raise ValueError(msg)
