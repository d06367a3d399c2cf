"""flash_attention, flash_attention_varlen and flash_attention_grad as MindSpore cells."""

from __future__ import annotations

from typing import Any

from mindspore import nn, ops

from glm2_ops.mindspore.custom import custom, option_tensors

_OPTIONS = {"scale": "float32", "options": "int32"}
_OFFSETS = {"cu_seqlens_q": "int32", "cu_seqlens_kv": "int32", "prefix_len": "int32"}


class FlashAttention(nn.Cell):
    """`glm2_ops.flash_attention`, over a paged cache, with its options fixed.

    Parameters
    ----------
    scale : float
        Multiplies the scores.
    causal : bool
        Whether a query sees no key after its own position, the prefix excepted.
    window : int, optional
        See `glm2_ops.flash_attention`.
    """

    def __init__(self, *, scale: float, causal: bool = True, window: int | None = None) -> None:
        super().__init__()
        inputs = {
            "q": "float", "k_cache": "under q", "v_cache": "k_cache", "block_table": "int32",
            "cu_seqlens_q": "int32", "seq_len_kv": "int32", "prefix_len": "int32", **_OPTIONS,
        }  # fmt: skip
        self.op = custom("Glm2FlashAttention", inputs, {"o": "q"})
        self.scale, self.options = option_tensors(scale, causal, window)

    def construct(
        self,
        q: Any,
        k_cache: Any,
        v_cache: Any,
        block_table: Any,
        cu_seqlens_q: Any,
        seq_len_kv: Any,
        prefix_len: Any,
    ) -> Any:
        """Return o (T, N, D), as the numpy operator does."""
        return self.op(q, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, prefix_len,
                       self.scale, self.options)  # fmt: skip


class FlashAttentionGrad(nn.Cell):
    """`glm2_ops.flash_attention_grad` with its options fixed.

    Parameters
    ----------
    scale, causal, window
        As the forward pass had them; see `FlashAttention`.
    """

    def __init__(self, *, scale: float, causal: bool = True, window: int | None = None) -> None:
        super().__init__()
        inputs = {"do": "q", "q": "float", "k": "q", "v": "q", "o": "q", "lse": "float32",
                  **_OFFSETS, **_OPTIONS}  # fmt: skip
        self.op = custom("Glm2FlashAttentionGrad", inputs, {"dq": "q", "dk": "q", "dv": "q"})
        self.scale, self.options = option_tensors(scale, causal, window)

    def construct(
        self,
        do: Any,
        q: Any,
        k: Any,
        v: Any,
        o: Any,
        lse: Any,
        cu_seqlens_q: Any,
        cu_seqlens_kv: Any,
        prefix_len: Any,
    ) -> Any:
        """Return dq (T, N, D), dk and dv (Tk, G, D), as the numpy operator does."""
        return self.op(do, q, k, v, o, lse, cu_seqlens_q, cu_seqlens_kv, prefix_len,
                       self.scale, self.options)  # fmt: skip


class FlashAttentionVarlen(nn.Cell):
    """`glm2_ops.flash_attention_varlen` with its options fixed: the attention of training.

    ``ms.value_and_grad`` goes through it. The pass forward keeps lse, the pass backward computes the
    probabilities again from it, tile by tile: nothing of size Tq x Tk is ever held.

    Parameters
    ----------
    scale, causal, window
        See `FlashAttention`.
    return_lse : bool
        Whether to return lse (T, N) float32 too. It carries no gradient.
    """

    def __init__(
        self,
        *,
        scale: float,
        causal: bool = True,
        window: int | None = None,
        return_lse: bool = False,
    ) -> None:
        super().__init__()
        self.attention = _WithLse(scale=scale, causal=causal, window=window)
        self.return_lse = return_lse

    def construct(
        self, q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_kv: Any, prefix_len: Any
    ) -> Any:
        """Return o (T, N, D), as the numpy operator does; prefix_len (B,) is 0 where there is none.

        k and v (Tk, G, D) have the dtype of q, which differentiating needs; without it they may be
        16-bit under a float32 q.
        """
        o, lse = self.attention(q, k, v, cu_seqlens_q, cu_seqlens_kv, prefix_len)
        return (o, ops.stop_gradient(lse)) if self.return_lse else o


class _WithLse(nn.Cell):
    """Attention whose lse is an output, for that is where ``bprop`` finds it."""

    def __init__(self, *, scale: float, causal: bool, window: int | None) -> None:
        super().__init__()
        inputs = {"q": "float", "k": "under q", "v": "k", **_OFFSETS, **_OPTIONS}
        outputs = {"o": "q", "lse": "float32"}
        self.op = custom("Glm2FlashAttentionVarlen", inputs, outputs)
        self.scale, self.options = option_tensors(scale, causal, window)
        self.gradients = FlashAttentionGrad(scale=scale, causal=causal, window=window)

    def construct(
        self, q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_kv: Any, prefix_len: Any
    ) -> Any:
        return self.op(q, k, v, cu_seqlens_q, cu_seqlens_kv, prefix_len, self.scale, self.options)

    def bprop(
        self, q: Any, k: Any, v: Any, cu_seqlens_q: Any, cu_seqlens_kv: Any, prefix_len: Any,
        out: Any, dout: Any,
    ) -> Any:  # fmt: skip
        dq, dk, dv = self.gradients(
            dout[0], q, k, v, out[0], out[1], cu_seqlens_q, cu_seqlens_kv, prefix_len
        )
        none = ops.zeros_like(cu_seqlens_q)
        return dq, dk, dv, none, ops.zeros_like(cu_seqlens_kv), ops.zeros_like(prefix_len)
