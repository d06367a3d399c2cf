"""GLM2Config: the one place that names model dimensions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

RopeScaling = Literal["base", "position"]

# Beyond these a file is damaged, not large.
_MAX_SIZE = 2**24
_MAX_LAYERS = 4096
_REQUIRED = (
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "kv_channels",
    "padded_vocab_size",
    "seq_length",
    "layernorm_epsilon",
    "add_qkv_bias",
    "multi_query_attention",
)
# The published modeling code branches on these; only one value of each is a ChatGLM2 or ChatGLM3.
_SUPPORTED = {
    "add_bias_linear": False,
    "rmsnorm": True,
    "post_layer_norm": True,
    "apply_residual_connection_post_layernorm": False,
    "original_rope": True,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GLM2Config:
    """Dimensions and constants of one ChatGLM2 or ChatGLM3 model.

    Parameters
    ----------
    num_layers, hidden_size, ffn_hidden_size, num_heads, num_kv_heads, head_dim : int
        28, 4096, 13696, 32, 2, 128 in ChatGLM2-6B. ``num_heads`` is a multiple of ``num_kv_heads``.
    vocab_size : int
        Rows of the embedding, padding rows included (``padded_vocab_size``, 65024).
    seq_length : int
        Tokens that the model was trained to attend over; the longest context we accept.
    norm_eps : float
        Added to the mean square in RMSNorm; 1e-5.
    add_qkv_bias : bool
        Whether the fused query_key_value projection has a bias; true in both families.
    multi_query_attention : bool
        False means that the published query_key_value rows interleave q, k and v a head.
    tie_word_embeddings : bool
        Whether ``output_layer`` shares the embedding; false in both families.
    rope_ratio : float
        1 for the base models, 16 for ChatGLM2-6B-32K, 50 for ChatGLM3-6B-32K.
    rope_scaling : "base" or "position"
        "base": the rotary base is ``10000 * rope_ratio`` (ChatGLM3-32K). "position": positions are
        divided by ``rope_ratio`` (ChatGLM2-32K).

    Raises
    ------
    ValueError
        If a dimension is not positive, or two of them contradict each other.

    References
    ----------
    ChatGLM2-6B and ChatGLM3-6B ``config.json`` and ``configuration_chatglm.py``.
    """

    num_layers: int
    hidden_size: int
    ffn_hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    seq_length: int
    norm_eps: float
    add_qkv_bias: bool
    multi_query_attention: bool = True
    tie_word_embeddings: bool = False
    rope_ratio: float = 1.0
    rope_scaling: RopeScaling = "base"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            wanted: tuple[type, ...] = {
                "int": (int,), "bool": (bool,), "float": (int, float), "RopeScaling": (str,)
            }[str(field.type)]  # fmt: skip
            if not isinstance(value, wanted) or (isinstance(value, bool) and wanted != (bool,)):
                msg = f"{field.name} is {value!r}; expected {field.type}"
                raise ValueError(msg)
            if wanted == (bool,) or not isinstance(value, (int, float)):
                continue
            limit = _MAX_LAYERS if field.name == "num_layers" else _MAX_SIZE
            if not 0 < value <= limit:
                huge = isinstance(value, int) and value.bit_length() > 64
                shown = "a number of many digits" if huge else value
                msg = f"{field.name} is {shown}; expected more than 0, at most {limit}"
                raise ValueError(msg)
        if self.num_heads % self.num_kv_heads:
            msg = (
                f"num_heads is {self.num_heads} and num_kv_heads is {self.num_kv_heads}; "
                "num_heads must be a multiple of num_kv_heads"
            )
            raise ValueError(msg)
        if self.head_dim % 4:
            msg = f"head_dim is {self.head_dim}; half of it is rotated in pairs, so it must be a multiple of 4"
            raise ValueError(msg)
        if self.rope_scaling not in ("base", "position"):
            msg = f"rope_scaling is {self.rope_scaling!r}; expected 'base' or 'position'"
            raise ValueError(msg)
        if not self.multi_query_attention and self.num_heads != self.num_kv_heads:
            msg = (
                f"multi_query_attention is false, but num_heads is {self.num_heads} and "
                f"num_kv_heads is {self.num_kv_heads}; without it they must be equal"
            )
            raise ValueError(msg)

    @property
    def group_size(self) -> int:
        """Query heads that share one K/V head: 16 in ChatGLM2-6B."""
        return self.num_heads // self.num_kv_heads

    @property
    def rotary_dim(self) -> int:
        """Leading dims of each head that RoPE rotates: half of ``head_dim``."""
        return self.head_dim // 2

    @property
    def qkv_size(self) -> int:
        """Rows of the fused query_key_value projection."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

    @property
    def rope_base(self) -> float:
        """Base of the rotary angles, after "base" scaling."""
        return 10000.0 * (self.rope_ratio if self.rope_scaling == "base" else 1.0)

    @property
    def rope_position_scale(self) -> float:
        """What positions are divided by before rotation, after "position" scaling."""
        return self.rope_ratio if self.rope_scaling == "position" else 1.0

    @classmethod
    def from_published(
        cls, fields: Mapping[str, Any], *, rope_scaling: RopeScaling = "base"
    ) -> GLM2Config:
        """Read the keys of a published ``config.json``.

        Parameters
        ----------
        fields : mapping
            The parsed JSON object. Keys that only matter to training or to other code are ignored.
        rope_scaling : "base" or "position"
            What ``rope_ratio`` scales; the published file does not say (see `RopeScaling`).

        Raises
        ------
        ValueError
            If a key is missing (defaults of the published class differ from the published files, so
            none is assumed), has the wrong type, or asks for a variant that no ChatGLM2/3 uses.
        """
        missing = [key for key in _REQUIRED if key not in fields]
        if fields.get("multi_query_attention") and "multi_query_group_num" not in fields:
            missing.append("multi_query_group_num")
        if missing:
            msg = f"config.json lacks {', '.join(missing)}; a ChatGLM2 or ChatGLM3 config names them all"
            raise ValueError(msg)
        for key, supported in _SUPPORTED.items():
            if key in fields and fields[key] is not supported:
                msg = f"config.json has {key} = {fields[key]!r}; only {supported!r} is supported"
                raise ValueError(msg)
        multi_query = fields["multi_query_attention"]
        return cls(
            num_layers=fields["num_layers"],
            hidden_size=fields["hidden_size"],
            ffn_hidden_size=fields["ffn_hidden_size"],
            num_heads=fields["num_attention_heads"],
            num_kv_heads=fields["multi_query_group_num" if multi_query else "num_attention_heads"],
            head_dim=fields["kv_channels"],
            vocab_size=fields["padded_vocab_size"],
            seq_length=fields["seq_length"],
            norm_eps=fields["layernorm_epsilon"],
            add_qkv_bias=fields["add_qkv_bias"],
            multi_query_attention=multi_query,
            tie_word_embeddings=fields.get("tie_word_embeddings", False),
            rope_ratio=fields.get("rope_ratio", 1.0),
            rope_scaling=rope_scaling,
        )

    @classmethod
    def from_json(cls, path: str | Path, *, rope_scaling: RopeScaling = "base") -> GLM2Config:
        """Read a published ``config.json`` file; see `from_published`."""
        try:
            fields = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            msg = f"{path} is not valid JSON ({error}); fetch the checkpoint's config.json again"
            raise ValueError(msg) from error
        if not isinstance(fields, dict):
            msg = f"{path} holds a JSON {type(fields).__name__}; expected an object"
            raise ValueError(msg)
        return cls.from_published(fields, rope_scaling=rope_scaling)

    def to_published(self) -> dict[str, Any]:
        """Return the keys of a published ``config.json`` that describe this model."""
        return {
            "model_type": "chatglm",
            "architectures": ["ChatGLMModel"],
            "num_layers": self.num_layers,
            "hidden_size": self.hidden_size,
            "ffn_hidden_size": self.ffn_hidden_size,
            "num_attention_heads": self.num_heads,
            "kv_channels": self.head_dim,
            "multi_query_attention": self.multi_query_attention,
            "multi_query_group_num": self.num_kv_heads,
            "padded_vocab_size": self.vocab_size,
            "seq_length": self.seq_length,
            "layernorm_epsilon": self.norm_eps,
            "add_qkv_bias": self.add_qkv_bias,
            "tie_word_embeddings": self.tie_word_embeddings,
            "rope_ratio": self.rope_ratio,
            **_SUPPORTED,
        }


