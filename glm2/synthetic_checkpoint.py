"""Checkpoints of random weights: true shapes and published names, for benchmarks and tests."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from glm2.checkpoint_files import INDEX_FILE
from glm2.config import read_checkpoint_config
from glm2.partial_folder import partial_folder
from glm2.safetensors_file import AnyArray
from glm2.safetensors_writer import TensorSpec, write_json, write_safetensors
from glm2.weights import EMBEDDING, plan_shards, published_fields, shard_index
from glm2_reference.config import CHATGLM2_6B, GLM2Config, published_tensor_shapes

Report = Callable[[str, int, int], None]

LIKE = {
    "chatglm2-6b": CHATGLM2_6B,
    "chatglm3-6b": dataclasses.replace(CHATGLM2_6B, seq_length=8192),
    "tiny": GLM2Config(
        num_layers=2,
        hidden_size=128,
        ffn_hidden_size=192,
        num_heads=4,
        num_kv_heads=2,
        head_dim=32,
        vocab_size=512,
        seq_length=2048,
        norm_eps=1e-5,
        add_qkv_bias=True,
    ),
}
_MAX_SHARD_BYTES = 2_000_000_000
_BLOCK_ELEMS = 1 << 22  # part of what a seed means
_SILU_MEAN_SQUARE = 0.3557  # of silu(z) for z of unit normal distribution


def make_checkpoint(
    folder: str | Path,
    config: GLM2Config,
    *,
    seed: int,
    report: Report,
    dtype: str = "float16",
    fields: dict[str, Any] | None = None,
    copied_files: Iterable[Path] = (),
    max_shard_bytes: int = _MAX_SHARD_BYTES,
) -> None:
    """Write a checkpoint of random weights in the published layout.

    Weights are normal, scaled so that activations stay near unit size at every depth: norms are
    near 1; a matrix divides by ``sqrt(in_features)``, which keeps the size of what it multiplies;
    the two whose results are added to the residual divide by ``sqrt(2 * num_layers)`` besides, so
    that all blocks together add about as much as the embedding brings; ``dense_4h_to_h`` makes up
    for what the SiLU takes. The same numbers come for a seed at any shard size and thread count.

    Parameters
    ----------
    folder : str or Path
        Made whole or not at all; an interrupted run goes on where it stopped.
    config : GLM2Config
        Dimensions.
    seed : int
    report : callable
        ``report(stage, done, total)`` in bytes is called as the work goes on.
    dtype : "float16", "float32" or "bfloat16"
    fields : dict, optional
        More keys for config.json, such as ``_name_or_path``.
    copied_files : iterable of Path
        More files for the folder, such as a tokenizer.model.
    max_shard_bytes : int
        A shard holds at most so many bytes of tensors, unless one tensor alone is larger. A block
        of 4 million numbers is in memory at a time and thread, whatever the size of the model.

    Raises
    ------
    FileExistsError
        If the folder holds files, or an interrupted run had other settings.
    OSError
        If the disk lacks room.
    """
    specs = {
        name: TensorSpec(shape, dtype) for name, shape in published_tensor_shapes(config).items()
    }
    shards = plan_shards({name: spec.num_bytes for name, spec in specs.items()}, max_shard_bytes)
    numbers = {name: index for index, name in enumerate(specs)}
    written, total = 0, sum(spec.num_bytes for spec in specs.values())
    job = {"make": "random", "seed": seed, "config": config.to_published(), "dtype": dtype,
           "max_shard_bytes": max_shard_bytes}  # fmt: skip

    def blocks(name: str) -> Iterator[AnyArray]:
        nonlocal written
        for block in _random_tensor(name, specs[name], config, (seed, numbers[name])):
            yield block
            written += block.nbytes
            report("Writing random weights", written, total)

    with partial_folder(Path(folder), job) as partial:
        partial.check_room(total)
        for file_name, names in shards.items():
            chosen = {name: specs[name] for name in names}
            if partial.has(file_name):
                written += sum(spec.num_bytes for spec in chosen.values())
                report("Writing random weights", written, total)
                continue
            partial.add(
                file_name,
                functools.partial(write_safetensors, specs=chosen, blocks=blocks),
            )
        if len(shards) > 1:
            write_json(partial.path / INDEX_FILE, shard_index(specs, shards))
        for path in copied_files:
            partial.copy(path)
        described = {**published_fields(config), "torch_dtype": dtype, "eos_token_id": 2,
                     "pad_token_id": 0, **(fields or {})}  # fmt: skip
        write_json(partial.path / "config.json", described)


def config_like(name: str) -> tuple[GLM2Config, dict[str, Any]]:
    """Return the dimensions of a known model or of a folder's config.json, and more keys for a copy.

    Raises
    ------
    ValueError
        If it is neither.
    """
    if name in LIKE:
        family = {} if name == "tiny" else {"_name_or_path": f"THUDM/{name}"}
        return LIKE[name], family
    if not (Path(name) / "config.json").is_file():
        msg = (
            f"--like is {name!r}; expected {', '.join(LIKE)}, or a folder with the config.json of a "
            "ChatGLM2 or ChatGLM3 model"
        )
        raise ValueError(msg)
    checkpoint = read_checkpoint_config(name)
    fields = {"_name_or_path": checkpoint.name, "chat_format": checkpoint.chat_format}
    return checkpoint.config, fields


def _random_tensor(
    name: str, spec: TensorSpec, config: GLM2Config, seed: tuple[int, int]
) -> Iterator[AnyArray]:
    """Yield a tensor's numbers block by block; each block has a generator of its own."""
    center, deviation = _distribution(name, spec, config)
    num_elems = int(np.prod(spec.shape))
    dtype = np.dtype(spec.dtype)

    def block(index: int) -> AnyArray:
        size = min(_BLOCK_ELEMS, num_elems - index * _BLOCK_ELEMS)
        x = np.random.default_rng((*seed, index)).standard_normal(size, np.float32)
        x *= np.float32(deviation)
        x += np.float32(center)
        return x.astype(dtype)

    num_blocks = -(-num_elems // _BLOCK_ELEMS)
    num_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(num_threads) as pool:
        for first in range(0, num_blocks, num_threads):  # no more than these are held
            yield from pool.map(block, range(first, min(first + num_threads, num_blocks)))


def _distribution(name: str, spec: TensorSpec, config: GLM2Config) -> tuple[float, float]:
    """Return mean and standard deviation of a tensor; see `make_checkpoint`."""
    if name.endswith("layernorm.weight"):
        return 1.0, 0.1
    if name.endswith("bias"):
        return 0.0, 0.1
    if name == EMBEDDING and not config.tie_word_embeddings:
        return 0.0, 1.0
    deviation = spec.shape[1] ** -0.5
    if name.endswith(("self_attention.dense.weight", "mlp.dense_4h_to_h.weight")):
        deviation /= (2 * config.num_layers) ** 0.5
    if name.endswith("mlp.dense_4h_to_h.weight"):
        deviation /= _SILU_MEAN_SQUARE**0.5
    return 0.0, deviation
