"""What a checkpoint will take of the machine's memory, before it is opened."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from glm2.config import CheckpointConfig
from glm2.generate import PREFILL_CHUNK
from glm2.packed_cache import cached_format
from glm2.packed_format import PackedFormat
from glm2.quantized_checkpoint import packed_specs
from glm2.safetensors_file import AnyArray
from glm2.weights import EMBEDDING
from glm2_reference.config import GLM2Config

_PROCESS_BYTES = 500_000_000  # Python, MindSpore and its thread pools


@dataclasses.dataclass(frozen=True)
class MemoryNeeds:
    """Bytes that a model takes once a conversation has filled its context.

    Parameters
    ----------
    weights : int
        Resident weights: mapped pages that every token reads, or copies.
    weights_kind : str
        What they are, in words.
    cache : int
        K/V cache of one conversation of the greatest length.
    cache_per_token : int
    activations : int
        Of one prefill chunk.
    process : int
        Everything else.
    """

    weights: int
    weights_kind: str
    cache: int
    cache_per_token: int
    activations: int
    process: int = _PROCESS_BYTES

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.activations + self.process


def memory_needs(
    checkpoint: CheckpointConfig, weights: Mapping[str, AnyArray] | None
) -> MemoryNeeds:
    """Add up what opening a checkpoint and filling its context takes.

    Parameters
    ----------
    checkpoint : CheckpointConfig
    weights : mapping of str to array, or None
        Of a float checkpoint, mapped or stand-ins of their dtypes and shapes; not needed otherwise.
    """
    config = checkpoint.config
    packed = checkpoint.packed
    if checkpoint.quantization_bit is not None:
        packed = cached_format(checkpoint.quantization_bit)
    if packed is None:
        assert weights is not None
        resident, kind = _widened_bytes(config, weights), "weights in float32"
    else:
        resident = packed_bytes(config, packed)
        kind = f"{packed.weights} weights, mapped (output layer {packed.head})"
    per_token = 2 * 2 * config.num_layers * config.num_kv_heads * config.head_dim  # float16
    return MemoryNeeds(
        weights=resident,
        weights_kind=kind,
        cache=per_token * checkpoint.max_length,
        cache_per_token=per_token,
        activations=_activation_bytes(config),
    )


def packed_bytes(config: GLM2Config, packed: PackedFormat) -> int:
    """Return the bytes of a packed model that every token reads: all but the embedding's other rows."""
    return sum(
        spec.num_bytes for name, spec in packed_specs(config, packed).items() if name != EMBEDDING
    )


def _widened_bytes(config: GLM2Config, weights: Mapping[str, AnyArray]) -> int:
    """Return the bytes of float weights as float32, copies and mapped ones."""
    from glm2.device_weights import copied_bytes

    mapped = sum(array.nbytes for array in weights.values() if array.dtype == np.float32)
    return mapped + copied_bytes(config, weights)


def _activation_bytes(config: GLM2Config) -> int:
    """Return what the widest point of a prefill chunk holds, in float32: the MLP's two products."""
    widths = 3 * config.hidden_size + 3 * config.ffn_hidden_size
    return 4 * (PREFILL_CHUNK * widths + config.vocab_size)
