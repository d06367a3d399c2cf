"""The operators of glm2 for numpy: Ascend C kernels, compiled for this CPU through the twin.

Names, argument order and results are those of ``glm2_reference``; `glm2_ops.mindspore` holds the
same operators as MindSpore primitives.
"""

from glm2_ops._library import build_info, library_path, machine_peaks, set_num_threads
from glm2_ops.attention import flash_attention, flash_attention_varlen
from glm2_ops.attention_grad import flash_attention_grad
from glm2_ops.check_mode import CheckReport, Finding, check, counters, findings
from glm2_ops.layers import rms_norm, swiglu
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
    "rms_norm",
    "rope_append",
    "set_num_threads",
    "swiglu",
]
