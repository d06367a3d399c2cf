"""The golden files by subject, and the cases that are no operators; names are as `golden_operators` says.

A new golden is a function that makes named arrays from a generator, and a row of `SUBJECTS`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from glm2_reference import testing
from glm2_reference.adapters import encode_prefix, lora_linear, merge_lora
from glm2_reference.config import GLM2Config
from glm2_reference.generate import generate
from glm2_reference.golden_operators import (
    DTYPES,
    Arrays,
    attention_arrays,
    case,
    flash_attention_arrays,
    rope_append_arrays,
    rope_arrays,
)
from glm2_reference.infilling import (
    SpecialIds,
    infilling_loss,
    make_example,
    restore_text,
    sample_short_spans,
)
from glm2_reference.kv_cache import KVCache
from glm2_reference.layers import embedding, linear, rms_norm, softmax, swiglu
from glm2_reference.masks import bidirectional_mask, causal_mask, encoder_decoder_masks, glm_mask
from glm2_reference.model import GLM2Model
from glm2_reference.quant import (
    dequantize_groups,
    dequantize_rows,
    pack_int4,
    quantize_groups,
    quantize_rows,
    quantize_tokens,
    split_int4_digits,
)
from glm2_reference.quant_linear import quant_linear

_MODEL = GLM2Config(
    num_layers=2, hidden_size=32, ffn_hidden_size=40, num_heads=4, num_kv_heads=2, head_dim=16,
    vocab_size=60, seq_length=128, norm_eps=1e-5, add_qkv_bias=True,
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """One golden file.

    Parameters
    ----------
    seed : int
        Of the generator that ``make`` draws from.
    made_by : str
        One sentence: the inputs, and what was computed.
    calls : tuple of str
        The functions of ``glm2_reference`` that computed the outputs, as ``module.function``.
    make : callable
        Takes the generator; returns every array by its name.
    """

    seed: int
    made_by: str
    calls: tuple[str, ...]
    make: Callable[[np.random.Generator], Arrays]


def _layers(rng: np.random.Generator) -> Arrays:
    arrays: Arrays = {}
    for name, dtype in DTYPES.items():
        x, residual = (rng.standard_normal((8, 32)).astype(dtype) for _ in range(2))
        weight = rng.standard_normal((24, 32)).astype(dtype)
        bias = rng.standard_normal(24).astype(dtype)
        norm = (1 + rng.standard_normal(32) / 8).astype(dtype)
        ids = rng.integers(0, 24, 7)
        wide = dict(zip("xwbnr", testing.upcast(x, weight, bias, norm, residual), strict=True))
        looked_up = {"ids": ids, "weight": weight}
        arrays |= case(f"embedding_{name}", looked_up, {"out": embedding(ids, weight)})
        arrays |= case(
            f"linear_{name}",
            {"x": x, "weight": weight, "bias": bias},
            {
                "out": linear(x, weight, bias),
                "golden_out": linear(wide["x"], wide["w"], wide["b"]),
            },
        )
        out, total = rms_norm(x, norm, eps=1e-5, residual=residual)
        # The sum is rounded before it is normalised, so the golden starts from the rounded sum.
        golden = rms_norm(total.astype(np.float64), wide["n"], eps=1e-5)
        arrays |= case(
            f"rms_norm_{name}",
            {"x": x, "weight": norm, "eps": 1e-5, "residual": residual},
            {
                "out": rms_norm(x, norm, eps=1e-5),
                "golden_out": rms_norm(wide["x"], wide["n"], eps=1e-5),
                "out_of_total": out,
                "golden_out_of_total": golden,
                "total": total,
            },
        )
        for function in (swiglu, softmax):
            outputs = {"out": function(x), "golden_out": function(wide["x"])}
            arrays |= case(f"{function.__name__}_{name}", {"x": x}, outputs)
    return arrays


def _quantisation(rng: np.random.Generator) -> Arrays:
    arrays: Arrays = {}
    x = rng.standard_normal((9, 64)).astype(np.float32)
    bias = rng.standard_normal(16).astype(np.float32)
    weight = rng.standard_normal((16, 64)).astype(np.float16)
    x[4], weight[5] = 0, 0  # a token and a row of zeros, whose scales are 0
    tokens, token_scale = quantize_tokens(x)
    split_tokens, split_scale = quantize_tokens(x, largest=119)
    high, low = split_int4_digits(split_tokens)
    outputs = {"quantized": tokens, "scale": token_scale, "quantized_119": split_tokens}
    outputs |= {"scale_119": split_scale, "high": high, "low": low}
    arrays |= case("tokens", {"x": x}, outputs)
    for name in ("int8_rows", "int4_rows", "int4_groups"):
        by_row = name.endswith("rows")
        quantized, scale = (
            quantize_rows(weight, bits=8 if name == "int8_rows" else 4)
            if by_row
            else quantize_groups(weight, group_size=16)
        )
        dequantize = dequantize_rows if by_row else dequantize_groups
        outputs = {"quantized": quantized, "scale": scale}
        outputs["dequantized"] = dequantize(quantized, scale)
        if name != "int8_rows":
            outputs["packed_high_first"] = pack_int4(quantized, order="high_first")
            outputs["packed_low_first"] = pack_int4(quantized, order="low_first")
        columns_per_scale = quantized.size // scale.size
        scales = np.repeat(scale.astype(np.float64).reshape(len(scale), -1), columns_per_scale, 1)
        wide = {16: x.astype(np.float64), 8: tokens * token_scale.astype(np.float64)[:, None]}
        for bits, golden_x in wide.items():
            outputs[f"out_{bits}"] = quant_linear(x, quantized, scale, bias, activation_bits=bits)
            outputs[f"golden_out_{bits}"] = linear(golden_x, quantized * scales, bias)
        arrays |= case(name, {"x": x, "weight": weight, "bias": bias}, outputs)
    return arrays


def _infilling(rng: np.random.Generator) -> Arrays:
    text = rng.integers(0, 30, 24).astype(np.int32)
    spans = sample_short_spans(rng, len(text), ratio=0.3)
    special = SpecialIds(blank=37, sop=38, eop=39)
    example = make_example(text.tolist(), spans, special, rng=rng)
    logits = rng.standard_normal((len(example.ids), 40)).astype(np.float32)
    bounds = [(span.start, span.stop) for span in spans]
    inputs = {"text": text, "spans": np.array(bounds, np.int32), "blank": special.blank}
    inputs |= {"sop": special.sop, "eop": special.eop, "order": example.order, "logits": logits}
    outputs = {
        "ids": example.ids,
        "labels": example.labels,
        "len_a": example.len_a,
        "text_positions": example.text_positions,
        "span_positions": example.span_positions,
        "rotary_positions": example.rotary_positions,
        "mask": example.mask,
        "restored": np.array(restore_text(example, special), np.int32),
        "golden_loss": infilling_loss(logits, example.labels),
    }
    masks = {
        "causal": causal_mask(9),
        "bidirectional": bidirectional_mask(9),
        "encoder_decoder": encoder_decoder_masks(5, 4).joined(),
        "glm": glm_mask(5, 4),
    }
    return case("example", inputs, outputs) | case("masks", {"len_a": 5, "len_b": 4}, masks)


def _adapters(rng: np.random.Generator) -> Arrays:
    arrays: Arrays = {}
    for name, dtype in DTYPES.items():
        shapes = {"x": (6, 24), "weight": (16, 24), "down": (4, 24), "up": (16, 4)}
        lora = {key: rng.standard_normal(shape).astype(dtype) for key, shape in shapes.items()}
        wide = {key: array.astype(np.float64) for key, array in lora.items()}
        weights, wide_weights = ({k: d[k] for k in ("weight", "down", "up")} for d in (lora, wide))
        outputs = {
            "out": lora_linear(**lora, alpha=8.0),
            "golden_out": lora_linear(**wide, alpha=8.0),
            "merged": merge_lora(**weights, alpha=8.0),
            "golden_merged": merge_lora(**wide_weights, alpha=8.0),
        }
        arrays |= case(f"lora_{name}", lora | {"alpha": 8.0}, outputs)
    config = dataclasses.replace(_MODEL, hidden_size=16, num_kv_heads=1)
    kv_size, hidden = 2 * config.num_layers * config.head_dim, config.hidden_size
    tensors = {"embedding.weight": rng.standard_normal((5, kv_size)).astype(np.float32)}
    projection = {
        "trans.0.weight": (hidden, kv_size), "trans.0.bias": (hidden,),
        "trans.2.weight": (kv_size, hidden), "trans.2.bias": (kv_size,),
    }  # fmt: skip
    for name, added in {"prefix": {}, "projected_prefix": projection}.items():
        for key, added_shape in added.items():
            tensors[key] = (rng.standard_normal(added_shape) / 8).astype(np.float32)
        golden = encode_prefix({k: x.astype(np.float64) for k, x in tensors.items()}, config)
        outputs = {"prefix": encode_prefix(tensors, config), "golden_prefix": golden}
        arrays |= case(name, tensors | {"config": json.dumps(config.to_published())}, outputs)
    return arrays


def _model(rng: np.random.Generator) -> Arrays:
    weights = testing.random_weights(_MODEL, rng)
    ids = rng.integers(0, _MODEL.vocab_size, 17).astype(np.int32)
    decode_ids = rng.integers(0, _MODEL.vocab_size, 2).astype(np.int32)
    outputs: dict[str, Any] = {}
    for dtype in (np.dtype(np.float32), np.dtype(np.float64)):
        prefix = "golden_" if dtype == np.float64 else ""
        model = GLM2Model(_MODEL, weights, dtype)
        cache = KVCache.new(_MODEL, max_tokens=len(ids) + 2, page_size=16, dtype=dtype)
        outputs[f"{prefix}prefill_logits"] = model.forward(ids, cache=cache)
        steps = [model.forward(step[None], cache=cache) for step in decode_ids]
        outputs[f"{prefix}decode_logits"] = np.concatenate(steps)
        greedy = generate(model, ids.tolist(), max_new_tokens=12)
        outputs[f"{prefix}greedy_ids"] = np.array(greedy, np.int32)
    inputs = {"ids": ids, "decode_ids": decode_ids, "config": json.dumps(_MODEL.to_published())}
    return case("weights", weights, {}) | case("model", inputs, outputs)


SUBJECTS = {
    "layers": Subject(
        seed=101,
        made_by="Each layer on standard normal rows, in float16 and in float32; the layers compute in "
        "float32 and round once.",
        calls=("layers.embedding", "layers.linear", "layers.rms_norm", "layers.swiglu",
               "layers.softmax"),
        make=_layers,
    ),
    "rope": Subject(
        seed=102,
        made_by="Tables of the base model, of a scaled base and of scaled positions, and standard "
        "normal heads rotated by them.",
        calls=("rope.rope_table", "rope.apply_rope"),
        make=rope_arrays,
    ),
    "attention": Subject(
        seed=103,
        made_by="Dense attention on float16 standard normal q, k, v with 4, 2 and 1 K/V heads under "
        "each mask of `options`.",
        calls=("attention.attention",),
        make=attention_arrays,
    ),
    "flash_attention": Subject(
        seed=104,
        made_by="Tiled attention of a ragged batch over paged caches, standard normal but for v's mean "
        "of 4; one sequence has no queries, one no keys, and slots without a token hold NaN.",
        calls=("flash_attention.flash_attention", "testing.ragged_attention"),
        make=flash_attention_arrays,
    ),
    "rope_append": Subject(
        seed=105,
        made_by="A standard normal fused projection, rotated and appended to paged caches that are "
        "full of other numbers.",
        calls=("kv_cache.rope_append", "rope.apply_rope"),
        make=rope_append_arrays,
    ),
    "quantisation": Subject(
        seed=106,
        made_by="Standard normal activations and float16 weights, with a token and a row of zeros, "
        "quantised each way and multiplied.",
        calls=("quant.quantize_tokens", "quant.split_int4_digits", "quant.quantize_rows",
               "quant.dequantize_rows", "quant.quantize_groups", "quant.dequantize_groups",
               "quant.pack_int4", "quant_linear.quant_linear"),
        make=_quantisation,
    ),
    "infilling": Subject(
        seed=107,
        made_by="Short spans cut out of random ids and laid behind them in shuffled order, and the "
        "masks of the four frameworks.",
        calls=("infilling.make_example", "infilling.restore_text", "infilling.infilling_loss",
               "masks.causal_mask", "masks.bidirectional_mask", "masks.encoder_decoder_masks",
               "masks.glm_mask"),
        make=_infilling,
    ),
    "adapters": Subject(
        seed=108,
        made_by="LoRA of rank 4 beside a standard normal weight, and a P-tuning v2 prefix without and "
        "with its projection.",
        calls=("adapters.lora_linear", "adapters.merge_lora", "adapters.encode_prefix"),
        make=_adapters,
    ),
    "model": Subject(
        seed=109,
        made_by="A two-layer model with random weights: a prefill and two decodes on one cache, and a "
        "greedy continuation of the prefill's ids.",
        calls=("testing.random_weights", "model.GLM2Model.forward", "generate.generate"),
        make=_model,
    ),
}  # fmt: skip
