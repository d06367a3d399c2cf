"""Re-lay a llama-style GGUF file, without loss, into a checkpoint in ChatGLM3's layout."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from glm2.weights import save_weights
from glm2_reference.config import GLM2Config

FloatArray = npt.NDArray[np.float32]

_GLM_ROPE_BASE = 10000.0
_CONTROL_TOKEN, _USER_TOKEN = 3, 4  # gguf.TokenType
_IMPORT_HELP = (
    'the demo weights need the gguf and tokenizers packages; run pip install "glm2[demo]"'
)


def convert_gguf(gguf_file: Path, folder: Path, fields: Mapping[str, Any]) -> None:
    """Write a checkpoint folder in ChatGLM3's layout from a llama-style GGUF file.

    Parameters
    ----------
    gguf_file : Path
        A "llama" model, quantised or not, with the tokenizer that the file type calls "smollm".
    folder : Path
        Receives config.json, model.safetensors (float32) and tokenizer.json.
    fields : mapping
        More keys for config.json.

    Raises
    ------
    ImportError
        If ``gguf`` or ``tokenizers`` is not installed.
    ValueError
        If the model cannot be expressed in ChatGLM3's layout, or the file lacks a key.

    Notes
    -----
    ChatGLM3 rotates the first half of each head, llama all of it, both in interleaved pairs. So
    each head of h dims becomes one of 2h: the h real ones first, which is the rotated half, then
    h zeros. Scores are divided by sqrt(2h) instead of sqrt(h), so the query rows are multiplied
    by sqrt(2). ``dense`` gets zero columns, query_key_value a zero bias, and a tied embedding is
    copied to the output layer.
    """
    try:
        import gguf
    except ImportError as error:
        raise ImportError(_IMPORT_HELP) from error
    reader = gguf.GGUFReader(gguf_file)
    keys = _read_keys(reader)
    config = _glm_config(keys)
    _want(keys, "tokenizer.ggml.pre", "smollm")
    tensors = {
        tensor.name: functools.partial(gguf.quants.dequantize, tensor.data, tensor.tensor_type)
        for tensor in reader.tensors
    }
    weights = _RelaidWeights(tensors, config)
    eos_id = _need(keys, "tokenizer.ggml.eos_token_id")
    save_weights(
        folder, config, weights, dtype="float32", fields={"eos_token_id": eos_id, **fields}
    )
    _save_tokenizer(keys, folder / "tokenizer.json")


def _read_keys(reader: Any) -> dict[str, Any]:
    """Return the file's keys with plain Python values."""
    from gguf import GGUFValueType

    def value(field: Any) -> Any:
        text = field.types[-1] == GGUFValueType.STRING
        items = [field.parts[index] for index in field.data]
        plain = [bytes(item).decode("utf-8") if text else item[0].item() for item in items]
        return plain if field.types[0] == GGUFValueType.ARRAY else plain[0]

    return {name: value(field) for name, field in reader.fields.items() if len(field.data)}


def _need(keys: Mapping[str, Any], name: str) -> Any:
    """Return the value of a key that must be there."""
    if name not in keys:
        msg = f"the GGUF file has no key {name}; it is not a whole llama-style model"
        raise ValueError(msg)
    return keys[name]


def _want(keys: Mapping[str, Any], name: str, wanted: Any) -> None:
    """Refuse a file whose key says something that ChatGLM3's layout cannot express."""
    came = _need(keys, name)
    if came != wanted:
        msg = f"the GGUF file has {name} = {came!r}; only {wanted!r} can be re-laid"
        raise ValueError(msg)


def _glm_config(keys: Mapping[str, Any]) -> GLM2Config:
    """Translate the dimensions."""
    need = functools.partial(_need, keys)
    _want(keys, "general.architecture", "llama")
    num_heads, hidden_size = need("llama.attention.head_count"), need("llama.embedding_length")
    head_dim = hidden_size // num_heads
    _want(keys, "llama.rope.dimension_count", head_dim)
    if "llama.rope.scaling.type" in keys:
        _want(keys, "llama.rope.scaling.type", "none")
    return GLM2Config(
        num_layers=need("llama.block_count"),
        hidden_size=hidden_size,
        ffn_hidden_size=need("llama.feed_forward_length"),
        num_heads=num_heads,
        num_kv_heads=need("llama.attention.head_count_kv"),
        head_dim=2 * head_dim,
        vocab_size=len(need("tokenizer.ggml.tokens")),
        seq_length=need("llama.context_length"),
        # The file stores float32; its shortest decimal is what the model was made with.
        norm_eps=float(str(np.float32(need("llama.attention.layer_norm_rms_epsilon")))),
        add_qkv_bias=True,
        rope_ratio=keys.get("llama.rope.freq_base", _GLM_ROPE_BASE) / _GLM_ROPE_BASE,
    )


