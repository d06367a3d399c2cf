"""The operators as MindSpore cells, for graph mode and PyNative, with gradients.

Each is an ``ops.Custom(func_type="aot")`` on the compiled library. Token counts may be dynamic: a
graph whose inputs were set with ``Tensor(shape=(None, ...))`` compiles once. ``ms.value_and_grad``
trains through `FlashAttentionVarlen`, `RmsNorm`, `RmsNormResidual` and `Swiglu`; `FlashAttention` and
`RopeAppend`, which use a paged cache, and `QuantLinear` have no gradient.

Wrong dtypes are TypeErrors when a graph is compiled; wrong shapes, lengths, offsets and page ids are
RuntimeErrors that end with what `glm2_ops.checks` would say. A graph in which an operator failed
refuses every later call, so check a batch with `glm2_ops.checks` first where it comes from outside.
"""

from glm2_ops.mindspore.attention import FlashAttention, FlashAttentionGrad, FlashAttentionVarlen
from glm2_ops.mindspore.custom import dynamic
from glm2_ops.mindspore.layers import RmsNorm, RmsNormResidual, Swiglu
from glm2_ops.mindspore.quant import QuantLinear
from glm2_ops.mindspore.rope import RopeAppend

__all__ = [
    "FlashAttention",
    "FlashAttentionGrad",
    "FlashAttentionVarlen",
    "QuantLinear",
    "RmsNorm",
    "RmsNormResidual",
    "RopeAppend",
    "Swiglu",
    "dynamic",
]
