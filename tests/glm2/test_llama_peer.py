"""The GGUF that the benchmarks write for llama.cpp."""

import sys
from pathlib import Path

import numpy as np
import pytest

gguf = pytest.importorskip("gguf", reason="needs gguf")

from glm2.synthetic_checkpoint import LIKE

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import llama_peer

sys.path.pop(0)

TINY = LIKE["tiny"]


def shape_root(quantization):
    """What one over the size of an element should be; quantised ones are scaled for 4096 columns."""
    return (TINY.hidden_size if quantization == "F16" else 4096) ** 0.5


@pytest.mark.parametrize("quantization", ["Q4_0", "Q8_0", "F16"])
def test_gguf_holds_every_matrix_in_the_asked_type(tmp_path, quantization):
    path = llama_peer.ensure_gguf(tmp_path / "x.gguf", TINY, quantization)
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.gguf"]
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 3 + 7 * TINY.num_layers
    ups = tensors["blk.1.ffn_up.weight"]
    assert ups.shape.tolist() == [TINY.hidden_size, 2 * TINY.ffn_hidden_size]  # llama.cpp's order
    for name, tensor in tensors.items():
        is_matrix = len(tensor.shape) == 2
        assert tensor.tensor_type.name == (quantization if is_matrix else "F32"), name
        if is_matrix:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            assert 0.1 < np.sqrt((values**2).mean()) * shape_root(quantization) < 10, name
            assert np.isfinite(values).all()
    fields = reader.fields
    assert fields["chatglm.block_count"].contents() == TINY.num_layers
    assert fields["chatglm.attention.head_count_kv"].contents() == TINY.num_kv_heads
    assert fields["tokenizer.ggml.model"].contents() == "no_vocab"


def test_gguf_is_written_once(tmp_path):
    path = llama_peer.ensure_gguf(tmp_path / "x.gguf", TINY, "Q4_0")
    made = path.stat().st_mtime_ns
    assert llama_peer.ensure_gguf(path, TINY, "Q4_0").stat().st_mtime_ns == made
