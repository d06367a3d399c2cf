"""Tensors and tiles that lie in a memory, and regions of them."""

from __future__ import annotations

import dataclasses
import math

from glm2_reference.checks import FloatArray

Region = tuple[slice, ...]


@dataclasses.dataclass(eq=False)
class Buffer:
    """A tensor or a tile in one level of memory.

    Parameters
    ----------
    name : str
        What its traffic is counted under; a loaded tile has the name of its tensor.
    level : str
    shape : tuple of int
    element_bytes : int
        Width that is counted; the array may be wider, for exact results.
    data : float, shape, or None
        None in a trace, which counts without computing.
    live : bool
        False once it was freed.
    """

    name: str
    level: str
    shape: tuple[int, ...]
    element_bytes: int
    data: FloatArray | None
    live: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, at ``element_bytes``."""
        return math.prod(self.shape) * self.element_bytes


def region_shape(shape: tuple[int, ...], region: Region) -> tuple[int, ...]:
    """Return the shape of a region, which slices the leading axes and takes the others whole."""
    sliced = [len(range(*part.indices(size))) for part, size in zip(region, shape, strict=False)]
    return (*sliced, *shape[len(sliced) :])


def count_bursts(shape: tuple[int, ...], region: Region) -> int:
    """Return how many contiguous runs of a row-major tensor a region consists of."""
    sizes = region_shape(shape, region)
    if 0 in sizes:
        return 0
    axis = len(sizes) - 1
    while axis > 0 and sizes[axis] == shape[axis]:
        axis -= 1
    return math.prod(sizes[:axis])
