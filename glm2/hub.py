"""Find a checkpoint folder by path, short name or hub id; fetch it where it is not there yet."""

from __future__ import annotations

import os
import re
from pathlib import Path

# MindFormers' names.
SHORT_NAMES = {
    "glm2_6b": "THUDM/chatglm2-6b",
    "glm2_6b_32k": "THUDM/chatglm2-6b-32k",
    "glm3_6b": "THUDM/chatglm3-6b",
    "glm3_6b_32k": "THUDM/chatglm3-6b-32k",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TIMEOUT_S = 20
_TEXT_FILES = ["*.json", "*.model", "*.jinja", "tokenization_*.py"]


def find_checkpoint(
    name_or_folder: str | Path, *, revision: str | None = None, with_weights: bool = True
) -> Path:
    """Return the folder of a checkpoint.

    Parameters
    ----------
    name_or_folder : str or Path
        A folder; one of `SHORT_NAMES`; or a hub id, ``organisation/name``. A folder of that name
        goes first.
    revision : str, optional
        Branch, tag or commit on the hub.
    with_weights : bool
        False fetches only what a tokenizer needs.

    Returns
    -------
    folder : Path
        For a hub id, where ``huggingface_hub`` keeps its files: fetched once, checked by it, then
        used offline. Of a repository that holds both, safetensors are fetched and .bin files not.

    Raises
    ------
    FileNotFoundError
        If it is no folder and cannot be a hub id, or the hub has no such repository.
    ImportError
        If it is to be fetched and ``huggingface_hub`` is not installed.
    PermissionError
        If the repository is gated.
    OSError
        If it cannot be fetched, and was not before.

    Notes
    -----
    Where the hub cannot be reached, what was fetched before is used as it is.
    """
    name = str(name_or_folder)
    if name and Path(name).is_dir():
        return Path(name)
    hub_id = SHORT_NAMES.get(name, name)
    if not _HUB_ID.fullmatch(hub_id):
        msg = (
            f"{name or 'an empty name'} is not a folder; pass the folder of a ChatGLM2 or ChatGLM3 checkpoint, a hub id "
            f"such as THUDM/chatglm3-6b, or one of {', '.join(SHORT_NAMES)}"
        )
        raise FileNotFoundError(msg)
    return _fetch(hub_id, name, revision, with_weights)


def _fetch(hub_id: str, name: str, revision: str | None, with_weights: bool) -> Path:
    """Fetch what a checkpoint needs, with the package's own progress bars."""
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        msg = (
            f"{name} is not a folder here, and fetching {hub_id} needs huggingface_hub; run pip "
            'install "glm2[hub]", or fetch the files yourself and pass their folder'
        )
        raise ImportError(msg) from error
    patterns, unreachable = [*_TEXT_FILES], None
    try:
        info = huggingface_hub.HfApi().model_info(hub_id, revision=revision, timeout=_TIMEOUT_S)
        if with_weights:
            safe = any(file.rfilename.endswith(".safetensors") for file in info.siblings or ())
            patterns.append("*.safetensors" if safe else "*.bin")
    except errors.GatedRepoError as error:
        msg = (
            f"{hub_id} is gated: ask for access on its page, then run hf auth login or set HF_TOKEN, "
            "or fetch the files yourself and pass their folder"
        )
        raise PermissionError(msg) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        where = hub_id if revision is None else f"{hub_id} at revision {revision}"
        msg = f"{name} is not a folder here, and the hub has no {where}; check the spelling"
        raise FileNotFoundError(msg) from error
    except Exception as error:  # noqa: BLE001 (no network: what was fetched before will do)
        unreachable = error
    try:
        folder = huggingface_hub.snapshot_download(
            hub_id,
            revision=revision,
            allow_patterns=patterns,
            local_files_only=unreachable is not None,
        )
    except Exception as error:
        shown = unreachable or error
        msg = (
            f"{hub_id} could not be fetched ({type(shown).__name__}: {_first_line(shown)}); check the "
            f"network or HF_ENDPOINT ({os.environ.get('HF_ENDPOINT', 'not set')}), or fetch the files "
            "yourself and pass their folder"
        )
        raise OSError(msg) from error
    return Path(folder)


def _first_line(error: Exception) -> str:
    """Return the first line of a message that may have many."""
    return (str(error).strip().splitlines() or ["no reason given"])[0]
