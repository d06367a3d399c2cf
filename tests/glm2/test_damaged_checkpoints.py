"""A thousand damaged checkpoints: each is a clear error or a whole load, never a crash or a hang."""

from __future__ import annotations

import faulthandler
import io
import json
import runpy
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from glm2.config import read_checkpoint_config
from glm2.weights import load_weights, save_weights
from glm2_reference.config import GLM2Config, published_tensor_shapes
from glm2_reference.testing import random_weights

WRITER = Path(__file__).with_name("torch_writer.py")
NUM_CHECKPOINTS = 1000
PATIENCE_S = 5  # far above what a load takes; a hang is above any
CONFIG = GLM2Config(
    num_layers=2,
    hidden_size=16,
    ffn_hidden_size=12,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
    vocab_size=40,
    seq_length=64,
    norm_eps=1e-5,
    add_qkv_bias=True,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Checkpoints in every published form."""
    write_torch_file = runpy.run_path(str(WRITER))["write_torch_file"]
    weights = random_weights(CONFIG, np.random.default_rng(0))
    folders = {}
    for dtype in ("float32", "bfloat16", "float16"):
        kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        narrow = {name: array.astype(kind) for name, array in weights.items()}
        for form, shard_bytes in (("single", 10**9), ("sharded", 3000)):
            folder = tmp_path_factory.mktemp(f"safetensors-{form}-{dtype}")
            save_weights(folder, CONFIG, narrow, dtype=dtype, max_shard_bytes=shard_bytes)
            folders[f"safetensors {form} {dtype}"] = folder
        folder = tmp_path_factory.mktemp(f"bin-single-{dtype}")
        write_torch_file(folder / "pytorch_model.bin", narrow)
        folders[f"bin single {dtype}"] = folder
        folder = tmp_path_factory.mktemp(f"bin-sharded-{dtype}")
        shards = {f"pytorch_model-{i}-of-3.bin": list(narrow)[i::3] for i in range(3)}
        for file_name, names in shards.items():
            write_torch_file(folder / file_name, {name: narrow[name] for name in names})
        index = {"weight_map": {name: file for file, names in shards.items() for name in names}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        folders[f"bin sharded {dtype}"] = folder
    fields = {**CONFIG.to_published(), "eos_token_id": 2, "_name_or_path": "THUDM/chatglm2-6b"}
    for folder in folders.values():
        (folder / "config.json").write_text(json.dumps(fields))
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "<|system|>"}))
    return folders


VALUES = (
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    10**400,
    1.5,
    float("nan"),
    "x",
    "",
    [],
    [1],
    {},
    {"a": 1},
    "../x",
)


def edit(value, rng):
    """Replace, drop or nest one value somewhere in a JSON tree."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = list(value)[rng.integers(len(value))]
        choice = rng.integers(4)
        if choice == 0:
            return {k: v for k, v in value.items() if k != key}
        if choice == 1:
            return {(f"{k}x" if k == key else k): v for k, v in value.items()}
        return value | {key: edit(value[key], rng)}
    return VALUES[rng.integers(len(VALUES))]


def flip(data, rng):
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if data else 0):
        # Half of them near the start, where headers are.
        stop = len(out) if rng.random() < 0.5 else min(len(out), 400)
        out[rng.integers(stop)] = rng.integers(256)
    return bytes(out)


def edit_header(data, rng):
    """Edit the JSON header of a safetensors file, which stays a valid file around it."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(edit(parsed(data[8:end]), rng)).encode()
    return len(header).to_bytes(8, "little") + header + data[end:]


def damage_pickle(data, rng):
    """Flip bytes of a torch archive's pickle and mend its checksum, which would catch them."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(out, "w") as rewritten:
        for info in archive.infolist():
            member = archive.read(info)
            rewritten.writestr(info, flip(member, rng) if info.filename[-4:] == ".pkl" else member)
    return out.getvalue()


def parsed(data):
    """Parse JSON that may be damaged already."""
    try:
        return json.loads(data)
    except ValueError:
        return {}