class _RelaidWeights(Mapping[str, FloatArray]):
    """ChatGLM3's tensors, each made from the llama tensors when it is looked up."""

    def __init__(self, tensors: Mapping[str, Callable[[], FloatArray]], config: GLM2Config) -> None:
        self._tensors = tensors
        self._config = config
        self._used: set[str] = set()
        tied = "output.weight" not in tensors
        top = {
            "embedding.word_embeddings": "token_embd",
            "encoder.final_layernorm": "output_norm",
            "output_layer": "token_embd" if tied else "output",
        }
        self._makers: dict[str, Callable[[], FloatArray]] = {
            f"transformer.{glm}.weight": self._source(f"{llama}.weight")
            for glm, llama in top.items()
        }
        for layer in range(config.num_layers):
            self._add_layer(layer)
        unknown = sorted(set(tensors) - self._used)
        if unknown:
            msg = f"ChatGLM3's layout has no place for {', '.join(unknown)} of the GGUF file"
            raise ValueError(msg)

    def __getitem__(self, name: str) -> FloatArray:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    def _source(self, name: str) -> Callable[[], FloatArray]:
        """Return the maker of a llama tensor that must be there."""
        if name not in self._tensors:
            msg = f"the GGUF file has no tensor {name}; it is not a whole llama-style model"
            raise ValueError(msg)
        self._used.add(name)
        return self._tensors[name]

    def _add_layer(self, layer: int) -> None:
        """Say how each tensor of one layer is made."""
        glm, llama = f"transformer.encoder.layers.{layer}.", f"blk.{layer}."
        q, k, v, out, gate, up, down, attn_norm, ffn_norm = (
            self._source(f"{llama}{name}.weight")
            for name in (
                *("attn_q", "attn_k", "attn_v", "attn_output"),
                *("ffn_gate", "ffn_up", "ffn_down", "attn_norm", "ffn_norm"),
            )
        )
        pad, bias_size = self._pad_heads, self._config.qkv_size
        self._makers |= {
            f"{glm}input_layernorm.weight": attn_norm,
            f"{glm}self_attention.query_key_value.weight": lambda: np.concatenate(
                [pad(q() * np.float32(math.sqrt(2))), pad(k()), pad(v())]
            ),
            f"{glm}self_attention.query_key_value.bias": lambda: np.zeros(bias_size, np.float32),
            f"{glm}self_attention.dense.weight": lambda: np.ascontiguousarray(pad(out().T).T),
            f"{glm}post_attention_layernorm.weight": ffn_norm,
            f"{glm}mlp.dense_h_to_4h.weight": lambda: np.concatenate([gate(), up()]),
            f"{glm}mlp.dense_4h_to_h.weight": down,
        }

    def _pad_heads(self, rows: FloatArray) -> FloatArray:
        """Give each head, (head_dim / 2) rows, as many zero rows after its own."""
        half = self._config.head_dim // 2
        heads = rows.reshape(-1, half, rows.shape[-1])
        padded = np.pad(heads, ((0, 0), (0, half), (0, 0)))  # (heads, head_dim, columns)
        return padded.reshape(-1, rows.shape[-1])


def _save_tokenizer(keys: Mapping[str, Any], path: Path) -> None:
    """Write tokenizer.json: byte-level BPE that splits digits, with the file's special tokens."""
    try:
        import tokenizers
    except ImportError as error:
        raise ImportError(_IMPORT_HELP) from error
    tokens, kinds = _need(keys, "tokenizer.ggml.tokens"), _need(keys, "tokenizer.ggml.token_type")
    merges = [tuple(merge.split(" ")) for merge in _need(keys, "tokenizer.ggml.merges")]
    vocab = {token: token_id for token_id, token in enumerate(tokens)}
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=merges))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    bpe.decoder = tokenizers.decoders.ByteLevel()
    special = [
        tokenizers.AddedToken(token, special=True, normalized=False)
        for token, kind in zip(tokens, kinds, strict=True)
        if kind in (_CONTROL_TOKEN, _USER_TOKEN)
    ]
    bpe.add_special_tokens(special)
    bpe.save(str(path))
