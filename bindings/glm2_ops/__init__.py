"""The operators of glm2 for numpy: Ascend C kernels, compiled for this CPU through the twin.

Names, argument order and results are those of ``glm2_reference``; `glm2_ops.mindspore` holds the
same operators as MindSpore primitives.

Operands are numpy arrays in this machine's byte order, aligned to their itemsize; maps of files are
fine, masked arrays and matrices are refused. Floats may have any strides, but a cache and the index
arrays must be C-contiguous. What is refused is a ValueError or, for types, a TypeError, and nothing
has been written then.
"""

from glm2_ops._library import build_info, library_path, machine_peaks, set_num_threads
from glm2_ops.attention import flash_attention, flash_attention_varlen
from glm2_ops.attention_grad import flash_attention_grad
from glm2_ops.check_mode import CheckReport, Finding, check, counters, findings
from glm2_ops.layers import rms_norm, swiglu
from glm2_ops.packed_weight import pack_weight, packed_size, unpack_weight
from glm2_ops.quant import quant_linear
from glm2_ops.rope import rope_append

__all__ = [
    "CheckReport",
    "Finding",
    "build_info",
    "check",
    "counters",
    "findings",
    "flash_attention",
    "flash_attention_grad",
    "flash_attention_varlen",
    "library_path",
    "machine_peaks",
    "pack_weight",
    "packed_size",
    "quant_linear",
    "rms_norm",
    "rope_append",
    "set_num_threads",
    "swiglu",
    "unpack_weight",
]
