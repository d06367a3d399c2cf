"""llama.cpp as a peer: a GGUF of random weights of ChatGLM's shapes, and a process that runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from glm2_reference.config import GLM2Config

# Bytes of a block of 32 weights: a float16 scale and the values.
_BLOCK_BYTES = {"Q4_0": 18, "Q8_0": 34}
_SCALES = {"Q4_0": 0.0034, "Q8_0": 0.00021}  # rows of about unit length at 4096 columns


class LlamaPeer:
    """A process that has loaded a GGUF.

    Parameters
    ----------
    python : str
        Interpreter that has llama-cpp-python.
    path : Path
        The GGUF.
    threads, context : int
    repack : bool
        Whether llama.cpp may lay the weights out anew.
    """

    def __init__(
        self, python: str, path: Path, *, threads: int, context: int, repack: bool = True
    ) -> None:
        worker = Path(__file__).with_name("llama_worker.py")
        self._process = subprocess.Popen(
            [python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        loaded = self.ask("load", path=str(path), threads=threads, context=context, repack=repack)
        self.name = f"llama.cpp ({loaded['version']}) {path.stem.rpartition('-')[2]}"

    def ask(self, name: str, **arguments: Any) -> Any:
        """Have the worker do something and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": name, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process has ended"}
        if isinstance(answer, dict) and "error" in answer:
            msg = f"llama.cpp: {answer['error']}"
            raise RuntimeError(msg)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def has_llama(python: str) -> bool:
    """Whether an interpreter can import llama-cpp-python."""
    code = "import llama_cpp"
    done = subprocess.run([python, "-c", code], capture_output=True, check=False)
    return done.returncode == 0


def ensure_gguf(path: Path, config: GLM2Config, quantization: str) -> Path:
    """Write a GGUF of random weights, architecture chatglm, unless it is there.

    All matrices, embedding and output layer too, have the one type; norms and biases are float32.
    """
    if path.is_file():
        return path
    import gguf

    temporary = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(str(temporary), "chatglm")
    writer.add_context_length(config.seq_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.ffn_hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.rotary_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    tensors = _tensors(config)
    for name, shape in tensors.items():
        example = _random_tensor(name, (1, *shape[1:]) if len(shape) > 1 else shape, quantization)
        rows = shape[0] if len(shape) > 1 else 1
        raw = getattr(gguf.GGMLQuantizationType, quantization) if len(shape) > 1 else None
        stored = (rows, *example.shape[1:]) if len(shape) > 1 else shape
        writer.add_tensor_info(name, stored, example.dtype, rows * example.nbytes, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, shape in tensors.items():  # one at a time in memory
        writer.write_tensor_data(_random_tensor(name, shape, quantization))
    writer.close()
    temporary.rename(path)
    return path


def _tensors(config: GLM2Config) -> dict[str, tuple[int, ...]]:
    """Name the tensors of llama.cpp's chatglm."""
    hidden, ffn = config.hidden_size, config.ffn_hidden_size
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (config.vocab_size, hidden)}
    for i in range(config.num_layers):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (hidden,),
            f"blk.{i}.attn_qkv.weight": (config.qkv_size, hidden),
            f"blk.{i}.attn_qkv.bias": (config.qkv_size,),
            f"blk.{i}.attn_output.weight": (hidden, config.num_heads * config.head_dim),
            f"blk.{i}.ffn_norm.weight": (hidden,),
            f"blk.{i}.ffn_up.weight": (2 * ffn, hidden),
            f"blk.{i}.ffn_down.weight": (hidden, ffn),
        }
    shapes["output_norm.weight"] = (hidden,)
    shapes["output.weight"] = (config.vocab_size, hidden)
    return shapes


def _random_tensor(name: str, shape: tuple[int, ...], quantization: str) -> np.ndarray[Any, Any]:
    """Random values; what they are does not change how long a product takes."""
    rng = np.random.default_rng(0)
    if len(shape) == 1:
        values = np.ones(shape) if "norm" in name else 0.1 * rng.standard_normal(shape)
        return values.astype(np.float32)
    rows, columns = shape
    drawn = min(rows, 512)  # and repeated
    if quantization == "F16":
        tile = (rng.standard_normal((drawn, columns)) / columns**0.5).astype(np.float16)
    else:
        blocks = rng.integers(0, 256, (drawn, columns // 32, _BLOCK_BYTES[quantization]), np.uint8)
        blocks[:, :, :2] = np.array([_SCALES[quantization]], np.float16).view(np.uint8)
        tile = blocks.reshape(drawn, -1)
    return np.resize(tile, (rows, tile.shape[1]))
