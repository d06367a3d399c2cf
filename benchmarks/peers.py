"""What attention is compared with: torch's best forms where torch is installed, dense numpy otherwise.

All peers get contiguous inputs of their own liking; paging, grouping and widening cost them nothing.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Peer:
    """One way to compute attention: its name, and the call to time."""

    name: str
    call: Callable[[], Any]


def attention_peers(q: Array, k: Array, v: Array, *, threads: int) -> list[Peer]:
    """List the peers of one sequence.

    Parameters
    ----------
    q : (T, N, D)
    k, v : (Tk, G, D)
    threads : int
        As many as ours has.

    Returns
    -------
    peers : list of Peer
        With torch: its fused attention in float32 and bfloat16 (float16 where that is quick), and in
        decoding the heads of a group packed as rows. Without torch: dense numpy in float32.
    """
    if importlib.util.find_spec("torch") is None:
        return [Peer(f"numpy {np.__version__} dense float32", lambda: _numpy(*_grouped(q, k, v)))]
    torch = importlib.import_module("torch")
    torch.set_num_threads(threads)
    return _torch_decode(torch, q, k, v) if len(q) == 1 else _torch_prefill(torch, q, k, v)


def _torch_prefill(torch: Any, q: Array, k: Array, v: Array) -> list[Peer]:
    group = q.shape[1] // k.shape[1]
    peers = []
    for name in ("float32", "bfloat16"):
        dense = [
            torch.from_numpy(x.astype(np.float32)).to(getattr(torch, name)).transpose(0, 1)[None]
            for x in (q, k.repeat(group, axis=1), v.repeat(group, axis=1))
        ]  # (1, N, T, D)
        inputs = [x.contiguous() for x in dense]
        peers.append(Peer(f"torch {torch.__version__} sdpa {name}", _fused(torch, inputs, True)))
    return peers


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
