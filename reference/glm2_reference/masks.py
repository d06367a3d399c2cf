"""Who sees whom: the masks of the four pre-training frameworks, side by side.

Each is a matrix of bool, (queries, keys): True where the query's row sees the key's column.
"""

from __future__ import annotations

import dataclasses
import operator

import numpy as np

from glm2_reference.attention import visible_keys
from glm2_reference.checks import BoolArray


def causal_mask(length: int) -> BoolArray:
    """Return (length, length): each token sees itself and what came before. GPT.

    Raises
    ------
    ValueError
        If ``length`` is negative.
    """
    return glm_mask(0, length)


def bidirectional_mask(length: int) -> BoolArray:
    """Return (length, length): each token sees every token. BERT.

    Raises
    ------
    ValueError
        If ``length`` is negative.
    """
    return glm_mask(length, 0)


@dataclasses.dataclass(frozen=True)
class EncoderDecoderMasks:
    """The three masks of an encoder-decoder. T5.

    Parameters
    ----------
    encoder : bool, (source, source)
        All True.
    decoder : bool, (target, target)
        Causal.
    cross : bool, (target, source)
        All True: the decoder sees the whole source, the encoder nothing of the target.
    """

    encoder: BoolArray
    decoder: BoolArray
    cross: BoolArray

    def joined(self) -> BoolArray:
        """Return (source + target, source + target), as if both were one text.

        It equals `glm_mask`: GLM gets with one network what takes an encoder and a decoder.
        """
        unseen = np.zeros((len(self.encoder), len(self.decoder)), np.bool_)
        return np.block([[self.encoder, unseen], [self.cross, self.decoder]])


def encoder_decoder_masks(source: int, target: int) -> EncoderDecoderMasks:
    """Return the masks of a source and a target of so many tokens.

    Raises
    ------
    ValueError
        If a length is negative.
    """
    _check_lengths(source=source, target=target)
    return EncoderDecoderMasks(
        encoder=bidirectional_mask(source),
        decoder=causal_mask(target),
        cross=np.ones((target, source), np.bool_),
    )


def glm_mask(len_a: int, len_b: int) -> BoolArray:
    """Return the mask of autoregressive blank infilling.

    Part A, the corrupted text, sees itself both ways and nothing of part B. Part B, the spans one
    after another, sees part A and what came before in part B.

    Parameters
    ----------
    len_a, len_b : int
        Tokens of each part. Without part A it is causal, without part B bidirectional.

    Returns
    -------
    mask : bool, (len_a + len_b, len_a + len_b)

    Raises
    ------
    ValueError
        If a length is negative.

    References
    ----------
    Du et al. 2022, GLM, figure 2d.
    """
    _check_lengths(len_a=len_a, len_b=len_b)
    positions = np.arange(len_a + len_b)
    return visible_keys(positions, positions, causal=True, prefix_len=len_a, window=None)


def draw_mask(mask: BoolArray, labels: str | None = None) -> str:
    """Draw a mask with a character a cell: a row is a query, a column a key.

    Parameters
    ----------
    mask : bool, (queries, keys)
    labels : str, optional
        One character a key, written above; where the mask is square also before each row.

    Returns
    -------
    drawing : str
        Lines; ``#`` is seen, ``.`` is not.

    Raises
    ------
    ValueError
        If there are not as many labels as keys.
    """
    rows = [" ".join("#" if seen else "." for seen in row) for row in mask.tolist()]
    if labels is None:
        return "\n".join(rows)
    if len(labels) != mask.shape[1]:
        msg = f"labels has {len(labels)} characters and the mask {mask.shape[1]} keys"
        raise ValueError(msg)
    square = mask.shape[0] == mask.shape[1]
    named = [f"{label} {row}" for label, row in zip(labels, rows, strict=True)] if square else rows
    return "\n".join([("  " if square else "") + " ".join(labels), *named])


def _check_lengths(**lengths: int) -> None:
    for name, length in lengths.items():
        if operator.index(length) < 0:
            msg = f"{name} is {length}; expected 0 or more"
            raise ValueError(msg)
