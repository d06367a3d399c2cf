"""P-tuning v2: load a prefix encoder and compute the keys and values that it puts before a text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2.checkpoint_files import misfits, read_tensors
from glm2.config import read_fields, read_pre_seq_len
from glm2.safetensors_file import AnyArray
from glm2_reference.config import GLM2Config

_MARKER = "prefix_encoder."
_EMBEDDING = "embedding.weight"


def has_prefix_encoder(folder: str | Path) -> bool:
    """Whether a checkpoint folder holds a prefix encoder; errors are those of `read_tensors`."""
    return any(_is_part(name) for name in read_tensors(folder))


def load_prefix_encoder(folder: str | Path, config: GLM2Config) -> dict[str, AnyArray]:
    """Read the tensors of a prefix encoder.

    Parameters
    ----------
    folder : str or Path
        A checkpoint folder that holds ``transformer.prefix_encoder.*``, among other tensors or alone,
        as P-tuning saves it.
    config : GLM2Config
        Of the base model.

    Returns
    -------
    tensors : dict of str to float arrays
        ``embedding.weight`` (pre_seq_len, kv_size), kv_size being ``num_layers * 2 * num_kv_heads *
        head_dim``; with a projection also ``trans.0.weight`` (hidden_size, kv_size), ``trans.0.bias``,
        ``trans.2.weight`` (kv_size, hidden_size) and ``trans.2.bias``.

    Raises
    ------
    FileNotFoundError
        If the folder or its weights are missing.
    ValueError
        If there is no prefix encoder, or its tensors do not fit the base model, or the folder's own
        config.json: one error names them all.
    """
    tensors = {
        name.partition(_MARKER)[2]: array
        for name, array in read_tensors(folder).items()
        if _is_part(name)
    }
    if _EMBEDDING not in tensors:
        msg = f"{folder} holds no transformer.prefix_encoder.embedding.weight; pass the folder of a P-tuning v2 checkpoint"
        raise ValueError(msg)
    told = _told(folder)
    kv_size = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    pre_seq_len = tensors[_EMBEDDING].shape[0] if tensors[_EMBEDDING].ndim else 0
    wanted: dict[str, tuple[int, ...]] = {
        _EMBEDDING: (told["pre_seq_len"] or max(1, pre_seq_len), kv_size)
    }
    if len(tensors) > 1 or told["prefix_projection"]:
        wanted |= {
            "trans.0.weight": (config.hidden_size, kv_size),
            "trans.0.bias": (config.hidden_size,),
            "trans.2.weight": (kv_size, config.hidden_size),
            "trans.2.bias": (kv_size,),
        }
    problems = misfits(tensors, wanted)
    if len(tensors) > 1 and told["prefix_projection"] is False:
        problems.append("config.json has prefix_projection = false, but a projection is there")
    if problems:
        msg = f"{folder}: the prefix encoder does not fit the base model: {'; '.join(problems)}"
        raise ValueError(msg)
    return tensors


def encode_prefix(tensors: Mapping[str, AnyArray], config: GLM2Config) -> npt.NDArray[np.float32]:
    """Compute the keys and values of the prefix, which is the same before every text.

    Parameters
    ----------
    tensors : mapping of str to float arrays
        From `load_prefix_encoder`.
    config : GLM2Config
        Of the base model.

    Returns
    -------
    prefix : float32, (num_layers, 2, pre_seq_len, num_kv_heads, head_dim)
        Keys, then values, of each layer; not rotated.

    References
    ----------
    Liu et al. 2022, P-Tuning v2; ChatGLM2-6B ``modeling_chatglm.PrefixEncoder`` and ``get_prompt``.
    """
    x = tensors[_EMBEDDING].astype(np.float32)  # (pre_seq_len, kv_size)
    if "trans.0.weight" in tensors:
        w = {name: array.astype(np.float32) for name, array in tensors.items()}
        hidden = np.tanh(
            x @ w["trans.0.weight"].T + w["trans.0.bias"]
        )  # (pre_seq_len, hidden_size)
        x = hidden @ w["trans.2.weight"].T + w["trans.2.bias"]
    x = x.reshape(len(x), config.num_layers, 2, config.num_kv_heads, config.head_dim)
    return np.ascontiguousarray(x.transpose(1, 2, 0, 3, 4))


def _is_part(name: str) -> bool:
    """Whether a tensor belongs to a prefix encoder."""
    return name.removeprefix("transformer.").startswith(_MARKER)


def _told(folder: str | Path) -> dict[str, Any]:
    """Read what the folder's own config.json, if it has one, says of the encoder."""
    path = Path(folder) / "config.json"
    fields = read_fields(Path(folder)) if path.is_file() else {}
    return {
        "pre_seq_len": read_pre_seq_len(fields),
        "prefix_projection": fields.get("prefix_projection"),
    }
