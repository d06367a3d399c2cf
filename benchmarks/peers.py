"""What attention is compared with: torch's forms where torch is installed, MindSpore's, dense numpy.

All peers get contiguous inputs of their own liking; paging, grouping and widening cost them nothing.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Peer:
    """One way to compute attention: its name, and the call to time."""

    name: str
    call: Callable[[], Any]


def attention_peers(
    q: Array, k: Array, v: Array, *, threads: int, naive: bool = True
) -> list[Peer]:
    """List the peers of one sequence.

    Parameters
    ----------
    q : (T, N, D)
    k, v : (Tk, G, D)
    threads : int
        As many as ours has.
    naive : bool
        In prefill, also those that write all scores to memory. They take gigabytes and seconds.

    Returns
    -------
    peers : list of Peer
        With torch: its fused attention in float32 and bfloat16 (float16 is slower), in decoding with
        the heads of a group packed as rows, and as torch offers groups. In prefill, torch's and
        MindSpore's matmul, softmax, matmul in float32. Without torch: dense numpy in float32.
    """
    if importlib.util.find_spec("torch") is None:
        return [Peer(f"numpy {np.__version__} dense float32", lambda: _numpy(*_grouped(q, k, v)))]
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    if len(q) == 1:
        return _torch_decode(torch, q, k, v)
    peers = _torch_prefill(torch, q, k, v)
    return [*peers, _torch_naive(torch, q, k, v), _mindspore(q, k, v)] if naive else peers


def gradient_peer(do: Array, q: Array, k: Array, v: Array, *, threads: int) -> Peer:
    """Forward and backward of torch's fused attention on one causal sequence, float32.

    Parameters
    ----------
    do, q : (T, N, D)
    k, v : (T, G, D)
    threads : int
        As many as ours has.
    """
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    do_t, *leaves = (_dense(torch, x, q.shape[1]) for x in (do, q, k, v))
    for leaf in leaves:
        leaf.requires_grad_()
    forward = _fused(torch, leaves, True)
    return Peer(
        f"torch {torch.__version__} sdpa float32",
        lambda: torch.autograd.grad(forward(), leaves, do_t),
    )


def numpy_gradient_peer(do: Array, q: Array, k: Array, v: Array, o: Array, lse: Array) -> Peer:
    """Dense causal gradient of one sequence in numpy, given the forward's results.

    Parameters
    ----------
    do, q, o : (T, N, D)
    k, v : (T, N, D)
    lse : (T, N)
    """
    do, q, k, v, o = (
        np.ascontiguousarray(x.swapaxes(0, 1), np.float32) for x in (do, q, k, v, o)
    )  # (N, T, D)
    lse = np.ascontiguousarray(lse.T)[..., None]
    hidden = np.triu(np.ones((q.shape[1], k.shape[1]), np.bool_), k=1)
    scale = q.shape[2] ** -0.5

    def call() -> tuple[Array, ...]:
        probs = q @ k.swapaxes(-1, -2)
        probs *= scale
        probs -= lse
        np.exp(probs, out=probs)
        probs[..., hidden] = 0
        dscores = do @ v.swapaxes(-1, -2)
        dscores -= np.sum(do * o, axis=-1, keepdims=True)
        dscores *= probs
        dscores *= scale
        return dscores @ k, dscores.swapaxes(-1, -2) @ q, probs.swapaxes(-1, -2) @ do

    return Peer(f"numpy {np.__version__} dense float32", call)


def _dense(torch: Any, x: Array, num_heads: int) -> Any:
    """(T, G, D) as a float32 tensor (1, N, T, D), each K/V head repeated for its group."""
    heads = x.astype(np.float32).repeat(num_heads // x.shape[1], axis=1)
    return torch.from_numpy(heads).transpose(0, 1)[None].contiguous()


def _torch_prefill(torch: Any, q: Array, k: Array, v: Array) -> list[Peer]:
    peers = []
    for name in ("float32", "bfloat16"):
        inputs = [_dense(torch, x, q.shape[1]).to(getattr(torch, name)) for x in (q, k, v)]
        peers.append(Peer(f"torch {torch.__version__} sdpa {name}", _fused(torch, inputs, True)))
    return peers


def _torch_naive(torch: Any, q: Array, k: Array, v: Array) -> Peer:
    """Matmul, mask, softmax, matmul: how attention is written without thinking of memory."""
    query, keys, values = (_dense(torch, x, q.shape[1]) for x in (q, k, v))
    hidden = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)

    def call() -> Any:
        scores = query @ keys.transpose(-1, -2) * q.shape[2] ** -0.5
        return torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1) @ values

    return Peer(f"torch {torch.__version__} matmul softmax float32", call)


def _mindspore(q: Array, k: Array, v: Array) -> Peer:
    """BatchMatMul, mask, softmax, BatchMatMul in one graph."""
    os.environ.setdefault("GLOG_v", "3")
    ms = importlib.import_module("mindspore")
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("CPU")
    heads = (x.astype(np.float32).repeat(q.shape[1] // x.shape[1], axis=1) for x in (q, k, v))
    inputs = [ms.Tensor(np.ascontiguousarray(x.swapaxes(0, 1))) for x in heads]
    visible = np.tri(len(q), len(k), len(k) - len(q), dtype=np.float32)
    mask = ms.Tensor((visible - 1) * 1e30)
    scale = q.shape[2] ** -0.5

    def attend(query: Any, keys: Any, values: Any, mask: Any) -> Any:
        scores = ms.ops.BatchMatMul(transpose_b=True)(query, keys) * scale + mask
        return ms.ops.BatchMatMul()(ms.ops.Softmax()(scores), values)

    graph = ms.jit(attend)
    return Peer(
        f"mindspore {ms.__version__} BatchMatMul softmax float32",
        lambda: graph(*inputs, mask).asnumpy(),
    )


def _torch_decode(torch: Any, q: Array, k: Array, v: Array) -> list[Peer]:
    """Heads of a group as rows: what a careful user writes by hand; and the grouped form as offered."""
    peers = []
    num_kv_heads = k.shape[1]
    for name in ("float32", "bfloat16"):
        dtype = getattr(torch, name)
        keys, values = (
            torch.from_numpy(x.astype(np.float32)).to(dtype).transpose(0, 1)[None].contiguous()
            for x in (k, v)
        )  # (1, G, Tk, D)
        query = torch.from_numpy(q.astype(np.float32)).to(dtype)
        packed = query.reshape(1, num_kv_heads, -1, q.shape[2])
        peers.append(
            Peer(
                f"torch {torch.__version__} sdpa {name} packed",
                _fused(torch, [packed, keys, values], False),
            )
        )
    if q.dtype != np.float16:
        return peers
    half = [x.to(torch.float16) for x in (query.transpose(0, 1)[None], keys, values)]
    grouped = _fused(torch, half, False, enable_gqa=True)
    return [*peers, Peer(f"torch {torch.__version__} sdpa float16 enable_gqa", grouped)]


def _fused(torch: Any, inputs: list[Any], causal: bool, **options: Any) -> Callable[[], Any]:
    attend = torch.nn.functional.scaled_dot_product_attention
    return lambda: attend(*inputs, is_causal=causal, **options)


def _grouped(q: Array, k: Array, v: Array) -> tuple[Array, Array, Array]:
    """Lay q out as (G, N / G, T, D), k and v as (G, 1, Tk, D), float32."""
    group = q.shape[1] // k.shape[1]
    rows = q.reshape(len(q), k.shape[1], group, -1).transpose(1, 2, 0, 3)
    keys, values = (x.swapaxes(0, 1)[:, None] for x in (k, v))
    return tuple(np.ascontiguousarray(x, np.float32) for x in (rows, keys, values))  # type: ignore[return-value]


def _numpy(q: Array, k: Array, v: Array) -> Array:
    scores = q @ k.swapaxes(-1, -2)
    scores *= q.shape[-1] ** -0.5
    len_q, len_kv = scores.shape[-2:]
    if len_q > 1:
        hidden = np.triu(np.ones((len_q, len_kv), np.bool_), k=len_kv - len_q + 1)
        scores[..., hidden] = -np.inf
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores @ v
