"""AutoTokenizer and AutoModel: the names under which users of other packages look for both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm2.chat_tokenizer import ChatTokenizer
from glm2.hub import find_checkpoint
from glm2.interrupts import deferred_interrupts

if TYPE_CHECKING:
    from glm2.pretrained import ChatGLM


class AutoTokenizer:
    """Opens tokenizers; not to be made itself."""

    @staticmethod
    def from_pretrained(
        name_or_folder: str | Path,
        *,
        chat_format: str | None = None,
        revision: str | None = None,
        **options: Any,
    ) -> ChatTokenizer:
        """Open the tokenizer of a checkpoint.

        Parameters
        ----------
        name_or_folder, revision
            See `glm2.hub.find_checkpoint`, also for errors.
        chat_format : "chatglm2", "chatglm3" or "chatml", optional
            Overrides what the folder says.
        options
            ``padding_side`` and ``encode_special_tokens`` of `ChatTokenizer`. ``trust_remote_code``
            is accepted and means nothing: no code of a checkpoint is ever run.
        """
        options.pop("trust_remote_code", None)
        folder = find_checkpoint(name_or_folder, revision=revision, with_weights=False)
        return ChatTokenizer.from_folder(folder, chat_format, **options)


class AutoModel:
    """Opens models; not to be made itself."""

    @staticmethod
    def from_pretrained(name_or_folder: str | Path, **options: Any) -> ChatGLM:
        """Open a checkpoint; see `glm2.ChatGLM.from_pretrained`.

        ``trust_remote_code`` is accepted and means nothing: no code of a checkpoint is ever run.
        """
        os.environ.setdefault("GLOG_v", "3")  # MindSpore warns on stderr about its own cache
        with deferred_interrupts():  # MindSpore starts threads when it is imported
            from glm2.pretrained import ChatGLM  # here, because that takes seconds

        options.pop("trust_remote_code", None)
        return ChatGLM.from_pretrained(name_or_folder, **options)
