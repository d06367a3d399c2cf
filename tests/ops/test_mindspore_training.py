"""A model of ChatGLM's shape that trains in MindSpore on the operators' cells.

Loss, the gradient of every weight and twenty steps of training, against the float64 reference.
"""

import numpy as np
import pytest

ms = pytest.importorskip("mindspore", reason="needs MindSpore")

from mindspore import Parameter, Tensor, nn, ops

from glm2_ops.mindspore import FlashAttentionVarlen, RmsNorm, RmsNormResidual, Swiglu, dynamic
from glm2_reference.backward import loss_and_gradients
from glm2_reference.config import GLM2Config
from glm2_reference.infilling import IGNORED
from glm2_reference.rope import rope_table
from glm2_reference.testing import cu_seqlens, random_weights

pytestmark = pytest.mark.mindspore

CONFIG = GLM2Config(
    num_layers=2,
    hidden_size=96,
    ffn_hidden_size=128,
    num_heads=6,
    num_kv_heads=2,
    head_dim=32,
    vocab_size=120,
    seq_length=64,
    norm_eps=1e-5,
    add_qkv_bias=True,
)
# Attributes by which the cells know the weights, and their published names.
BLOCK_WEIGHTS = {
    "input_norm": "input_layernorm.weight",
    "qkv_weight": "self_attention.query_key_value.weight",
    "qkv_bias": "self_attention.query_key_value.bias",
    "dense": "self_attention.dense.weight",
    "post_norm": "post_attention_layernorm.weight",
    "h_to_4h": "mlp.dense_h_to_4h.weight",
    "h_4h_to_h": "mlp.dense_4h_to_h.weight",
}
OTHER_WEIGHTS = {
    "embedding": "transformer.embedding.word_embeddings.weight",
    "final_norm": "transformer.encoder.final_layernorm.weight",
    "output": "transformer.output_layer.weight",
}
LENGTHS, PREFIXES = [33, 1, 20], [9, 0, 0]  # three texts, the first with a bidirectional part


@pytest.fixture(params=["graph", "pynative"])
def mode(request):
    ms.set_context(mode=ms.GRAPH_MODE if request.param == "graph" else ms.PYNATIVE_MODE)
    yield request.param
    ms.set_context(mode=ms.GRAPH_MODE)


