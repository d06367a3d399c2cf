"""Find the first layer of a model whose output is not finite."""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from glm2.transformer import ATTENTION_WEIGHTS, BLOCK_WEIGHTS, MODEL_WEIGHTS, Transformer

_PER_BLOCK = len(BLOCK_WEIGHTS)
_NUM_SMALL = 8  # arguments before the weights: ids, rows, positions, angles


class _Probe(nn.Cell):
    """The network again, returning how many numbers of each stage's output are not finite."""

    def __init__(self, network: Transformer) -> None:
        super().__init__()
        self.network = network
        self.num_layers = network.num_layers
        self.is_finite = ops.IsFinite()
        self.logical_not = ops.LogicalNot()
        self.cast = ops.Cast()
        self.sum = ops.ReduceSum()
        self.stack = ops.Stack()

    def construct(self, *arguments: Any) -> Any:
        """Return counts (1 + 2 * num_layers,): embedding, then attention and MLP of each block."""
        ids, _, block_table, cu_seqlens_q, seq_len_kv, prefix_len = arguments[:6]
        cos, sin, embedding = arguments[6:9]
        layer_tensors = arguments[_NUM_SMALL + MODEL_WEIGHTS :]
        network = self.network
        positions = (block_table, cu_seqlens_q, seq_len_kv, prefix_len)
        x = network.cast(network.gather(embedding, ids, 0), ms.float32)  # (T, hidden_size)
        counts = [self.count(x)]
        residual = network.zeros_like(x)
        for i in range(self.num_layers):
            weights = layer_tensors[_PER_BLOCK * i : _PER_BLOCK * (i + 1)]
            first = _PER_BLOCK * self.num_layers + 2 * i
            cache = (layer_tensors[first], layer_tensors[first + 1])
            block = network.blocks[i]
            x, residual = block.attend(x, residual, weights, (cos, sin), cache, positions)
            counts.append(self.count(x + residual))
            x, residual = block.transform(x, residual, weights)
            counts.append(self.count(x + residual))
        return self.stack(counts)

    def count(self, x: Any) -> Any:
        """Count the numbers of x that are NaN or infinite."""
        return self.sum(self.cast(self.logical_not(self.is_finite(x)), ms.float32))


def first_bad_layer(
    network: Transformer, arguments: tuple[ms.Tensor, ...], weights: tuple[ms.Tensor, ...]
) -> str:
    """Run a forward pass again, stage by stage, and name the first stage that goes bad.

    Parameters
    ----------
    network : Transformer
        Whose output was not finite.
    arguments : tuple of Tensor
        Those of the failed call; its writes to the cache are repeated.
    weights : tuple of Tensor
        The part of ``arguments`` that `glm2.device_weights.device_weights` made.

    Returns
    -------
    layer : str
        Such as "transformer.encoder.layers.3, MLP (mlp.dense_4h_to_h.weight holds 2 NaN or infinite numbers)".
    """
    probe = _Probe(network)
    probe.set_inputs(*network.get_inputs())
    counts = probe(*arguments).asnumpy()
    bad = np.flatnonzero(counts > 0)
    if bad.size and bad[0] == 0:
        return "the embedding" + _broken(["word_embeddings.weight"], weights[:1])
    if bad.size == 0:
        names = ["final_layernorm.weight", "output_layer.weight", "output_layer.weight_scale"]
        return "the output layer" + _broken(names, weights[1:MODEL_WEIGHTS])
    layer, stage = divmod(int(bad[0]) - 1, 2)
    first = MODEL_WEIGHTS + layer * _PER_BLOCK
    part = slice(ATTENTION_WEIGHTS) if stage == 0 else slice(ATTENTION_WEIGHTS, None)
    found = _broken(BLOCK_WEIGHTS[part], weights[first : first + _PER_BLOCK][part])
    return f"transformer.encoder.layers.{layer}, {'attention' if stage == 0 else 'MLP'}{found}"


def _broken(names: Any, tensors: tuple[ms.Tensor, ...]) -> str:
    """Say which of the stage's weights are not finite themselves."""
    counts = {
        name: int(np.count_nonzero(~np.isfinite(tensor.asnumpy())))
        for name, tensor in zip(names, tensors, strict=True)
    }
    found = [f"{name} holds {n} NaN or infinite numbers" for name, n in counts.items() if n]
    return f" ({'; '.join(found)})" if found else ""
