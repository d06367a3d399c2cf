"""Random checkpoints of ChatGLM2-6B's shapes, made once into a folder: packed ones and GGUFs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from llama_peer import ensure_gguf, has_llama

from glm2.convert import convert_checkpoint
from glm2.demo import cache_folder
from glm2.packed_format import PackedFormat
from glm2.progress import stage_progress
from glm2.synthetic_checkpoint import LIKE, make_checkpoint

# Our format and head, and llama.cpp's type of the same bits.
FORMATS = {
    "int4": ("int4", "int8", "Q4_0"),
    "int4 fp16-head": ("int4", "fp16", "Q4_0"),
    "int4 int4-head": ("int4", "int4", "Q4_0"),
    "int4-g128": ("int4-g128", "int8", "Q4_0"),
    "int4-g32": ("int4-g32", "int8", "Q4_0"),
    "int8": ("int8", "int8", "Q8_0"),
    "fp16": ("fp16", "fp16", "F16"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what both benchmarks of the whole model take."""
    parser.add_argument("--like", default="chatglm2-6b", choices=sorted(LIKE))
    parser.add_argument(
        "--format", action="append", choices=sorted(FORMATS), help="ours; repeatable; default int4"
    )
    parser.add_argument("--activation-bits", type=int, default=8, choices=(8, 16))
    parser.add_argument(
        "--work", type=Path, default=cache_folder() / "benchmarks",
        help="where checkpoints are made and kept: 12.5 GB, and 3.7 to 12.5 GB a format and side",
    )  # fmt: skip
    parser.add_argument(
        "--llama-python", default=sys.executable, help="Python that has llama-cpp-python"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-repack", action="store_true", help="llama.cpp as the file lies")


def packed_folder(options: argparse.Namespace, name: str) -> Path:
    """Return a packed checkpoint of a format, made the first time."""
    weights, head, _ = FORMATS[name]
    folder: Path = options.work / f"{options.like}-{weights}-{head}-head"
    if folder.is_dir():
        return folder
    floats = options.work / options.like
    wanted = PackedFormat(weights=weights, head=head, activation_bits=8)  # type: ignore[arg-type]
    with stage_progress() as report:
        if not floats.is_dir():
            make_checkpoint(floats, LIKE[options.like], seed=0, report=report)
        convert_checkpoint(floats, folder, wanted, report=report)
    return folder


def gguf_file(options: argparse.Namespace, name: str) -> Path | None:
    """Return the GGUF of the same bits, made the first time; None without llama.cpp."""
    if not has_llama(options.llama_python):
        return None
    quantization = FORMATS[name][2]
    path: Path = options.work / f"{options.like}-{quantization}.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    return ensure_gguf(path, LIKE[options.like], quantization)
