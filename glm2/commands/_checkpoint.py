"""What ``glm2 doctor MODEL`` finds out about a checkpoint, before it is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2.checkpoint_files import has_weights
from glm2.commands._environment import Check, guarded
from glm2.config import CheckpointConfig, read_checkpoint_config
from glm2.memory import available_bytes
from glm2.packed_format import PackedFormat
from glm2.quantized_checkpoint import load_packed, load_published_quantized
from glm2.weights import load_weights
from glm2_reference.config import published_tensor_shapes


def checkpoint_checks(model: str) -> list[Check]:
    """Look at the folder, its config, tensors and tokenizer, and at the memory that they need."""
    found: list[CheckpointConfig] = []

    def recognise() -> Check:
        from glm2.hub import find_checkpoint

        # Of what the hub has, the weights are looked at only if they have been fetched already.
        found.append(read_checkpoint_config(find_checkpoint(model, with_weights=False)))
        return _family(found[0])

    family = guarded("model", recognise)
    if not found:
        return [family]
    checkpoint = found[0]
    if not Path(model).is_dir() and not has_weights(checkpoint.folder):
        later = "not fetched yet: glm2 chat or from_pretrained does it"
        return [
            family,
            guarded("context", lambda: _context(checkpoint)),
            guarded("tokenizer", lambda: _tokenizer(checkpoint)),
            Check("weights", "info", later),
            guarded("fits", lambda: _fits(checkpoint, _float16_weights(checkpoint))),
        ]
    return [
        family,
        guarded("context", lambda: _context(checkpoint)),
        guarded("tokenizer", lambda: _tokenizer(checkpoint)),
        guarded("weights", lambda: _weights(checkpoint)),
        guarded("prefix", lambda: _prefix(checkpoint)),
        guarded("fits", lambda: _fits(checkpoint, _mapped_floats(checkpoint))),
    ]


def _family(checkpoint: CheckpointConfig) -> Check:
    """Tell what it is."""
    config = checkpoint.config
    parameters = sum(math.prod(shape) for shape in published_tensor_shapes(config).values())
    detail = (
        f"{_printable(checkpoint.name)}: {checkpoint.chat_format} prompts, {parameters / 1e9:.2f} billion "
        f"parameters, {config.num_layers} layers, {config.num_heads} heads on "
        f"{config.num_kv_heads} K/V heads"
    )
    return Check("model", "ok", detail)


def _printable(text: str) -> str:
    """Show control characters as escapes: a name must not write lines of this report."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200])


def _context(checkpoint: CheckpointConfig) -> Check:
    """Tell how long a conversation may be, and how its positions are scaled."""
    config = checkpoint.config
    scaled = {
        "base": f"rotary base 10000 x {config.rope_ratio:g}",
        "position": f"positions / {config.rope_ratio:g}",
    }[config.rope_scaling]
    scaling = "" if config.rope_ratio == 1 else f", {scaled}"
    detail = f"{checkpoint.max_length} tokens in chat, seq_length {config.seq_length}{scaling}"
    return Check("context", "info", detail)


def _tokenizer(checkpoint: CheckpointConfig) -> Check:
    """Load the tokenizer and compare it with the embedding."""
    from glm2.prompt import stop_ids
    from glm2.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(checkpoint.folder)
    stop_ids(tokenizer, checkpoint.chat_format)
    rows = checkpoint.config.vocab_size
    if tokenizer.vocab_size > rows:
        detail = (
            f"it has {tokenizer.vocab_size} ids and the embedding {rows} rows; prompts with the "
            "higher ids will be refused. Fetch the tokenizer of this checkpoint"
        )
        return Check("tokenizer", "fail", detail)
    return Check("tokenizer", "ok", f"{tokenizer.vocab_size} ids, embedding of {rows} rows")