class Block(nn.Cell):
    """Attention and MLP; additions to the residual wait for the norm that follows them."""

    def __init__(self, config, weights, layer):
        super().__init__()
        self.sizes = (config.num_heads, config.num_heads + config.num_kv_heads)
        self.head_dim, self.rotary_dim = config.head_dim, config.rotary_dim
        self.first_norm = RmsNorm(eps=config.norm_eps)
        self.norm = RmsNormResidual(eps=config.norm_eps)
        self.attention = FlashAttentionVarlen(scale=config.head_dim**-0.5)
        self.swiglu = Swiglu()
        self.linear = ops.MatMul(transpose_b=True)
        self.is_first = layer == 0

        for attribute, name in BLOCK_WEIGHTS.items():
            array = weights[f"transformer.encoder.layers.{layer}.{name}"]
            setattr(self, attribute, Parameter(Tensor(array)))

    def rotate(self, x, cos, sin):
        """Turn pairs of the first rotary_dim dims of x (T, H, D); cos and sin (T, 1, R / 2)."""
        turned = ops.reshape(x[:, :, : self.rotary_dim], (-1, x.shape[1], self.rotary_dim // 2, 2))
        even, odd = turned[:, :, :, 0], turned[:, :, :, 1]
        pairs = ops.stack((even * cos - odd * sin, odd * cos + even * sin), 3)
        flat = ops.reshape(pairs, (-1, x.shape[1], self.rotary_dim))
        return ops.concat((flat, x[:, :, self.rotary_dim :]), 2)

    def construct(self, x, residual, cos, sin, offsets, prefix_len):
        """Return what is to be added to the second result, both (T, hidden_size)."""
        if self.is_first:
            normed = self.first_norm(x, self.input_norm)
            total = x
        else:
            normed, total = self.norm(x, self.input_norm, residual)
        qkv = self.linear(normed, self.qkv_weight) + self.qkv_bias
        heads = ops.reshape(qkv, (-1, self.qkv_weight.shape[0] // self.head_dim, self.head_dim))
        n, n_and_g = self.sizes
        q = self.rotate(heads[:, :n], cos, sin)
        k = self.rotate(heads[:, n:n_and_g], cos, sin)
        o = self.attention(q, k, heads[:, n_and_g:], offsets, offsets, prefix_len)
        attended = self.linear(ops.reshape(o, (-1, n * self.head_dim)), self.dense)
        normed, total = self.norm(attended, self.post_norm, total)
        gated = self.swiglu(self.linear(normed, self.h_to_4h))
        return self.linear(gated, self.h_4h_to_h), total


class Loss(nn.Cell):
    """Mean cross entropy over the labels that are not IGNORED."""

    def __init__(self, config, weights):
        super().__init__()
        layers = range(config.num_layers)
        self.blocks = nn.CellList([Block(config, weights, layer) for layer in layers])
        self.norm = RmsNormResidual(eps=config.norm_eps)
        self.linear = ops.MatMul(transpose_b=True)
        for attribute, name in OTHER_WEIGHTS.items():
            setattr(self, attribute, Parameter(Tensor(weights[name])))

    def construct(self, ids, labels, cos, sin, offsets, prefix_len):
        x = ops.gather(self.embedding, ids, 0)
        residual = x
        for block in self.blocks:
            x, residual = block(x, residual, cos, sin, offsets, prefix_len)
        normed, _ = self.norm(x, self.final_norm, residual)
        # MindSpore's float32 exp is good to 4e-6 alone, and would hide what the cells contribute.
        logits = ops.cast(self.linear(normed, self.output), ms.float64)
        log_probs = logits - ops.log(ops.sum(ops.exp(logits), 1, True))
        counted = ops.cast(labels >= 0, ms.float64)
        picked = ops.gather_elements(log_probs, 1, ops.reshape(ops.maximum(labels, 0), (-1, 1)))
        return -ops.sum(ops.reshape(picked, (-1,)) * counted) / ops.sum(counted)


def published_name(parameter):
    """Return the published name of a parameter such as blocks.0.dense."""
    *layer, attribute = parameter.name.removeprefix("blocks.").split(".")
    if not layer:
        return OTHER_WEIGHTS[attribute]
    return f"transformer.encoder.layers.{layer[0]}.{BLOCK_WEIGHTS[attribute]}"


class Gradients(nn.Cell):
    def __init__(self, loss):
        super().__init__()
        self.step = ms.value_and_grad(loss, None, loss.trainable_params())

    def construct(self, *batch):
        return self.step(*batch)


class TrainStep(nn.Cell):
    def __init__(self, loss, learning_rate):
        super().__init__()
        self.step = ms.value_and_grad(loss, None, loss.trainable_params())
        self.optimizer = nn.SGD(loss.trainable_params(), learning_rate)

    def construct(self, *batch):
        loss, grads = self.step(*batch)
        return ops.depend(loss, self.optimizer(grads))


def draw_texts(rng, lengths):
    """Return ids and labels of each text; the first label of each counts for nothing."""
    texts = []
    for length in lengths:
        ids, labels = (rng.integers(0, CONFIG.vocab_size, length, dtype=np.int32) for _ in range(2))
        if length > 1:
            labels[0] = IGNORED
        texts.append((ids, labels))
    return texts


def batch_of(texts, prefixes):
    """Return the arguments of `Loss`: all texts in one ragged batch."""
    positions = np.concatenate([np.arange(len(ids)) for ids, _ in texts])
    tables = rope_table(
        max_position=CONFIG.seq_length, rotary_dim=CONFIG.rotary_dim, base=CONFIG.rope_base
    )
    cos, sin = (table[positions][:, None].astype(np.float32) for table in tables)
    ids, labels = (np.concatenate(part) for part in zip(*texts, strict=True))
    offsets = cu_seqlens([len(ids) for ids, _ in texts])
    return [Tensor(x) for x in (ids, labels, cos, sin, offsets, np.array(prefixes, np.int32))]


def reference(weights, texts, prefixes):
    """Return loss and gradients of the batch: those of each text, weighed by its labels."""
    counts = np.array([np.sum(labels != IGNORED) for _, labels in texts])
    total, sums = 0.0, {name: np.zeros_like(weight) for name, weight in weights.items()}
    for (ids, labels), prefix_len, share in zip(
        texts, prefixes, counts / counts.sum(), strict=True
    ):
        loss, grads = loss_and_gradients(CONFIG, weights, ids, labels, prefix_len=prefix_len)
        total += share * loss
        for name, grad in grads.items():
            sums[name] += (share * grad).astype(grad.dtype)
    return total, sums


def test_gradient_of_every_weight(rng, mode):  # noqa: ARG001
    """Each is as near to float64 as the reference in float32 is, by the norm of a whole tensor."""
    weights = random_weights(CONFIG, rng)
    texts = draw_texts(rng, LENGTHS)
    loss = Loss(CONFIG, weights)
    assert {published_name(p) for p in loss.trainable_params()} == set(weights)
    value, grads = Gradients(loss)(*batch_of(texts, PREFIXES))
    exact = {name: weight.astype(np.float64) for name, weight in weights.items()}
    golden_loss, golden = reference(exact, texts, PREFIXES)
    _, plain = reference(weights, texts, PREFIXES)
    assert float(value) == pytest.approx(golden_loss, rel=1e-6)
    for parameter, grad in zip(loss.trainable_params(), grads, strict=True):
        name, got = published_name(parameter), grad.asnumpy()
        error, plain_error = (np.linalg.norm(x - golden[name]) for x in (got, plain[name]))
        assert error <= 1.5 * plain_error, name


def test_twenty_steps_lower_the_loss_as_the_reference_does(rng, compilations):
    """One graph for batches of three sizes; every loss is that of float64 training."""
    weights = random_weights(CONFIG, rng)
    batches = [
        (draw_texts(rng, [12, 7]), [0, 3]),
        (draw_texts(rng, [25]), [0]),
        (draw_texts(rng, [3, 9, 5]), [0, 0, 2]),
    ]
    step = TrainStep(Loss(CONFIG, weights), 0.3)
    index, half = dynamic(ms.int32, None), dynamic(ms.float32, None, 1, CONFIG.rotary_dim // 2)
    step.set_inputs(index, index, half, half, index, index)
    exact = {name: weight.astype(np.float64) for name, weight in weights.items()}
    losses = []
    for i in range(20):
        texts, prefixes = batches[i % len(batches)]
        losses.append(float(step(*batch_of(texts, prefixes))))
        want, grads = reference(exact, texts, prefixes)
        assert losses[-1] == pytest.approx(want, rel=1e-4)
        for name, grad in grads.items():
            exact[name] -= 0.3 * grad
    assert compilations == ["TrainStep"]
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