CHATGLM2_6B: Final = GLM2Config(
    num_layers=28,
    hidden_size=4096,
    ffn_hidden_size=13696,
    num_heads=32,
    num_kv_heads=2,
    head_dim=128,
    vocab_size=65024,
    seq_length=32768,
    norm_eps=1e-5,
    add_qkv_bias=True,
)


def published_tensor_shapes(config: GLM2Config) -> dict[str, tuple[int, ...]]:
    """Name and shape every tensor that a published checkpoint of this model must hold.

    Weights are (out, in). What a checkpoint holds besides (``transformer.rotary_pos_emb.inv_freq``,
    which follows from the config, and ``transformer.prefix_encoder.*``) is not listed, nor is the
    output layer when it is tied to the embedding.

    References
    ----------
    ChatGLM2-6B ``pytorch_model.bin.index.json``.
    """
    hidden, ffn = config.hidden_size, config.ffn_hidden_size
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attention.query_key_value.weight": (config.qkv_size, hidden),
        "self_attention.query_key_value.bias": (config.qkv_size,),
        "self_attention.dense.weight": (hidden, config.num_heads * config.head_dim),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.dense_h_to_4h.weight": (2 * ffn, hidden),
        "mlp.dense_4h_to_h.weight": (hidden, ffn),
    }
    if not config.add_qkv_bias:
        del layer["self_attention.query_key_value.bias"]
    shapes: dict[str, tuple[int, ...]] = {}
    shapes["transformer.embedding.word_embeddings.weight"] = (config.vocab_size, hidden)
    for index in range(config.num_layers):
        for name, shape in layer.items():
            shapes[f"transformer.encoder.layers.{index}.{name}"] = shape
    shapes["transformer.encoder.final_layernorm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes["transformer.output_layer.weight"] = (config.vocab_size, hidden)
    return shapes
