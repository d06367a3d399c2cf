"""The loss of a whole model and its gradient with respect to every weight."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2_reference.attention import attention
from glm2_reference.checks import FloatArray
from glm2_reference.config import GLM2Config
from glm2_reference.layer_gradients import (
    attention_gradients,
    cross_entropy_gradients,
    embedding_gradients,
    linear_gradients,
    rms_norm_gradients,
    rope_gradients,
    swiglu_gradients,
)
from glm2_reference.layers import embedding, linear, rms_norm, swiglu
from glm2_reference.model import gather_qkv_rows
from glm2_reference.rope import apply_rope, rope_table

_EMBEDDING = "transformer.embedding.word_embeddings.weight"
_FINAL_NORM = "transformer.encoder.final_layernorm.weight"
_OUTPUT = "transformer.output_layer.weight"


@dataclasses.dataclass(frozen=True)
class _Saved:
    """What the backward pass of one block reads again."""

    x: FloatArray
    normed: FloatArray
    q: FloatArray
    k: FloatArray
    v: FloatArray
    o: FloatArray
    lse: FloatArray
    middle: FloatArray
    normed_middle: FloatArray
    gates: FloatArray


class _Network:
    """Forward and backward passes over one text."""

    def __init__(
        self, config: GLM2Config, weights: Mapping[str, FloatArray], length: int, prefix_len: int
    ) -> None:
        self.config, self.weights = config, weights
        self.positions = np.arange(length)
        self.prefix_len = prefix_len
        self.cos, self.sin = rope_table(
            max_position=length,
            rotary_dim=config.rotary_dim,
            base=config.rope_base,
            position_scale=config.rope_position_scale,
            dtype=weights[_EMBEDDING].dtype,
        )

    def weight(self, layer: int, name: str) -> FloatArray:
        return self.weights[f"transformer.encoder.layers.{layer}.{name}"]

    def qkv_weight(self, layer: int, kind: str) -> FloatArray:
        rows = self.weight(layer, f"self_attention.query_key_value.{kind}")
        return (
            rows
            if self.config.multi_query_attention
            else gather_qkv_rows(rows, self.config.num_heads)
        )

    def block(self, layer: int, x: FloatArray) -> tuple[FloatArray, _Saved]:
        """Run one block, (T, hidden_size) -> (T, hidden_size)."""
        c = self.config
        normed = rms_norm(x, self.weight(layer, "input_layernorm.weight"), eps=c.norm_eps)
        bias = self.qkv_weight(layer, "bias") if c.add_qkv_bias else None
        qkv = linear(normed, self.qkv_weight(layer, "weight"), bias)
        heads = qkv.reshape(len(x), -1, c.head_dim)  # (T, N + 2G, D)
        turned = apply_rope(
            heads[:, : c.num_heads + c.num_kv_heads], self.cos, self.sin, self.positions
        )
        q, k = turned[:, : c.num_heads], turned[:, c.num_heads :]
        q, k, v = (y.swapaxes(0, 1)[None] for y in (q, k, heads[:, c.num_heads + c.num_kv_heads :]))
        o, lse = attention(q, k, v, prefix_len=self.prefix_len)  # (1, N, T, D)
        flat = o[0].swapaxes(0, 1).reshape(len(x), -1)
        middle = x + linear(flat, self.weight(layer, "self_attention.dense.weight"))
        post_norm = self.weight(layer, "post_attention_layernorm.weight")
        normed_middle = rms_norm(middle, post_norm, eps=c.norm_eps)
        gates = linear(normed_middle, self.weight(layer, "mlp.dense_h_to_4h.weight"))
        out = middle + linear(swiglu(gates), self.weight(layer, "mlp.dense_4h_to_h.weight"))
        return out, _Saved(x, normed, q, k, v, o, lse, middle, normed_middle, gates)

    def block_gradients(
        self, layer: int, dout: FloatArray, saved: _Saved, grads: dict[str, FloatArray]
    ) -> FloatArray:
        """Run one block backwards; fill ``grads`` and return the gradient of its input."""
        c, start = self.config, f"transformer.encoder.layers.{layer}."
        down = self.weight(layer, "mlp.dense_4h_to_h.weight")
        dhidden, grads[f"{start}mlp.dense_4h_to_h.weight"], _ = linear_gradients(
            dout, swiglu(saved.gates), down
        )
        dgates = swiglu_gradients(dhidden, saved.gates)
        dnormed, grads[f"{start}mlp.dense_h_to_4h.weight"], _ = linear_gradients(
            dgates, saved.normed_middle, self.weight(layer, "mlp.dense_h_to_4h.weight")
        )
        post_norm = self.weight(layer, "post_attention_layernorm.weight")
        dmiddle, grads[f"{start}post_attention_layernorm.weight"] = rms_norm_gradients(
            dnormed, saved.middle, post_norm, eps=c.norm_eps
        )
        dmiddle = dmiddle + dout
        flat = saved.o[0].swapaxes(0, 1).reshape(len(dout), -1)
        dflat, grads[f"{start}self_attention.dense.weight"], _ = linear_gradients(
            dmiddle, flat, self.weight(layer, "self_attention.dense.weight")
        )
        dqkv = self._attention_gradients(dflat, saved)
        dnormed, dweight, dbias = linear_gradients(
            dqkv, saved.normed, self.qkv_weight(layer, "weight")
        )
        qkv = f"{start}self_attention.query_key_value."
        grads[f"{qkv}weight"] = self._published_rows(dweight)
        if c.add_qkv_bias:
            grads[f"{qkv}bias"] = self._published_rows(dbias)
        dx, grads[f"{start}input_layernorm.weight"] = rms_norm_gradients(
            dnormed, saved.x, self.weight(layer, "input_layernorm.weight"), eps=c.norm_eps
        )
        return dx + dmiddle

    def _attention_gradients(self, dflat: FloatArray, saved: _Saved) -> FloatArray:
        """Return the gradient of the fused projection, (T, (N + 2G) * D)."""
        c = self.config
        do = dflat.reshape(len(dflat), c.num_heads, c.head_dim).swapaxes(0, 1)[None]
        gradients = attention_gradients(
            do, saved.q, saved.k, saved.v, saved.o, saved.lse,
            scale=c.head_dim**-0.5, prefix_len=self.prefix_len,
        )  # fmt: skip
        dq, dk, dv = (x[0].swapaxes(0, 1) for x in gradients)  # (T, heads, D)
        dqk = rope_gradients(np.concatenate([dq, dk], axis=1), self.cos, self.sin, self.positions)
        dqkv: FloatArray = np.concatenate([dqk, dv], axis=1).reshape(len(dflat), -1)
        return dqkv

    def _published_rows(self, rows: FloatArray) -> FloatArray:
        """Undo `gather_qkv_rows` where the published projection interleaves q, k and v a head."""
        if self.config.multi_query_attention:
            return rows
        heads = rows.reshape(3, self.config.num_heads, -1, *rows.shape[1:])
        published: FloatArray = heads.swapaxes(0, 1).reshape(rows.shape)
        return published


def loss_and_gradients(
    config: GLM2Config,
    weights: Mapping[str, FloatArray],
    ids: npt.NDArray[np.integer[Any]],
    labels: npt.NDArray[np.integer[Any]],
    *,
    prefix_len: int = 0,
) -> tuple[float, dict[str, FloatArray]]:
    """Compute the mean cross entropy of a text and its gradient.

    Parameters
    ----------
    config : GLM2Config
    weights : mapping of str to float32 or float64 array
        By their published names, all of one dtype, in which everything is computed.
    ids : integer, (T,)
    labels : integer, (T,)
        What is to be predicted at each position; `glm2_reference.infilling.IGNORED` leaves one out.
    prefix_len : int
        Positions before it see each other both ways: part A of blank infilling.

    Returns
    -------
    loss : float
    gradients : dict of str to array
        One for each weight, by the same names and of the same shapes.

    Raises
    ------
    ValueError
        If every label is ignored, or an id is not in the vocabulary.

    References
    ----------
    The derivatives are checked by finite differences in float64 (``tests/reference``).
    """
    network = _Network(config, weights, len(ids), prefix_len)
    tied = config.tie_word_embeddings
    output = weights[_EMBEDDING if tied else _OUTPUT]
    x = embedding(ids, weights[_EMBEDDING])
    saved = []
    for layer in range(config.num_layers):
        x, kept = network.block(layer, x)
        saved.append(kept)
    normed = rms_norm(x, weights[_FINAL_NORM], eps=config.norm_eps)
    loss, dlogits = cross_entropy_gradients(linear(normed, output), labels)

    grads: dict[str, FloatArray] = {}
    dnormed, doutput, _ = linear_gradients(dlogits, normed, output)
    dx, grads[_FINAL_NORM] = rms_norm_gradients(
        dnormed, x, weights[_FINAL_NORM], eps=config.norm_eps
    )
    for layer in reversed(range(config.num_layers)):
        dx = network.block_gradients(layer, dx, saved[layer], grads)
    grads[_EMBEDDING] = embedding_gradients(dx, ids, config.vocab_size)
    if tied:
        grads[_EMBEDDING] += doutput
    else:
        grads[_OUTPUT] = doutput
    return loss, grads
