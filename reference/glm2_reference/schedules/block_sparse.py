"""Block-sparse FlashAttention: the first schedule, over the tiles that a block mask keeps."""

from __future__ import annotations

import numpy as np

from glm2_reference.checks import BoolArray, check_shape
from glm2_reference.memory import Memory
from glm2_reference.schedules.flash1 import Arrays, flash1_forward
from glm2_reference.schedules.problem import Problem


def block_sparse_forward(
    memory: Memory, problem: Problem, arrays: Arrays, *, block_mask: BoolArray
) -> Arrays:
    """Walk FlashAttention's first forward pass over some of its tiles.

    Parameters
    ----------
    memory, problem, arrays
        As in `flash1_forward`.
    block_mask : bool, (row blocks, key blocks)
        False where a tile is skipped, whether or not its rows could see it.

    Returns
    -------
    arrays : dict
        o (rows, d), row_max and row_sum (rows,). A row without a tile: o = 0.

    Raises
    ------
    ValueError
        If the mask does not have one entry a tile.

    References
    ----------
    Dao et al. 2022, algorithm 5 and proposition 4.
    """
    wanted = (len(problem.row_blocks), len(problem.key_blocks))
    check_shape("block_mask", block_mask, wanted, "one entry a tile")
    kept = {
        (rows.start, keys.start)
        for i, rows in enumerate(problem.row_blocks)
        for j, keys in enumerate(problem.key_blocks)
        if block_mask[i, j] and problem.sees(rows, keys)
    }
    return flash1_forward(
        memory, problem, arrays, sees=lambda rows, keys: (rows.start, keys.start) in kept
    )


def butterfly_mask(blocks: int) -> BoolArray:
    """Return (blocks, blocks): the fixed pattern that joins all blocks within log2 steps.

    Block i sees block j where their numbers differ in one bit or none.

    Raises
    ------
    ValueError
        If ``blocks`` is not positive.

    References
    ----------
    Dao et al. 2022, section 3.3 (butterfly sparsity, from Dao et al. 2021, "Pixelated Butterfly").
    """
    if blocks < 1:
        msg = f"blocks is {blocks}; expected 1 or more"
        raise ValueError(msg)
    number = np.arange(blocks)
    differ = number[:, None] ^ number[None, :]
    mask: BoolArray = (differ & (differ - 1)) == 0  # no bit, or one
    return mask