def damage(folder, rng):
    """Damage one file; return what was done."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    path = files[rng.integers(len(files))]
    data = path.read_bytes()
    kinds = ["flip"] * 4 + ["cut", "cut", "empty", "garbage", "remove", "swap", "repeat", "zero"]
    if path.suffix == ".json":
        kinds += ["edit"] * 12
    elif path.suffix == ".safetensors" and len(data) > 8:
        kinds += ["header"] * 8
    elif path.suffix == ".bin" and zipfile.is_zipfile(path):
        kinds += ["pickle"] * 8
    kind = kinds[rng.integers(len(kinds))]
    place = int(rng.integers(len(data) + 1))
    match kind:
        case "flip":
            path.write_bytes(flip(data, rng))
        case "cut":
            path.write_bytes(data[:place])
        case "empty":
            path.write_bytes(b"")
        case "garbage":
            path.write_bytes(data + rng.bytes(int(rng.integers(1, 300))))
        case "remove":
            path.unlink()
        case "swap":
            other = files[rng.integers(len(files))]
            content = other.read_bytes()
            other.write_bytes(data)
            path.write_bytes(content)
        case "repeat":
            path.write_bytes(data[:place] + data)
        case "zero":
            path.write_bytes(data[:place] + bytes(min(64, len(data) - place)) + data[place + 64 :])
        case "edit":
            path.write_text(json.dumps(edit(parsed(data), rng)))
        case "header":
            path.write_bytes(edit_header(data, rng))
        case "pickle":
            try:
                path.write_bytes(damage_pickle(data, rng))
            except Exception:  # noqa: BLE001 (an earlier damage left no archive)
                path.write_bytes(data[:place])
    return f"{kind} {path.name} at {place}"


def load(folder, wanted=None):
    """Load a folder as the model does; every byte is read, and compared where it must be whole."""
    config = read_checkpoint_config(folder).config
    weights = load_weights(folder, config)
    assert {name: array.shape for name, array in weights.items()} == published_tensor_shapes(config)
    for name, array in weights.items():
        read = array.tobytes()
        assert wanted is None or read == wanted[name].astype(array.dtype).tobytes(), name


@pytest.fixture(scope="module")
def drawn():
    """The weights that every form holds, rounded to its dtype."""
    return random_weights(CONFIG, np.random.default_rng(0))


def test_every_whole_checkpoint_loads(whole, drawn):
    for form, folder in whole.items():
        load(folder, drawn)
        assert read_checkpoint_config(folder).torch_dtype in ("float16", form.split()[-1])


@pytest.fixture
def no_hang():
    """Ends the process, with a traceback, where a load never comes back."""
    faulthandler.dump_traceback_later(120, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.usefixtures("no_hang")
def test_a_thousand_damaged_checkpoints(whole, drawn, tmp_path):
    forms = list(whole)
    outcomes = {"loaded": 0, "refused": 0}
    for seed in range(NUM_CHECKPOINTS):
        rng = np.random.default_rng(seed)
        form = forms[seed % len(forms)]
        folder = tmp_path / str(seed)
        shutil.copytree(whole[form], folder)
        done = [damage(folder, rng) for _ in range(int(rng.integers(1, 3)))]
        story = f"seed {seed}, {form}, {'; '.join(done)}"
        # Where no file of weights was touched, they load right or not at all.
        damaged_weights = any(".bin at" in text or ".safetensors at" in text for text in done)
        swapped = any(text.startswith("swap") for text in done)
        wanted = None if damaged_weights or swapped else drawn
        started_s = time.perf_counter()
        try:
            load(folder, wanted)
        except (ValueError, OSError) as error:
            outcomes["refused"] += 1
            message = str(error)
            assert 20 < len(message) < 10_000, story
            assert str(folder) in message or "config" in message or _names_a_field(message), (
                f"{story}: {message}"
            )
        except Exception as error:  # noqa: BLE001 (whatever else is a defect)
            pytest.fail(f"{story}: {type(error).__name__}: {error}")
        else:
            outcomes["loaded"] += 1
        assert time.perf_counter() - started_s < PATIENCE_S, story
        shutil.rmtree(folder)
    # Flipped weights load, and so does what only other programs read.
    assert outcomes["refused"] > NUM_CHECKPOINTS // 2
    assert outcomes["loaded"] > NUM_CHECKPOINTS // 20


def _names_a_field(message):
    """Whether a message of GLM2Config names one of its fields."""
    return any(message.startswith(name) for name in GLM2Config.__dataclass_fields__)


LOAD_TOKENIZER = """
import sys
from glm2.tokenizer import ChatGLMTokenizer
for path in sys.argv[1:]:
    print(path, flush=True)
    try:
        tokenizer = ChatGLMTokenizer(path)
        ids = tokenizer.encode("hello, world")
        tokenizer.decode(ids)
    except ValueError as error:
        assert path in str(error), error
"""


def test_damaged_tokenizer_models(real_tokenizer_file, tmp_path):
    data = real_tokenizer_file.read_bytes()
    paths = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        path = tmp_path / f"{seed}.model"
        path.write_bytes(data[: rng.integers(len(data))] if seed % 4 == 0 else flip(data, rng))
        paths.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", LOAD_TOKENIZER, *paths],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONPATH": ":".join(filter(None, sys.path)), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, (done.returncode, done.stdout[-200:], done.stderr[-2000:])
    assert done.stdout.split() == paths
