"""What quantised checkpoints hold: names, shapes and dtypes of the published form and the packed one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from glm2.checkpoint_files import difference, read_tensors, weight_files
from glm2.packed_format import LAYOUT, PackedFormat, WeightFormat
from glm2.safetensors_file import AnyArray, read_metadata
from glm2.safetensors_writer import TensorSpec
from glm2.weights import EMBEDDING, OUTPUT, PREFIX_ENCODER, read_model_tensors
from glm2_ops import packed_size
from glm2_reference.config import GLM2Config, published_tensor_shapes

METADATA = {"format": "glm2-packed", "layout": str(LAYOUT)}

# What the published code quantises; the output layer is packed too.
_BLOCK_LINEARS = (
    "self_attention.query_key_value.weight",
    "self_attention.dense.weight",
    "mlp.dense_h_to_4h.weight",
    "mlp.dense_4h_to_h.weight",
)
_FLOATS = ("float16", "bfloat16", "float32")


def is_block_linear(name: str) -> bool:
    """Whether the published code quantises the tensor ``name``."""
    return name.endswith(_BLOCK_LINEARS)


def scale_name(name: str) -> str:
    """Return the name of a weight's scales."""
    return f"{name}_scale"


def published_quantized_specs(
    config: GLM2Config, bits: int, *, dtype: str = "float16"
) -> dict[str, TensorSpec]:
    """Name every tensor of a published INT8 or INT4 checkpoint; int4 has two columns a byte.

    ``dtype`` is that of scales and of what is not quantised.
    """
    specs = {}
    for name, shape in published_tensor_shapes(config).items():
        if is_block_linear(name):
            columns = shape[1] * bits // 8
            specs[name] = TensorSpec((shape[0], columns), "int8")
            specs[scale_name(name)] = TensorSpec(shape[:1], dtype)
        else:
            specs[name] = TensorSpec(shape, dtype)
    return specs


def load_published_quantized(folder: Path, config: GLM2Config, bits: int) -> dict[str, AnyArray]:
    """Map a published INT8 or INT4 checkpoint folder.

    Raises
    ------
    FileNotFoundError, ValueError
        As `glm2.weights.load_weights` does.
    """
    tensors = read_model_tensors(folder, config)
    # What is not quantised, and scales, may be of any of the published dtypes.
    _check_specs(folder, tensors, published_quantized_specs(config, bits), float16=_FLOATS)
    return tensors


def load_packed(folder: Path, config: GLM2Config, packed: PackedFormat) -> dict[str, AnyArray]:
    """Map a packed checkpoint folder.

    Raises
    ------
    FileNotFoundError
        If files are missing.
    ValueError
        If a file is damaged or not of the packed form, or tensors do not fit the config.
    """
    for path in weight_files(folder):
        if read_metadata(path) != METADATA:
            msg = f"{path} is not a file of glm2 convert, layout {LAYOUT}; convert the checkpoint again"
            raise ValueError(msg)
    tensors = {
        name: array
        for name, array in read_tensors(folder).items()
        if not name.startswith(PREFIX_ENCODER)
    }
    _check_specs(folder, tensors, packed_specs(config, packed), float16=("float16",))
    return tensors


def _check_specs(
    folder: Path,
    tensors: Mapping[str, AnyArray],
    specs: Mapping[str, TensorSpec],
    *,
    float16: tuple[str, ...],
) -> None:
    """Raise one error that names every tensor that is missing, unknown, or of another kind.

    ``float16`` lists the dtypes that may stand where float16 is expected.
    """
    problems = [difference(specs, tensors)] if set(tensors) != set(specs) else []
    for name, spec in specs.items():
        if name not in tensors:
            continue
        array = tensors[name]
        dtypes = float16 if spec.dtype == "float16" else (spec.dtype,)
        if array.shape != spec.shape or array.dtype.name not in dtypes:
            problems.append(
                f"{name} is {array.dtype} {array.shape}, expected {spec.dtype} {spec.shape}"
            )
    if problems:
        msg = f"{folder}: the weights do not fit config.json: {'; '.join(problems)}"
        raise ValueError(msg)


def packed_specs(config: GLM2Config, packed: PackedFormat) -> dict[str, TensorSpec]:
    """Name every tensor of a packed checkpoint.

    Matrices are bytes in the operator's layout with float32 scales beside them, norms and biases
    float32, the embedding float16. The output layer is there also where the embedding is tied to it,
    and query_key_value holds all q, then k, then v, also without multi-query attention.
    """
    shapes = published_tensor_shapes(config)
    shapes.setdefault(OUTPUT, shapes[EMBEDDING])
    specs = {}
    for name, shape in shapes.items():
        if name == EMBEDDING:
            specs[name] = TensorSpec(shape, "float16")
        elif is_block_linear(name) or name == OUTPUT:
            specs |= _matrix_specs(name, shape, packed.of(name))
        else:
            specs[name] = TensorSpec(shape, "float32")
    return specs


def _matrix_specs(
    name: str, shape: tuple[int, ...], weight_format: WeightFormat
) -> dict[str, TensorSpec]:
    """Return the specs of a packed matrix and its scales."""
    return {
        name: TensorSpec((packed_size(*shape, format=weight_format),), "uint8"),
        scale_name(name): TensorSpec(scale_shape(shape, weight_format), "float32"),
    }


def scale_shape(shape: tuple[int, ...], weight_format: str) -> tuple[int, ...]:
    """Return the shape of a matrix's scales: one a row, or one a group of columns."""
    group_size = group_size_of(weight_format)
    return shape[:1] if group_size is None else (shape[0], shape[1] // group_size)


def group_size_of(weight_format: str) -> int | None:
    """Return the columns that share a scale, None where a row does."""
    _, _, group_size = weight_format.partition("-g")
    return int(group_size) if group_size else None


def qkv_row_order(config: GLM2Config) -> npt.NDArray[np.intp] | None:
    """Return which published row of query_key_value stands where in all q, all k, all v.

    None where that is the published order, which it is with multi-query attention; without it, the
    published rows hold q, k and v of each head in turn.
    """
    if config.multi_query_attention:
        return None
    rows = np.arange(3 * config.num_heads * config.head_dim)
    return rows.reshape(config.num_heads, 3, config.head_dim).swapaxes(0, 1).reshape(-1)
