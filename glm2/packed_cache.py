"""Published INT8 and INT4 checkpoints, packed once into the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from pathlib import Path

from glm2.checkpoint_source import CheckpointSource
from glm2.config import CheckpointConfig, read_fields
from glm2.convert import convert_checkpoint
from glm2.demo import cache_folder
from glm2.packed_format import LAYOUT, PackedFormat
from glm2.progress import stage_progress


def cached_format(bits: int) -> PackedFormat:
    """Return how a published INT8 or INT4 checkpoint is packed: its own bits, the head in int8."""
    weights = "int8" if bits == 8 else "int4"
    return PackedFormat(weights=weights, head="int8", activation_bits=8)  # type: ignore[arg-type]


def packed_copy(checkpoint: CheckpointConfig) -> Path:
    """Return the packed copy of a published INT8 or INT4 checkpoint, made the first time.

    The notice and the progress bar go to stderr. The copy is named after the files that it was made
    from: others in the same folder get a copy of their own. Of two processes that want it at once, one
    packs and the other waits.

    Raises
    ------
    FileNotFoundError, ValueError, OSError
        As `glm2.convert.convert_checkpoint` does.
    """
    assert checkpoint.quantization_bit is not None
    wanted = cached_format(checkpoint.quantization_bit)
    target = packed_copy_folder(checkpoint)
    if target.is_dir():
        return target
    notice = (
        f"{checkpoint.folder} is a published INT{checkpoint.quantization_bit} checkpoint: packing it for "
        f"the operators, this once, into {target}"
    )
    print(notice, file=sys.stderr)  # noqa: T201
    with stage_progress() as report, contextlib.suppress(FileExistsError):
        convert_checkpoint(checkpoint.folder, target, wanted, report=report, wait=True)
    if not target.is_dir():
        msg = f"{target} could not be made; delete {target.parent} and try again"
        raise OSError(msg)
    return target


def packed_copy_folder(checkpoint: CheckpointConfig) -> Path:
    """Return where the packed copy of a checkpoint is, or will be."""
    assert checkpoint.quantization_bit is not None
    facts = {
        "folder": str(checkpoint.folder.resolve()),
        "files": CheckpointSource(checkpoint.folder).fingerprint(),
        "config": read_fields(checkpoint.folder),
        "target": cached_format(checkpoint.quantization_bit).to_fields(),
        "layout": LAYOUT,
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "packed" / f"{checkpoint.folder.resolve().name}-{digest[:16]}"
