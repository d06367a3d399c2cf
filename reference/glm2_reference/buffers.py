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
    """Return the shape of a region, which slices the leading axes and takes the others whole.

    Raises
    ------
    ValueError
        If it has more axes than the tensor, or a step.
    """
    if len(region) > len(shape) or any(part.step not in (None, 1) for part in region):
        msg = f"the region {region} does not fit a tensor of shape {shape}; slice its axes, step 1"
        raise ValueError(msg)
    sliced = [len(range(*part.indices(size))) for part, size in zip(region, shape, strict=False)]
    return (*sliced, *shape[len(sliced) :])


def check_sizes(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Require sizes of 0 or more.

    Raises
    ------
    ValueError
        If one is negative.
    """
    if any(size < 0 for size in shape):
        msg = f"{name} has shape {shape}; expected sizes of 0 or more"
        raise ValueError(msg)
    return shape


def count_bursts(shape: tuple[int, ...], region: Region) -> int:
    """Return how many contiguous runs of a row-major tensor a region consists of."""
    sizes = region_shape(shape, region)
    if 0 in sizes:
        return 0
    axis = len(sizes) - 1
    while axis > 0 and sizes[axis] == shape[axis]:
        axis -= 1
    return math.prod(sizes[:axis])


def check_same_shape(tile: Buffer, tensor: Buffer, region: Region) -> None:
    """Require a tile of the shape of a tensor's region.

    Raises
    ------
    ValueError
        If they differ.
    """
    shape = region_shape(tensor.shape, region)
    if tile.shape != shape:
        msg = (
            f"the tile {tile.name} has shape {tile.shape}, but the region of {tensor.name} {shape}; "
            "a move does not broadcast"
        )
        raise ValueError(msg)


def check_live(*buffers: Buffer) -> None:
    """Require that none was freed.

    Raises
    ------
    ValueError
        If one was.
    """
    for buffer in buffers:
        if not buffer.live:
            msg = f"{buffer.name} in {buffer.level} was freed; load it again"
            raise ValueError(msg)
