"""The fuzzer of test_wrong_calls.py for the MindSpore cells, in PyNative mode: a graph takes seconds
to compile, and the checks are the same.

GLM2_WRONG_CALLS is how many wrong calls there are, 240 unless set.
"""

import os
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore", reason="needs MindSpore")

from mindspore import Tensor

import glm2_ops.mindspore as cells

pytestmark = pytest.mark.mindspore
calls = runpy.run_path(str(Path(__file__).with_name("random_calls.py")))
RIGHT_CALLS, shown = calls["RIGHT_CALLS"], calls["shown"]
AXES, violations = calls["rules"]["AXES"], calls["rules"]["violations"]

CALLS = int(os.environ.get("GLM2_WRONG_CALLS", "240"))
CELLS = {
    "flash_attention": lambda _: cells.FlashAttention(scale=0.5),
    "flash_attention_varlen": lambda _: cells.FlashAttentionVarlen(scale=0.5),
    "flash_attention_grad": lambda _: cells.FlashAttentionGrad(scale=0.5),
    "rope_append": lambda _: cells.RopeAppend(),
    "rms_norm": lambda residual: (
        cells.RmsNormResidual(eps=1e-5) if residual else cells.RmsNorm(eps=1e-5)
    ),
    "swiglu": lambda _: cells.Swiglu(),
}
CHANGES = [
    lambda _, a: a.reshape(-1),
    lambda _, a: a[None],
    lambda rng, a: np.swapaxes(a, *rng.integers(0, a.ndim, 2)),
    lambda rng, a: a.astype(calls["choose"](rng, [np.int32, np.int64, np.float16, np.float64])),
    *[calls["resized"]] * 3,
    *[calls["other_value"]] * 4,
]


@pytest.fixture(autouse=True)
def pynative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


@np.errstate(all="ignore")
def changed_operands(rng, operator):
    """Operands of a right call, up to two of them changed; MindSpore holds no empty ones."""
    while True:
        arguments = RIGHT_CALLS[operator](rng)
        if "prefix_len" in AXES[operator]:  # which the cells want always
            arguments.setdefault(
                "prefix_len", np.zeros(len(arguments["cu_seqlens_q"]) - 1, np.int32)
            )
        operands = {name: arguments[name] for name in AXES[operator] if name in arguments}
        for _ in range(calls["choose"](rng, [0, 1, 1, 2])):
            name = calls["choose"](rng, list(operands))
            if operands[name].ndim and operands[name].dtype.name != "bfloat16":
                operands[name] = calls["choose"](rng, CHANGES)(rng, operands[name])
        if all(a.size and a.dtype.name != "bfloat16" for a in operands.values()):
            return {name: np.ascontiguousarray(a) for name, a in operands.items()}


def as_call(operator, operands):
    """The call of the numpy operator: rope_append reads its numbers off the shapes."""
    if operator != "rope_append":
        return operands
    qkv, cos, k_cache = (operands[name] for name in ("qkv", "cos", "k_cache"))
    groups, head_dim = k_cache.shape[1:4:2] if k_cache.ndim == 4 else (1, 16)
    numbers = {
        "num_heads": qkv.shape[-1] // head_dim - 2 * groups,
        "num_kv_heads": groups,
        "rotary_dim": 2 * cos.shape[-1],
    }
    return operands | numbers


def run(operator, operands):
    """Run a cell of its own, for one that refused refuses everything, and wait for its results."""
    outputs = CELLS[operator]("residual" in operands)(*[Tensor(a) for a in operands.values()])
    for output in outputs if isinstance(outputs, tuple) else (outputs,):
        output.asnumpy()


def check_call(operator, operands):
    """Make one call and require what the oracle says of it; return whether it was wrong."""
    broken, _ = violations(operator, as_call(operator, operands))
    message = None
    try:
        run(operator, operands)
    except (RuntimeError, TypeError, ValueError) as error:
        message = str(error)
    if message is None:
        assert not broken, f"no error; the call breaks {broken}"
        return False
    assert broken, f"a right call was refused: {message}"
    named = any(re.search(rf"\b{re.escape(w)}\b", message) for b in broken for w in b.words)
    assert named, f"the error fits no rule of {broken}: {message}"
    return True


@pytest.mark.parametrize("operator", RIGHT_CALLS)
def test_wrong_operands_are_refused_and_right_ones_run(operator):
    wanted = -(-CALLS // len(RIGHT_CALLS))
    wrong = right = 0
    while wrong < wanted:
        seed = [77, wrong + right]
        operands = changed_operands(np.random.default_rng(seed), operator)
        try:
            refused = check_call(operator, operands)
        except AssertionError as error:
            msg = f"{error}\n{operator}, seed {seed}:\n{shown(operands)}"
            raise AssertionError(msg) from error
        wrong += refused
        right += not refused
    assert right > wanted / 5
