"""Recognise a checkpoint folder: dimensions, family, prompt format and default settings."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from glm2.packed_format import PackedFormat
from glm2.sampling import SamplingParams
from glm2_reference.config import GLM2Config, RopeScaling

ChatFormat = Literal["chatglm2", "chatglm3", "chatml"]
CHAT_FORMATS: tuple[ChatFormat, ...] = get_args(ChatFormat)
CHATGLM2_MAX_LENGTH = 8192  # the published code's default, though ChatGLM2's seq_length says 32768

# What each publisher's command-line demo samples with; top_k is the default of the library it calls.
_SAMPLING: Mapping[ChatFormat, SamplingParams] = {
    "chatglm2": SamplingParams(temperature=0.8, top_p=0.8, top_k=50),
    "chatglm3": SamplingParams(temperature=0.95, top_p=0.8, top_k=50, repetition_penalty=1.1),
    "chatml": SamplingParams(temperature=0.2, top_p=0.9),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What a checkpoint folder says about itself.

    Parameters
    ----------
    folder : Path
        The folder that was read.
    config : GLM2Config
        Dimensions and constants of the model.
    chat_format : "chatglm2", "chatglm3" or "chatml"
        How a conversation becomes token ids.
    name : str
        ``_name_or_path``, or the folder's name where the file has none.
    torch_dtype : str
        The dtype that the file declares for its weights.
    eos_token_ids : tuple of int
        Ids that end an answer, as far as config.json names them.
    default_system : str or None
        System prompt that a conversation starts with unless another is given. ChatGLM2 and
        ChatGLM3 have none.
    max_length : int
        Tokens of one conversation, prompt and answer together. At most ``config.seq_length``.
    sampling : SamplingParams
        The publisher's default sampling.
    pre_seq_len : int or None
        Length of the P-tuning v2 prefix whose encoder the folder holds, if any.
    quantization_bit : 8, 4 or None
        Of a published INT8 or INT4 checkpoint.
    packed : PackedFormat or None
        Of a folder that ``glm2 convert`` wrote.
    """

    folder: Path
    config: GLM2Config
    chat_format: ChatFormat
    name: str
    torch_dtype: str
    eos_token_ids: tuple[int, ...]
    default_system: str | None
    max_length: int
    sampling: SamplingParams
    pre_seq_len: int | None = None
    quantization_bit: int | None = None
    packed: PackedFormat | None = None


def read_checkpoint_config(folder: str | Path, chat_format: str | None = None) -> CheckpointConfig:
    """Read ``config.json`` of a checkpoint folder and recognise which family it is.

    Parameters
    ----------
    folder : str or Path
        A folder in the published (Hugging Face) layout.
    chat_format : "chatglm2", "chatglm3", "chatml" or None
        Overrides what the folder says. None: the ``chat_format`` key of config.json; else
        ``_name_or_path``; else the chat template or role tokens in the folder's tokenizer files
        (read as text, never run); else "chatglm2".

    Raises
    ------
    FileNotFoundError
        If the folder or its config.json does not exist.
    ValueError
        If config.json is not valid, names an unknown chat format, describes a model that is not
        a ChatGLM2 or ChatGLM3, or asks for a feature that is not supported.

    Notes
    -----
    The published configs of ChatGLM2-6B and ChatGLM3-6B differ only in name, seq_length and
    version. ``rope_ratio`` multiplies the rotary base, except in ChatGLM2-6B-32K, whose published
    code divides positions by it. A ``rope_scaling`` key ("base" or "position") says so explicitly.
    """
    folder = Path(folder)
    fields = read_fields(folder)
    name = fields.get("_name_or_path") or folder.resolve().name
    if not isinstance(name, str):
        msg = f"{folder / 'config.json'} has _name_or_path = {name!r}; expected a string"
        raise ValueError(msg)
    default_system = fields.get("default_system")
    if not isinstance(default_system, str | None):
        msg = f"config.json has default_system = {default_system!r}; expected a string"
        raise ValueError(msg)
    config = GLM2Config.from_published(fields, rope_scaling=_rope_scaling(fields, name))
    chosen = _chat_format(folder, fields, chat_format)
    short = chosen == "chatglm2" and config.rope_ratio == 1.0
    return CheckpointConfig(
        folder=folder,
        config=config,
        chat_format=chosen,
        name=name,
        torch_dtype=str(fields.get("torch_dtype", "float16")),
        eos_token_ids=_eos_token_ids(fields),
        default_system=default_system,
        max_length=min(config.seq_length, CHATGLM2_MAX_LENGTH) if short else config.seq_length,
        sampling=_SAMPLING[chosen],
        pre_seq_len=read_pre_seq_len(fields),
        quantization_bit=_quantization_bit(fields),
        packed=PackedFormat.from_fields(fields["glm2"]) if "glm2" in fields else None,
    )


