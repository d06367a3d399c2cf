"""How the matrices of a packed checkpoint are stored: the key ``glm2`` of its config.json."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, get_args

from glm2.weights import OUTPUT

WeightFormat = Literal["fp16", "int8", "int4", "int4-g128", "int4-g64", "int4-g32"]
HeadFormat = Literal["fp16", "int8", "int4"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)
HEAD_FORMATS: tuple[HeadFormat, ...] = get_args(HeadFormat)
LAYOUT = 1  # grows when the packed form changes


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackedFormat:
    """How the matrices of a packed checkpoint are stored, and multiplied.

    Parameters
    ----------
    weights : str
        "fp16"; "int8" or "int4" with a scale a row, as published; "int4-g128", "int4-g64" or
        "int4-g32" with a scale a group of so many columns.
    head : "fp16", "int8" or "int4"
        Of the output layer.
    activation_bits : 16 or 8
        What the operator rounds the left side of quantised products to: 8 is integers, a scale a
        token; 16 is none. fp16 matrices are always multiplied by activations as they are.

    Raises
    ------
    ValueError
        If a value is another.
    """

    weights: WeightFormat
    head: HeadFormat
    activation_bits: int

    def __post_init__(self) -> None:
        for name, known in (("weights", WEIGHT_FORMATS), ("head", HEAD_FORMATS)):
            if getattr(self, name) not in known:
                msg = f"{name} is {getattr(self, name)!r}; expected one of {', '.join(known)}"
                raise ValueError(msg)
        if self.activation_bits not in (8, 16):
            msg = f"activation_bits is {self.activation_bits!r}; expected 16 or 8"
            raise ValueError(msg)

    def of(self, name: str) -> WeightFormat:
        """Return the format of the matrix ``name``."""
        return self.head if name == OUTPUT else self.weights

    def to_fields(self) -> dict[str, Any]:
        """Return the value of config.json's key ``glm2``."""
        return {
            "format": self.weights,
            "head": self.head,
            "activation_bits": self.activation_bits,
            "layout": LAYOUT,
        }

    @classmethod
    def from_fields(cls, fields: Any) -> PackedFormat:
        """Read the value of config.json's key ``glm2``.

        Raises
        ------
        ValueError
            If it is damaged, or of another layout.
        """
        match fields:
            case {
                "format": weights,
                "head": head,
                "activation_bits": int(bits),
                "layout": int(layout),
            }:
                pass
            case _:
                msg = f"config.json has glm2 = {fields!s:.200}; convert the checkpoint again"
                raise ValueError(msg)
        if layout != LAYOUT:
            msg = (
                f"the checkpoint is packed in layout {layout} and this version reads layout {LAYOUT}; "
                "run glm2 convert again"
            )
            raise ValueError(msg)
        return cls(weights=weights, head=head, activation_bits=bits)
