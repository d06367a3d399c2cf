"""ChatTokenizer: a tokenizer with the methods that users of the published ones know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glm2.batch_encoding import BatchEncoding
from glm2.config import recognise_chat_format
from glm2.prompt import Message, Prompt, build_prompt, read_history, render_prompt
from glm2.text_tokenizer import TextTokenizer
from glm2.tokenizer import load_tokenizer

_BLANKS = ("[MASK]", "[sMASK]", "[gMASK]")


class ChatTokenizer(TextTokenizer):
    """Encodes conversations, and texts as `glm2.text_tokenizer.TextTokenizer` does.

    Parameters, notes and references are those of `TextTokenizer`.

    Notes
    -----
    All three formats have all methods, where the published ChatGLM2 builds prompts and ChatGLM3
    chat inputs alone. Unlike there, a message with an unknown key or without text is an error, and
    so is a conversation that ends with the assistant or the system and is to be answered.
    """

    @classmethod
    def from_folder(
        cls, folder: str | Path, chat_format: str | None = None, **options: Any
    ) -> ChatTokenizer:
        """Load the tokenizer of a checkpoint folder, which needs no config.json for it.

        Parameters
        ----------
        folder : str or Path
        chat_format : str, optional
            Overrides what the folder says; see `glm2.config.read_checkpoint_config`.
        options
            Those of the class.

        Raises
        ------
        FileNotFoundError
            If the folder holds no tokenizer.
        ValueError
            If a file is damaged or the format unknown.
        """
        tokenizer = load_tokenizer(folder)
        return cls(tokenizer, recognise_chat_format(folder, chat_format), **options)

    def encode_blanks(self, text: str) -> list[int]:
        """Encode a text with blanks, without a prefix: part A of blank infilling.

        ``[MASK]``, ``[sMASK]`` and ``[gMASK]`` become their tokens; what stands between them is
        encoded piece by piece, so that each piece starts with a space as any text does.

        Raises
        ------
        ValueError
            If the text has no blank.
        """
        if not any(name in text for name in _BLANKS):
            msg = f"the text {text[:40]!r} has no blank; mark one with [MASK], [sMASK] or [gMASK]"
            raise ValueError(msg)
        return self._encode_split(text, {name: self.get_command(name) for name in _BLANKS})

    def build_prompt(self, query: str, history: Sequence[Any] | None = None) -> str:
        """Return the prompt of a question, to be passed to the tokenizer.

        Parameters
        ----------
        query : str
        history : sequence, optional
            Pairs (question, answer), or dicts; see `glm2.prompt.read_history`.

        Returns
        -------
        prompt : str
            ChatGLM2's rounds; else a `Prompt`, whose role tokens no text could stand for.
        """
        prompt = self._conversation([*(history or ()), {"role": "user", "content": query}], True)
        return str(prompt) if self.chat_format == "chatglm2" else prompt

    def build_chat_input(
        self,
        query: str,
        history: Sequence[Any] | None = None,
        role: str = "user",
        *,
        return_tensors: str | None = "np",
    ) -> BatchEncoding:
        """Encode a conversation as a batch of one; the rest as `build_prompt` takes it.

        Parameters
        ----------
        role : "user" or "observation"
            Whose message the query is.
        return_tensors : "np", "ms" or None
        """
        prompt = self._conversation([*(history or ()), {"role": role, "content": query}], True)
        return self([prompt], return_tensors=return_tensors)

    def build_single_message(self, role: str, metadata: str, message: str) -> list[int]:
        """Encode one ChatGLM3 message: role token, metadata line, content.

        Raises
        ------
        ValueError
            If there is no such role, or the format is another.
        """
        Message.from_dict({"role": role, "metadata": metadata, "content": message})
        head = [self.get_command(f"<|{role}|>"), *self.tokenizer.encode(f"{metadata}\n")]
        return [*head, *self.tokenizer.encode(message)]

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tokenize: bool = True,
        return_tensors: str | None = None,
    ) -> Any:
        """Encode a conversation up to where the assistant's answer starts.

        Parameters
        ----------
        messages : sequence of dict
            With ``role`` and ``content``; see `glm2.prompt.Message.from_dict`.
        add_generation_prompt : bool
            False stops behind the last message.
        tokenize : bool
            False returns text as `build_prompt` does.
        return_tensors : "np", "ms" or None

        Returns
        -------
        list of int, str, or tensor (1, T)
        """
        prompt = self._conversation(messages, add_generation_prompt)
        if not tokenize:
            return str(prompt) if self.chat_format == "chatglm2" else prompt
        if return_tensors is None:
            return list(prompt.token_ids)
        return self([prompt], return_tensors=return_tensors)["input_ids"]

    def _conversation(self, messages: Sequence[Any], add_generation_prompt: bool) -> Prompt:
        """Write and encode a conversation."""
        entries = read_history(messages)
        options = {"add_generation_prompt": add_generation_prompt}
        text = render_prompt(entries, self.chat_format, **options)
        token_ids = build_prompt(self.tokenizer, entries, self.chat_format, **options)
        return Prompt.of(text, token_ids, (self.chat_format, self.vocab_size))
