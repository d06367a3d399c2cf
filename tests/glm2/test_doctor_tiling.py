"""``glm2 doctor --tiling``: plans printed, as text and as JSON, and wrong options."""

import json
import sys

import pytest

import glm2.cli
from glm2_ops.tiling import PLANNED_OPERATORS


@pytest.fixture
def doctor(monkeypatch, capfd):
    """``doctor(*arguments)``: exit code, stdout, stderr."""

    def invoke(*arguments):
        monkeypatch.setattr(sys, "argv", ["glm2", "doctor", *arguments])
        with pytest.raises(SystemExit) as left:
            glm2.cli.main()
        captured = capfd.readouterr()
        return left.value.code or 0, captured.out, " ".join(captured.err.split())

    monkeypatch.delenv("GLM2_DEBUG", raising=False)
    return invoke


@pytest.mark.parametrize("operator", PLANNED_OPERATORS)
def test_plans_of_both_targets_are_printed(doctor, operator):
    code, out, err = doctor("--tiling", operator, "--seq-len-q", "512")
    assert (code, err) == (0, "")
    assert out.startswith(f"{operator}: ")
    cpu, npu = out.split("\nthis CPU (twin)\n")[1].split("\nan NPU (dav-2201)\n")
    for plan in (cpu, npu):
        names = [line.split()[0] for line in plan.splitlines() if line]
        assert names[:3] == ["tiles", "cores", "ub"]
        assert names[-2:] == ["workspace", "why"]


def test_the_route_of_a_quantised_weight_is_told(doctor):
    _, out, _ = doctor("--tiling", "quant_matmul")
    assert out.count("  why        int4 weights and tokens as two int4 digits") == 2
    _, out, _ = doctor("--tiling", "quant_matmul", "--weight-format", "fp16", "--seq-len-q", "99")
    assert out.count("  why        float16 weights as they are") == 2
    options = ["--weight-format", "int4-g64", "--in-features", "100"]
    code, out, _ = doctor("--tiling", "quant_matmul", *options)
    assert code == 1
    assert "refused    the group is 64 of 100 columns; it must be 32, 64 or 128" in out


def test_split_keys_are_told(doctor):
    _, out, _ = doctor("--tiling", "flash_attention", "--seq-len-kv", "4096", "--batch", "2")
    told = (
        "  split      keys of 2 sequences cut every 1,024, into 8 parts in all, which take 133,120 "
    )
    assert out.count(told) == 2
    assert out.count("\n  ub_combine ") == 2
    _, out, _ = doctor("--tiling", "flash_attention", "--seq-len-kv", "1024")
    assert "split" not in out
    assert "ub_combine" not in out


def test_the_shape_is_that_of_the_options(doctor):
    options = ["--heads", "16", "--kv-heads", "1", "--head-dim", "64", "--dtype", "float32"]
    code, out, _ = doctor("--tiling", "flash_attention", "--batch", "3", *options, "--json")
    assert code == 0
    report = json.loads(out)
    assert report["operator"] == "flash_attention"
    expected = {"heads": 16, "kv_heads": 1, "head_dim": 64, "dtype": "float32", "batch": 3}
    assert expected.items() <= report["shape"].items()
    assert report["shape"]["cache_dtype"] == "float32"
    assert report["plans"]["npu"]["cores"] == 12  # four parts of 4096 keys a sequence
    assert report["plans"]["npu"]["memory"]["l1"]["capacity_bytes"] == 524032


def test_a_refusal_is_told_and_is_exit_code_1(doctor):
    code, out, _ = doctor("--tiling", "flash_attention", "--heads", "30", "--kv-heads", "4")
    assert code == 1
    assert out.count("  refused    q has 30 heads and k has 4; num_heads must be") == 2
    code, out, _ = doctor("--tiling", "rms_norm", "--hidden-size", "20000", "--json")
    assert code == 1
    assert json.loads(out)["plans"]["npu"] == {
        "error": "hidden_size is 20000; it must be 1 to 11264"
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tiling", "softmax"], "--tiling is 'softmax'; expected one of flash_attention"),
        (["--tiling", "swiglu", "--heads", "2"], "swiglu has no --heads; it takes --ffn-hidden"),
        (["--heads", "2", "--dtype", "float16"], "--heads, --dtype: for --tiling OP"),
        (["folder", "--tiling", "swiglu"], "and folder is a checkpoint; give one of them"),
        (["--tiling", "swiglu", "--batch", "0"], "Invalid value for '--batch'"),
    ],
)
def test_wrong_options_are_usage_errors(doctor, arguments, message):
    code, out, err = doctor(*arguments)
    assert (code, out) == (2, "")
    assert message in err