def _weights(checkpoint: CheckpointConfig) -> Check:
    """Map the files and check that every tensor is there."""
    config, packed, bits = checkpoint.config, checkpoint.packed, checkpoint.quantization_bit
    if packed is not None:
        weights = load_packed(checkpoint.folder, config, packed)
        kind = f"packed {packed.weights}, output layer {packed.head}, "
        kind += f"activations of {packed.activation_bits} bits"
    elif bits is not None:
        weights = load_published_quantized(checkpoint.folder, config, bits)
        kind = f"published INT{bits}, {_packed_copy(checkpoint)}"
    else:
        weights = load_weights(checkpoint.folder, config)
        kind = ", ".join(sorted({array.dtype.name for array in weights.values()}))
    num_bytes = sum(array.nbytes for array in weights.values())
    return Check("weights", "ok", f"{len(weights)} tensors, {kind}, {num_bytes / 1e9:.2f} GB")


def _packed_copy(checkpoint: CheckpointConfig) -> str:
    """Tell where the packed copy of a published INT8 or INT4 checkpoint is, or will be."""
    from glm2.packed_cache import packed_copy_folder

    folder = packed_copy_folder(checkpoint)
    return f"packed in {folder}" if folder.is_dir() else f"to be packed once into {folder}"


def _prefix(checkpoint: CheckpointConfig) -> Check:
    """Look for a P-tuning v2 prefix encoder."""
    from glm2.prefix_encoder import encode_prefix, has_prefix_encoder, load_prefix_encoder

    if checkpoint.pre_seq_len is None and not has_prefix_encoder(checkpoint.folder):
        return Check("prefix", "info", "no P-tuning v2 prefix")
    tensors = load_prefix_encoder(checkpoint.folder, checkpoint.config)
    prefix = encode_prefix(tensors, checkpoint.config)
    return Check("prefix", "ok", f"P-tuning v2 prefix of {prefix.shape[2]} tokens")


def _float16_weights(checkpoint: CheckpointConfig) -> dict[str, npt.NDArray[Any]]:
    """Stand in for weights that are not here: arrays of their shapes, of no size in memory."""
    shapes = published_tensor_shapes(checkpoint.config)
    return {name: np.broadcast_to(np.float16(0), shape) for name, shape in shapes.items()}


def _fits(checkpoint: CheckpointConfig, weights: Mapping[str, npt.NDArray[Any]] | None) -> Check:
    """Compare what a full conversation needs with what the machine has."""
    from glm2.memory_needs import memory_needs, packed_bytes

    needs = memory_needs(checkpoint, weights)
    parts = (
        f"needs about {needs.total / 1e9:.1f} GB: {needs.weights / 1e9:.2f} of {needs.weights_kind}, "
        f"{needs.cache / 1e9:.2f} of K/V cache at {checkpoint.max_length} tokens "
        f"({needs.cache_per_token} bytes a token), {needs.activations / 1e9:.2f} of activations, "
        f"{needs.process / 1e9:.1f} of everything else"
    )
    available = available_bytes()
    if available is None:
        return Check("fits", "info", f"{parts}; this system does not tell what is free")
    if needs.total <= available:
        return Check("fits", "ok", f"{parts}; {available / 1e9:.1f} GB are free")
    remedy = ""
    if weights is not None:
        int4 = PackedFormat(weights="int4", head="int8", activation_bits=8)
        smaller = needs.total - needs.weights + packed_bytes(checkpoint.config, int4)
        remedy = f"; glm2 convert --quantize int4 makes one that needs {smaller / 1e9:.1f} GB"
    detail = f"{parts}; {available / 1e9:.1f} GB are free: it does not fit{remedy}"
    return Check("fits", "fail", detail)


def _mapped_floats(checkpoint: CheckpointConfig) -> Mapping[str, npt.NDArray[Any]] | None:
    """Map the weights of a float checkpoint; of others their format says enough."""
    if checkpoint.packed is not None or checkpoint.quantization_bit is not None:
        return None
    return load_weights(checkpoint.folder, checkpoint.config)
