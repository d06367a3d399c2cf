import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glm2.config import read_checkpoint_config
from glm2.synthetic_checkpoint import LIKE, config_like, make_checkpoint
from glm2.weights import load_weights
from glm2_reference import GLM2Model as ReferenceModel
from glm2_reference.config import published_tensor_shapes
from glm2_reference.model import block

TINY = LIKE["tiny"]


def nothing(stage, done, total):
    del stage, done, total


def made(folder, config=TINY, *, seed=0, **options):
    make_checkpoint(folder, config, seed=seed, report=nothing, **options)
    return load_weights(folder, config)


def test_true_shapes_and_published_names(tmp_path):
    weights = made(tmp_path / "made")
    assert {n: a.shape for n, a in weights.items()} == published_tensor_shapes(TINY)
    assert {array.dtype.name for array in weights.values()} == {"float16"}
    checkpoint = read_checkpoint_config(tmp_path / "made")
    assert (checkpoint.config, checkpoint.torch_dtype) == (TINY, "float16")


def test_chatglm2_6b_has_the_published_size():
    """12,487,168,064 bytes, rotary_pos_emb.inv_freq (64 bytes) among them."""
    shapes = published_tensor_shapes(LIKE["chatglm2-6b"])
    assert 2 * sum(int(np.prod(shape)) for shape in shapes.values()) == 12_487_168_064 - 64


def test_seed_decides_and_shards_do_not(tmp_path):
    first = made(tmp_path / "a")
    again = made(tmp_path / "b", max_shard_bytes=100_000)
    other = made(tmp_path / "c", seed=1)
    assert len(list((tmp_path / "b").glob("model-*.safetensors"))) > 2
    for name, array in first.items():
        assert array.tobytes() == again[name].tobytes()
        assert array.tobytes() != other[name].tobytes()
    digests = {hashlib.sha256(array.tobytes()).digest() for array in first.values()}
    assert len(digests) == len(first)  # no two tensors hold the same numbers


@pytest.mark.parametrize(
    "changes",
    [
        {"num_layers": 12},
        {"hidden_size": 256, "ffn_hidden_size": 864, "num_heads": 8, "num_layers": 6},
        {"multi_query_attention": False, "num_kv_heads": 4, "num_layers": 6},
    ],
    ids=["deep", "wide", "mha"],
)
def test_activations_stay_healthy_at_every_depth(tmp_path, changes, monkeypatch):
    """The reference runs it: what leaves the blocks stays near unit size, and so do the logits."""
    config = dataclasses.replace(TINY, **changes)
    sizes = [1.0]  # of the embedding

    def observed(*args, **kwargs):
        x = block(*args, **kwargs)
        sizes.append(float(np.sqrt(np.mean(x.astype(np.float64) ** 2))))
        return x

    monkeypatch.setattr("glm2_reference.model.block", observed)
    model = ReferenceModel(config, made(tmp_path / "made", config))
    ids = np.random.default_rng(0).integers(0, config.vocab_size, 48)
    logits = model.forward(ids)
    assert len(sizes) == config.num_layers + 1
    assert all(0.7 < size < 2.0 for size in sizes), sizes
    assert sizes[-1] > 1.1 * sizes[0]  # blocks add something
    assert 0.5 < logits.std() < 2
    assert np.abs(logits).max() < 20


def test_interrupted_run_gives_the_same_folder(tmp_path):
    options = {"max_shard_bytes": 100_000}
    whole = made(tmp_path / "a", **options)

    def stop_half_way(stage, done, total):
        del stage
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_checkpoint(tmp_path / "b", TINY, seed=0, report=stop_half_way, **options)
    assert not (tmp_path / "b").exists()
    partial = tmp_path / "b.partial"
    first = min(partial.glob("model-00001-of-*.safetensors"))
    kept = first.stat().st_mtime_ns
    assert not (partial / "config.json").exists()
    assert not [path for path in partial.iterdir() if path.name.startswith(".")]
    made(tmp_path / "b", **options)
    assert (tmp_path / "b" / first.name).stat().st_mtime_ns == kept  # not written again
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert len(whole) == len(published_tensor_shapes(TINY))


def test_folder_to_copy_the_shape_of(tmp_path):
    config = dataclasses.replace(TINY, num_layers=1, rope_ratio=50.0)
    made(tmp_path / "a", config, fields={"_name_or_path": "THUDM/chatglm3-6b-32k"})
    copied, fields = config_like(str(tmp_path / "a"))
    assert copied == config
    assert fields == {"_name_or_path": "THUDM/chatglm3-6b-32k", "chat_format": "chatglm3"}
    with pytest.raises(ValueError, match="--like is 'chatglm9'; expected chatglm2-6b, chatglm3-6b"):
        config_like("chatglm9")
    assert config_like("chatglm3-6b")[0].seq_length == 8192


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """A matrix of 100 million numbers is drawn and written a few million at a time."""
    config = dataclasses.replace(TINY, num_layers=1, vocab_size=800_000)
    script = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from glm2.synthetic_checkpoint import make_checkpoint\n"
        "from glm2_reference.config import GLM2Config\n"
        "config = GLM2Config.from_published(json.loads(sys.argv[2]))\n"
        "make_checkpoint(sys.argv[1], config, seed=0, report=lambda *_: None)\n"
        # Not ru_maxrss, which a process has from its parent.
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    arguments = [str(tmp_path / "made"), json.dumps(config.to_published())]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, check=True, text=True
    )
    assert (tmp_path / "made" / "model.safetensors").stat().st_size > 400_000_000
    assert 1024 * int(done.stdout) < 350_000_000
