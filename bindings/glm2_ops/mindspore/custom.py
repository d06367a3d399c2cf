"""Loads an operator of the compiled library as a MindSpore primitive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.ops import CustomRegOp, DataType

from glm2_ops import checks
from glm2_ops._library import library_path


def custom(function: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> ops.Custom:
    """Load ``function`` of the library.

    Parameters
    ----------
    function : str
        Name of its C function; ``<function>InferShape`` gives shapes, dynamic dims included.
    inputs : mapping of str to str
        Each input's dtype: a name, "float" for one that the kernels serve, the name of an earlier
        input whose dtype it shares, or "under q" for the dtype of q or a 16-bit one under float32.
    outputs : mapping of str to str
        Each output's dtype: a name, or the input whose dtype it has.
    """
    registration = CustomRegOp(function)
    for index, name in enumerate(inputs):
        registration.input(index, name)
    for index, name in enumerate(outputs):
        registration.output(index, name)
    registration.dtype_format(*[DataType.None_None] * (len(inputs) + len(outputs)))
    registration.target("CPU")
    return ops.Custom(
        f"{library_path()}:{function}",
        out_shape=None,
        out_dtype=_output_dtypes(inputs, outputs),
        func_type="aot",
        reg_info=registration.get_op_info(),
    )


def _output_dtypes(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Callable[..., Any]:
    """Return what MindSpore calls with the type of each input, to check them and type the outputs."""
    exact = {"float32": ms.common.dtype.TensorType(ms.float32)}

    def output_dtypes(*types: Any) -> Any:
        given = dict(zip(inputs, types, strict=True))
        names = {name: str(tensor.element_type()).lower() for name, tensor in given.items()}
        for name, rule in inputs.items():
            checks.check_dtype_name(name, names, rule)
        found = tuple(exact.get(dtype) or given[dtype] for dtype in outputs.values())
        return found if len(found) > 1 else found[0]

    return output_dtypes


def option_tensors(scale: float, causal: bool, window: int | None) -> tuple[Tensor, Tensor]:
    """Return checked options of attention as the library takes them: (1,) float32, (2,) int32."""
    numbers = [checks.check_bool("causal", causal), checks.check_window(window)]
    return (
        Tensor(np.array([checks.check_scale(scale)], np.float32)),
        Tensor(np.array(numbers, np.int32)),
    )


def dynamic(dtype: ms.Type, *dims: int | None) -> Tensor:
    """Return a placeholder for ``Cell.set_inputs``; None is a dynamic dim."""
    return Tensor(shape=dims, dtype=dtype)
