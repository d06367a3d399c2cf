"""Where the time of a decode step goes: the step, and graphs that hold one kind of operator alone."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from glm2.kv_cache import KVCache
from glm2.layers import make_linear
from glm2.model import GLM2Model
from glm2.sampling import Sampler, SamplingParams
from glm2.transformer import BLOCK_WEIGHTS, MODEL_WEIGHTS
from glm2_ops.mindspore import FlashAttention, RmsNormResidual, RopeAppend, Swiglu

_PER_BLOCK = len(BLOCK_WEIGHTS)
# The publisher's settings, whose sampling costs most: top_k and top_p both.
_SAMPLING = SamplingParams(temperature=0.8, top_k=50, top_p=0.8, seed=0)


@dataclasses.dataclass(frozen=True)
class StepProfile:
    """Seconds of one decode step and of its parts; medians.

    Parameters
    ----------
    step_s : float
        A whole step: forward pass and sampling.
    linear_s, attention_s, small_ops_s : float
        All products with weights; all attention; norms, rope_append and SwiGLU. Each measured in a
        graph that holds nothing else, on the same weights and cache.
    sampling_s : float
    """

    step_s: float
    linear_s: float
    attention_s: float
    small_ops_s: float
    sampling_s: float

    @property
    def rest_s(self) -> float:
        """What is left: MindSpore's executor, and Python."""
        parts = self.linear_s + self.attention_s + self.small_ops_s + self.sampling_s
        return self.step_s - parts

    @property
    def overhead(self) -> float:
        """The share of a step outside products with weights and attention."""
        return 1 - (self.linear_s + self.attention_s) / self.step_s


def profile_step(
    model: GLM2Model, cache: KVCache, *, runs: int, budget_s: float = 20.0
) -> StepProfile:
    """Time a decode step of all sequences of a cache, and its parts.

    Parameters
    ----------
    model : GLM2Model
    cache : KVCache
        Filled as far as the step is to see; its length is the same afterwards.
    runs : int
        Most timed calls of each; fewer where they take longer than ``budget_s`` together.
    """
    batch = cache.lengths.size
    context = cache.length
    ids = np.arange(batch, dtype=np.int32) + 3
    cu_seqlens = np.arange(batch + 1, dtype=np.int32)
    sampler = Sampler(_SAMPLING)
    logits = model.forward_ragged(ids, cu_seqlens, cache)  # compiles
    cache.truncate(context)

    def step() -> None:
        rows = model.forward_ragged(ids, cu_seqlens, cache)
        cache.truncate(context)
        for row in rows:
            sampler.sample(row, [])

    def sample() -> None:
        for row in logits:
            sampler.sample(row, [])

    calls = {
        "step_s": step,
        "linear_s": _linears(model, batch),
        "attention_s": _attention(model, cache),
        "small_ops_s": _small_ops(model, cache),
        "sampling_s": sample,
    }
    return StepProfile(**_medians(calls, runs, budget_s))


def _medians(calls: dict[str, Callable[[], Any]], runs: int, budget_s: float) -> dict[str, float]:
    """Time the calls in turns, so that all see the same machine."""
    for call in calls.values():
        call()  # compiles, and warms up
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    begun_s = time.perf_counter()
    for _ in range(runs):
        for name, call in calls.items():
            started_s = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started_s)
        if time.perf_counter() - begun_s > budget_s:
            break
    return {name: statistics.median(times) for name, times in seconds.items()}


def _compiled_once(cell: nn.Cell) -> nn.Cell:
    """Let later calls run the compiled graph as `GLM2Model` has it, without comparing arguments."""
    cell.phase = "increment"
    return cell


def _linears(model: GLM2Model, batch: int) -> Callable[[], Any]:
    """All products with weights, one after another."""
    config = model.config
    rng = np.random.default_rng(0)
    sizes = (config.hidden_size, config.num_heads * config.head_dim, config.ffn_hidden_size)
    inputs = [ms.Tensor(rng.standard_normal((batch, n)).astype(np.float32)) for n in sizes]
    cell = _compiled_once(_Linears(model))
    return lambda: cell(*inputs, *model.device_weights).asnumpy()


def _attention(model: GLM2Model, cache: KVCache) -> Callable[[], Any]:
    """Attention of all layers over the cache."""
    config, batch = model.config, cache.lengths.size
    shape = (batch, config.num_heads, config.head_dim)
    q = ms.Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    cell = _compiled_once(_Attention(model))
    positions = _positions(cache)
    pages = _pages(cache)
    return lambda: cell(q, *positions, *pages).asnumpy()


