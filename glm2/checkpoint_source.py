"""Read any form of checkpoint a few rows at a time: floats, published INT8 and INT4, packed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from glm2.checkpoint_files import read_tensors, weight_files
from glm2.config import CheckpointConfig, read_checkpoint_config
from glm2.quantization import Quantized
from glm2.quantized_checkpoint import (
    is_block_linear,
    load_packed,
    load_published_quantized,
    qkv_row_order,
    scale_name,
)
from glm2.safetensors_file import AnyArray, forget_pages
from glm2.weights import EMBEDDING, OUTPUT, PREFIX_ENCODER, load_weights
from glm2_ops import pack_weight, packed_size, unpack_weight
from glm2_reference.config import published_tensor_shapes

Rows = AnyArray | Quantized
_BLOCK_ELEMS = 1 << 22
STRIPE_ROWS = 16  # rows that are packed together


class CheckpointSource:
    """A checkpoint folder of any form, its matrices read a block of rows at a time.

    Rows of query_key_value come as all q, all k, all v in every form.

    Parameters
    ----------
    folder : str or Path

    Raises
    ------
    FileNotFoundError, ValueError
        As reading the config and the weights does.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.checkpoint: CheckpointConfig = read_checkpoint_config(folder)
        self.config = self.checkpoint.config
        self.bits = self.checkpoint.quantization_bit
        self.packed = self.checkpoint.packed
        if self.packed is not None:
            self.tensors = load_packed(self.folder, self.config, self.packed)
        elif self.bits is not None:
            self.tensors = load_published_quantized(self.folder, self.config, self.bits)
        else:
            self.tensors = load_weights(self.folder, self.config)
        self.shapes = published_tensor_shapes(self.config)
        self.shapes.setdefault(OUTPUT, self.shapes[EMBEDDING])

    @property
    def form(self) -> str:
        """What the matrices are: "float", or "int4" and so on where they are quantised."""
        if self.packed is not None:
            return "float" if self.packed.weights == "fp16" else self.packed.weights
        return "float" if self.bits is None else f"int{self.bits}"

    @property
    def dtype(self) -> str:
        """The dtype of what is not quantised, as the publisher would store it."""
        if self.packed is not None:
            return "float16"
        return str(self.tensors[EMBEDDING].dtype.name)

    @functools.cached_property
    def prefix_encoder(self) -> dict[str, AnyArray]:
        """Tensors of a P-tuning v2 prefix encoder; they are no part of any form."""
        return {
            name: array
            for name, array in read_tensors(self.folder).items()
            if name.startswith(PREFIX_ENCODER)
        }

    def fingerprint(self) -> dict[str, Any]:
        """Say which files these are: names, sizes and times."""
        stats = {path.name: path.stat() for path in weight_files(self.folder)}
        return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())}

    def blocks_of_rows(self, name: str) -> list[slice]:
        """Cut a matrix into runs of whole stripes of a few million elements, to be read in order."""
        num_rows, num_columns = self.shapes[name]
        step = max(1, _BLOCK_ELEMS // num_columns // STRIPE_ROWS) * STRIPE_ROWS
        if "query_key_value" in name and qkv_row_order(self.config) is not None:
            step = num_rows  # published rows come from all over the matrix
        return [slice(i, min(i + step, num_rows)) for i in range(0, num_rows, step)]

    def vector(self, name: str) -> AnyArray:
        """Return a norm or bias, its elements in the order of the matrix's rows."""
        array, order = self.tensors[name], self._row_order(name)
        return array if order is None or self.packed is not None else array[order]

    def rows(self, name: str, rows: slice) -> Rows:
        """Return some rows of a matrix; the file's pages are given back.

        Parameters
        ----------
        name : str
        rows : slice
            From `blocks_of_rows`.
        """
        if self.packed is not None and name != EMBEDDING:
            return self._packed_rows(name, rows)
        stored = OUTPUT if name == OUTPUT and OUTPUT in self.tensors else name
        array = self.tensors[EMBEDDING if stored not in self.tensors else stored]
        order = self._row_order(name)
        block = array[rows] if order is None else array[order]
        if self.bits is not None and is_block_linear(name):
            scale = self.tensors[scale_name(name)]
            values = self._published_values(block, self.shapes[name][1])
            found: Rows = Quantized(values, scale[rows] if order is None else scale[order])
        else:
            found = np.array(block)
        forget_pages(array[rows])
        return found

    def _published_values(self, block: AnyArray, num_columns: int) -> AnyArray:
        """Take values of 4 bits out of their bytes."""
        if self.bits == 8:
            return np.array(block)
        packed = pack_weight(np.ascontiguousarray(block), format="int4", nibble_order="high_first")
        return unpack_weight(
            packed, out_features=len(block), in_features=num_columns, format="int4"
        )

    def _packed_rows(self, name: str, rows: slice) -> Rows:
        """Unpack whole stripes."""
        assert self.packed is not None
        weight_format = self.packed.of(name)
        num_columns = self.shapes[name][1]
        begin, end = (
            packed_size(row, num_columns, format=weight_format) if row else 0
            for row in (rows.start, rows.stop)
        )
        stored = self.tensors[name][begin:end]
        values = unpack_weight(
            stored,
            out_features=rows.stop - rows.start,
            in_features=num_columns,
            format=weight_format,
        )
        forget_pages(stored)
        if weight_format == "fp16":
            return values
        return Quantized(values, self.tensors[scale_name(name)][rows])

    def _row_order(self, name: str) -> Any:
        """Return where rows of query_key_value come from, None where they lie in order."""
        if "query_key_value" not in name or self.packed is not None:
            return None
        return qkv_row_order(self.config)
