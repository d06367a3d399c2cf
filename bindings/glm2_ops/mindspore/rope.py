"""rope_append as a MindSpore cell."""

from __future__ import annotations

from typing import Any

from mindspore import nn

from glm2_ops.mindspore.custom import custom


class RopeAppend(nn.Cell):
    """`glm2_ops.rope_append`; heads and rotary_dim follow from the shapes of its inputs.

    It writes the caches in place and is declared to, so that a graph neither drops nor merges it.
    """

    def __init__(self) -> None:
        super().__init__()
        inputs = {
            "qkv": "float", "cos": "float32", "sin": "float32", "k_cache": "under qkv",
            "v_cache": "k_cache", "block_table": "int32", "cu_seqlens_q": "int32",
            "seq_len_kv": "int32",
        }  # fmt: skip
        self.op = custom("Glm2RopeAppend", inputs, {"q": "qkv"})
        self.op.add_prim_attr("side_effect_mem", True)

    def construct(
        self,
        qkv: Any,
        cos: Any,
        sin: Any,
        k_cache: Any,
        v_cache: Any,
        block_table: Any,
        cu_seqlens_q: Any,
        seq_len_kv: Any,
    ) -> Any:
        """Return the rotated q (T, N, D), as the numpy operator does."""
        return self.op(qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv)