def _small_ops(model: GLM2Model, cache: KVCache) -> Callable[[], Any]:
    """Norms, rope_append and SwiGLU of all layers."""
    config, batch = model.config, cache.lengths.size
    rng = np.random.default_rng(0)
    sizes = (config.hidden_size, config.qkv_size, 2 * config.ffn_hidden_size)
    inputs = [ms.Tensor(rng.standard_normal((batch, n)).astype(np.float32)) for n in sizes]
    cell = _compiled_once(_SmallOps(model))
    positions = _positions(cache)[:3]
    pages = _pages(cache)
    norm = model.device_weights[1]
    # It writes the slot of the next token, as a step does.
    return lambda: cell(*inputs, norm, *model.rope_angles, *positions, *pages).asnumpy()


def _positions(cache: KVCache) -> tuple[ms.Tensor, ...]:
    """block_table, cu_seqlens_q, seq_len_kv and prefix_len of a step."""
    batch = cache.lengths.size
    lengths = cache.lengths + np.int32(1 + cache.num_prefix)
    arrays = (cache.block_table, np.arange(batch + 1), lengths, np.zeros(batch))
    return tuple(ms.Tensor(array.astype(np.int32)) for array in arrays)


def _pages(cache: KVCache) -> tuple[Any, ...]:
    """K and V pages of each layer in turn, as the model made tensors of them."""
    assert cache.device_views is not None
    return cache.device_views


class _Linears(nn.Cell):
    """The matrices of a step; each waits for the one before it."""

    def __init__(self, model: GLM2Model) -> None:
        super().__init__()
        self.num_layers = model.config.num_layers
        self.project = make_linear(model.packed, bias=True)
        self.linear = make_linear(model.packed)
        self.head = make_linear(model.packed, head=True)
        self.after = ops.Depend()

    def construct(self, hidden: Any, attended: Any, gated: Any, *weights: Any) -> Any:
        for i in range(self.num_layers):
            first = MODEL_WEIGHTS + _PER_BLOCK * i
            qkv = self.project(hidden, weights[first + 1], weights[first + 2], weights[first + 3])
            attended = self.after(attended, qkv)
            dense = self.linear(attended, weights[first + 4], weights[first + 5])
            hidden = self.after(hidden, dense)
            wide = self.linear(hidden, weights[first + 7], weights[first + 8])
            gated = self.after(gated, wide)
            narrow = self.linear(gated, weights[first + 9], weights[first + 10])
            hidden = self.after(hidden, narrow)
        return self.head(hidden, weights[2], weights[3])


class _Attention(nn.Cell):
    """The attention of a step; each layer waits for the one before it."""

    def __init__(self, model: GLM2Model) -> None:
        super().__init__()
        self.num_layers = model.config.num_layers
        self.attention = FlashAttention(scale=model.config.head_dim**-0.5)
        self.after = ops.Depend()

    def construct(
        self,
        q: Any,
        block_table: Any,
        cu_seqlens_q: Any,
        seq_len_kv: Any,
        prefix_len: Any,
        *pages: Any,
    ) -> Any:
        o = q
        for i in range(self.num_layers):
            o = self.attention(
                self.after(q, o), pages[2 * i], pages[2 * i + 1], block_table, cu_seqlens_q,
                seq_len_kv, prefix_len,
            )  # fmt: skip
        return o


class _SmallOps(nn.Cell):
    """Two norms, rope_append and SwiGLU a layer, and the last norm."""

    def __init__(self, model: GLM2Model) -> None:
        super().__init__()
        self.num_layers = model.config.num_layers
        self.norm = RmsNormResidual(eps=model.config.norm_eps)
        self.rope_append = RopeAppend()
        self.swiglu = Swiglu()
        self.after = ops.Depend()

    def construct(
        self,
        hidden: Any,
        qkv: Any,
        wide: Any,
        weight: Any,
        cos: Any,
        sin: Any,
        block_table: Any,
        cu_seqlens_q: Any,
        seq_len_kv: Any,
        *pages: Any,
    ) -> Any:
        x, residual = hidden, hidden
        for i in range(self.num_layers):
            x, residual = self.norm(x, weight, residual)
            q = self.rope_append(
                self.after(qkv, x), cos, sin, pages[2 * i], pages[2 * i + 1], block_table,
                cu_seqlens_q, seq_len_kv,
            )  # fmt: skip
            x, residual = self.norm(self.after(x, q), weight, residual)
            wide = self.after(wide, x)
            x = self.after(x, self.swiglu(wide))
        x, _ = self.norm(x, weight, residual)
        return x
