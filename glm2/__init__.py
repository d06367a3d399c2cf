"""ChatGLM2 and ChatGLM3 on MindSpore, with attention operators written once in Ascend C."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from glm2.auto import AutoModel as AutoModel
    from glm2.auto import AutoTokenizer as AutoTokenizer
    from glm2.batch import generate_batch as generate_batch
    from glm2.beam_search import BeamParams as BeamParams
    from glm2.beam_search import beam_search as beam_search
    from glm2.blank_filling import fill_blanks as fill_blanks
    from glm2.chat import ChatSession as ChatSession
    from glm2.chat_tokenizer import ChatTokenizer as ChatTokenizer
    from glm2.config import CheckpointConfig as CheckpointConfig
    from glm2.config import read_checkpoint_config as read_checkpoint_config
    from glm2.generate import ContextLengthError as ContextLengthError
    from glm2.generate import stream_tokens as stream_tokens
    from glm2.model import GLM2Model as GLM2Model
    from glm2.pretrained import ChatGLM as ChatGLM
    from glm2.prompt import Message as Message
    from glm2.prompt import build_prompt as build_prompt
    from glm2.response import ToolCallError as ToolCallError
    from glm2.sampling import Sampler as Sampler
    from glm2.sampling import SamplingParams as SamplingParams
    from glm2.streaming import TextIteratorStreamer as TextIteratorStreamer
    from glm2.streaming import TextStreamer as TextStreamer
    from glm2.tokenizer import StreamDecoder as StreamDecoder
    from glm2.tokenizer import load_tokenizer as load_tokenizer
    from glm2.weights import load_weights as load_weights
    from glm2.weights import save_weights as save_weights
    from glm2_reference.config import GLM2Config as GLM2Config

# Imported on first use: `import glm2` stays fast and needs no MindSpore.
_HOMES = {
    "AutoModel": "glm2.auto",
    "AutoTokenizer": "glm2.auto",
    "BeamParams": "glm2.beam_search",
    "ChatGLM": "glm2.pretrained",
    "ChatSession": "glm2.chat",
    "ChatTokenizer": "glm2.chat_tokenizer",
    "ContextLengthError": "glm2.generate",
    "CheckpointConfig": "glm2.config",
    "GLM2Config": "glm2_reference.config",
    "GLM2Model": "glm2.model",
    "Message": "glm2.prompt",
    "Sampler": "glm2.sampling",
    "SamplingParams": "glm2.sampling",
    "StreamDecoder": "glm2.tokenizer",
    "TextIteratorStreamer": "glm2.streaming",
    "TextStreamer": "glm2.streaming",
    "ToolCallError": "glm2.response",
    "beam_search": "glm2.beam_search",
    "build_prompt": "glm2.prompt",
    "fill_blanks": "glm2.blank_filling",
    "generate_batch": "glm2.batch",
    "load_tokenizer": "glm2.tokenizer",
    "load_weights": "glm2.weights",
    "read_checkpoint_config": "glm2.config",
    "save_weights": "glm2.weights",
    "stream_tokens": "glm2.generate",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 (every entry is a str)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        msg = f"module 'glm2' has no attribute {name!r}"
        raise AttributeError(msg)
    from glm2.interrupts import deferred_interrupts

    with deferred_interrupts():  # numpy and MindSpore start threads, which must not take a Ctrl-C
        value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    """Return the installed version; a clone that was never installed has none."""
    import importlib.metadata

    try:
        return importlib.metadata.version("glm2")
    except importlib.metadata.PackageNotFoundError:
        return "0+source"