def recognise_chat_format(folder: str | Path, chat_format: str | None = None) -> ChatFormat:
    """Tell how a folder's conversations are encoded; it need not hold a config.json.

    Parameters and errors are those of `read_checkpoint_config`.
    """
    folder = Path(folder)
    fields = read_fields(folder) if (folder / "config.json").is_file() else {}
    return _chat_format(folder, fields, chat_format)


def read_fields(folder: Path) -> dict[str, Any]:
    """Parse config.json, with errors that name the folder."""
    path = folder / "config.json"
    if not folder.is_dir():
        msg = f"{folder} is not a folder; --model takes the folder of a ChatGLM2 or ChatGLM3 checkpoint"
        raise FileNotFoundError(msg)
    if not path.is_file():
        msg = f"{folder} has no config.json; expected a checkpoint folder as published"
        raise FileNotFoundError(msg)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{path} is not valid JSON ({error}); fetch the checkpoint's config.json again"
        raise ValueError(msg) from error
    if not isinstance(fields, dict):
        msg = f"{path} holds a JSON {type(fields).__name__}; expected an object"
        raise ValueError(msg)
    if fields.get("model_type", "chatglm") != "chatglm":
        msg = f"{path} has model_type = {fields['model_type']!r}; only 'chatglm' is supported"
        raise ValueError(msg)
    return fields


def _rope_scaling(fields: Mapping[str, Any], name: str) -> RopeScaling:
    """Tell what ``rope_ratio`` scales: explicit key, else the one model that divides positions."""
    explicit = fields.get("rope_scaling")
    if explicit is not None:
        if explicit not in get_args(RopeScaling):
            msg = f"config.json has rope_scaling = {explicit!r}; expected 'base' or 'position'"
            raise ValueError(msg)
        return "position" if explicit == "position" else "base"
    plain_name = Path(name).name.lower().replace("_", "-")
    return "position" if plain_name == "chatglm2-6b-32k" else "base"


def _chat_format(folder: Path, fields: Mapping[str, Any], explicit: str | None) -> ChatFormat:
    """Apply the order of precedence that `read_checkpoint_config` documents."""
    asked = explicit if explicit is not None else fields.get("chat_format")
    if asked is not None:
        for chat_format in CHAT_FORMATS:
            if asked == chat_format:
                return chat_format
        source = "chat_format" if explicit is not None else "config.json's chat_format"
        msg = f"{source} is {asked!r}; expected one of {', '.join(CHAT_FORMATS)}"
        raise ValueError(msg)
    return _format_from_name(fields) or _format_from_tokenizer(folder) or "chatglm2"


def _format_from_name(fields: Mapping[str, Any]) -> ChatFormat | None:
    """Find the family in ``_name_or_path``, its last component first."""
    name = str(fields.get("_name_or_path", "")).lower()
    for text in (Path(name).name, name):
        families = set(re.findall(r"chatglm[-_]?([23])(?![0-9])", text))
        if len(families) == 1:
            return "chatglm2" if families == {"2"} else "chatglm3"
    return None


def _format_from_tokenizer(folder: Path) -> ChatFormat | None:
    """Find the family in the chat template or the role tokens of the tokenizer files."""
    template = _chat_template(folder)
    if template is not None:
        if "[Round" in template:
            return "chatglm2"
        return "chatml" if "<|im_start|>" in template else "chatglm3"
    for path in sorted(folder.glob("tokeniz*.py")):
        if path.is_file() and "<|system|>" in path.read_text(encoding="utf-8", errors="replace"):
            return "chatglm3"
    return None


def _chat_template(folder: Path) -> str | None:
    """Return the folder's chat template as text."""
    template_path, config_path = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if template_path.is_file():
        return template_path.read_text(encoding="utf-8", errors="replace")
    if not config_path.is_file():
        return None
    try:
        template = json.loads(config_path.read_text(encoding="utf-8")).get("chat_template")
    except (ValueError, AttributeError, RecursionError) as error:
        msg = f"{config_path} is not a JSON object ({error}); fetch the file again"
        raise ValueError(msg) from error
    return None if template is None else str(template)


def read_pre_seq_len(fields: Mapping[str, Any]) -> int | None:
    """Read ``pre_seq_len``; null and absent mean that there is no prefix."""
    value = fields.get("pre_seq_len")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 65536:
        msg = f"config.json has pre_seq_len = {value!r}; expected 1 to 65536, or null"
        raise ValueError(msg)
    return value


def _quantization_bit(fields: Mapping[str, Any]) -> int | None:
    """Read ``quantization_bit``; null, 0 and absent mean floats."""
    value = fields.get("quantization_bit")
    if value is None or value == 0:
        return None
    if value not in (4, 8) or isinstance(value, bool):
        msg = f"config.json has quantization_bit = {value!r}; expected 8, 4, or null"
        raise ValueError(msg)
    return int(value)


def _eos_token_ids(fields: Mapping[str, Any]) -> tuple[int, ...]:
    """Read ``eos_token_id``, published as one id or as a list."""
    value = fields.get("eos_token_id")
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        msg = f"config.json has eos_token_id = {value!r}; expected an integer or a list of integers"
        raise ValueError(msg)
    return tuple(ids)
