"""``glm2 make-checkpoint`` and ``glm2 convert`` from the command line."""

import io
import json
import sys

import numpy as np
import pytest

import glm2.cli
from glm2.config import read_checkpoint_config
from glm2.packed_format import PackedFormat
from glm2.quantized_checkpoint import load_packed, load_published_quantized
from glm2.synthetic_checkpoint import LIKE
from glm2.weights import OUTPUT, load_weights


@pytest.fixture
def run(monkeypatch, capfd):
    """``run(*arguments)``: exit code, stdout, stderr of the command line."""

    def invoke(*arguments):
        monkeypatch.setattr(sys, "argv", ["glm2", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with pytest.raises(SystemExit) as left:
            glm2.cli.main()
        captured = capfd.readouterr()
        return left.value.code or 0, captured.out, captured.err

    monkeypatch.delenv("GLM2_DEBUG", raising=False)
    return invoke


@pytest.fixture
def made(run, tmp_path):
    """A tiny random checkpoint."""
    folder = tmp_path / "made"
    assert run("make-checkpoint", "--like", "tiny", folder)[0] == 0
    return folder


def test_make_checkpoint(run, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"pieces")
    code, out, err = run(
        "make-checkpoint", "--like", "tiny", "--seed", "7", tmp_path / "made", "--dtype", "float32",
        "--tokenizer", tmp_path / "tokenizer.model",
    )  # fmt: skip
    assert (code, err) == (0, "Writing random weights ...\n")
    assert out == f"{tmp_path / 'made'}: random weights like tiny, float32, seed 7\n"
    weights = load_weights(tmp_path / "made", LIKE["tiny"])
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float32)}
    assert (tmp_path / "made" / "tokenizer.model").read_bytes() == b"pieces"
    code, _, err = run("make-checkpoint", "--like", "tiny", tmp_path / "made")
    assert code == 1
    assert "already exists and is not an empty folder" in err


FORMATS = {
    (): ("int4", "int8", 8),
    ("--quantize", "int8"): ("int8", "int8", 8),
    ("--quantize", "none"): ("fp16", "fp16", 8),
    ("--quantize", "none", "--head", "int4"): ("fp16", "int4", 8),
    ("--quantize", "int4-g32", "--head", "fp16"): ("int4-g32", "fp16", 8),
    ("--quantize", "int4", "--activation-bits", "16"): ("int4", "int8", 16),
}


@pytest.mark.parametrize("options", FORMATS, ids=" ".join)
def test_convert(run, made, tmp_path, options):
    code, out, err = run("convert", made, tmp_path / "packed", *options)
    assert (code, err) == (0, "Converting ...\n")
    assert f"{tmp_path / 'packed'}: " in out
    assert ", checked, in 0 s" in out
    weights, head, bits = FORMATS[options]
    wanted = PackedFormat(weights=weights, head=head, activation_bits=bits)
    assert read_checkpoint_config(tmp_path / "packed").packed == wanted
    assert load_packed(tmp_path / "packed", LIKE["tiny"], wanted)


def test_convert_to_the_published_form_and_from_it(run, made, tmp_path):
    published, packed = tmp_path / "published", tmp_path / "packed"
    assert run("convert", made, published, "--quantize", "int8", "--to", "hf")[0] == 0
    assert load_published_quantized(published, LIKE["tiny"], 8)
    assert json.loads((published / "config.json").read_text())["quantization_bit"] == 8
    code, out, _ = run("convert", published, packed)  # what it is
    assert (code, "int8" in out) == (0, True)
    code, _, err = run("convert", packed, tmp_path / "again", "--to", "hf")
    assert code == 0
    assert "its output layer is int8: the published one gets what these integers stand for" in err
    first, again = (
        load_published_quantized(folder, LIKE["tiny"], 8)
        for folder in (published, tmp_path / "again")
    )
    changed = {name for name in first if first[name].tobytes() != again[name].tobytes()}
    assert changed == {OUTPUT}
    assert np.abs(first[OUTPUT] - again[OUTPUT]).max() < 0.01 * np.abs(first[OUTPUT]).max()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--quantize", "int3"), 2, "--quantize is 'int3'; expected one of int4, int8"),
        (("--head", "int2"), 2, "--head is 'int2'; expected one of fp16, int8, int4"),
        (("--to", "gguf"), 2, "--to is 'gguf'; expected one of packed, hf"),
        (("--activation-bits", "4"), 2, "expected one of 8, 16"),
        (("--to", "hf", "--quantize", "int4-g32"), 2, "--to hf writes the published form"),
        (("--to", "hf", "--head", "int8"), 2, "an output layer of floats"),
    ],
)
def test_wrong_options_of_convert(run, made, tmp_path, options, code, message):
    got, out, err = run("convert", made, tmp_path / "packed", *options)
    assert (got, out) == (code, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert not (tmp_path / "packed").exists()


def test_wrong_sources_and_shapes(run, tmp_path):
    code, _, err = run("convert", tmp_path / "nowhere", tmp_path / "packed")
    assert code == 1
    assert "nowhere" in err
    code, _, err = run("make-checkpoint", "--like", "llama", tmp_path / "made")
    assert code == 1
    assert "--like is 'llama'; expected chatglm2-6b, chatglm3-6b, tiny, or a folder" in err
