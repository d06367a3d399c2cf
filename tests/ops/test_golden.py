"""glm2_ops against the golden files that the reference wrote, by the accuracy rule at level L1."""

import json
from pathlib import Path

import numpy as np
import pytest

glm2_ops = pytest.importorskip(
    "glm2_ops", reason="needs the compiled operators", exc_type=ImportError
)

from glm2_reference.testing import assert_accurate, tnd_from_paged

FOLDER = Path(__file__).parents[1] / "golden" / "reference"
cases = pytest.mark.parametrize("case", ["float16", "float32_float16_cache", "float32"])


def load(subject, case):
    """Return the inputs and the outputs of one case."""
    with np.load(FOLDER / f"{subject}.npz") as arrays:
        return tuple(
            {
                name.removeprefix(f"{case}.{side}."): arrays[name]
                for name in arrays
                if name.startswith(f"{case}.{side}.")
            }
            for side in ("in", "out")
        )


def largest_score_error(q, k_cache):
    """Bound what rounding moves a score by: float32 sums, and q itself where the cache is narrower."""
    head_dim = q.shape[-1]
    relative = head_dim * 2.0**-24 + (2.0**-11 if q.dtype != k_cache.dtype else 0)
    norms = [np.nanmax(np.linalg.norm(x.astype(float), axis=-1)) for x in (q, k_cache)]
    return relative * head_dim**-0.5 * norms[0] * norms[1]


@cases
def test_flash_attention_is_as_accurate_as_the_plain_formula(case):
    operands, wanted = load("flash_attention", case)
    options = json.loads(str(operands.pop("options")))
    o, lse = glm2_ops.flash_attention(**operands, **options, return_lse=True)
    assert o.dtype == wanted["o"].dtype
    assert lse.dtype == wanted["lse"].dtype
    assert_accurate(o, wanted["plain_o"], wanted["golden_o"], "L1")
    atol = largest_score_error(operands["q"], operands["k_cache"]) + 2.0**-20
    np.testing.assert_allclose(lse, wanted["golden_lse"], rtol=2.0**-22, atol=atol)
    blind = np.isneginf(wanted["golden_lse"])
    assert blind.any()
    assert np.array_equal(o[blind], np.zeros_like(o[blind]))


@cases
def test_flash_attention_without_the_prefix_is_noticed(case):
    operands, wanted = load("flash_attention", case)
    options = json.loads(str(operands.pop("options")))
    operands["prefix_len"] = np.zeros_like(operands["prefix_len"])
    o = glm2_ops.flash_attention(**operands, **options)
    with pytest.raises(AssertionError, match="got is less accurate than L1 allows"):
        assert_accurate(o, wanted["plain_o"], wanted["golden_o"], "L1")


@cases
def test_rope_append_writes_what_the_reference_writes(case):
    operands, wanted = load("rope_append", case)
    sizes = json.loads(str(operands.pop("sizes")))
    k_cache, v_cache = operands["k_cache"], operands["v_cache"]
    q = glm2_ops.rope_append(**operands, **sizes)
    assert_accurate(q, wanted["q"], wanted["golden_q"], "L1")
    new = new_rows(operands)
    keys, plain_keys = (
        tnd_from_paged(cache, operands["block_table"], operands["seq_len_kv"])[new]
        for cache in (k_cache, wanted["k_cache"])
    )
    assert_accurate(keys, plain_keys, wanted["golden_k"], "L1")
    # What does not rotate is copied, and the slots of other tokens are left alone.
    assert np.array_equal(v_cache, wanted["v_cache"])
    rotary_dim = sizes["rotary_dim"]
    assert np.array_equal(k_cache[..., rotary_dim:], wanted["k_cache"][..., rotary_dim:])
    before = load("rope_append", case)[0]["k_cache"]
    assert np.array_equal(k_cache != before, wanted["k_cache"] != before)


def new_rows(operands):
    """Return which cached tokens a call appends, of all sequences one after another."""
    len_q = np.diff(operands["cu_seqlens_q"])
    return np.concatenate(
        [
            np.arange(length) >= length - appended
            for length, appended in zip(operands["seq_len_kv"], len_q, strict=True)
        ]
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rms_norm_is_as_accurate_as_the_recorded_formula(dtype):
    operands, wanted = load("layers", f"rms_norm_{dtype}")
    eps = float(operands.pop("eps"))
    y, total = glm2_ops.rms_norm(**operands, eps=eps)
    assert np.array_equal(total, wanted["total"])
    assert_accurate(y, wanted["out_of_total"], wanted["golden_out_of_total"], "L1")
    y = glm2_ops.rms_norm(operands["x"], operands["weight"], eps=eps)
    assert_accurate(y, wanted["out"], wanted["golden_out"], "L1")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_swiglu_is_as_accurate_as_the_recorded_formula(dtype):
    operands, wanted = load("layers", f"swiglu_{dtype}")
    assert_accurate(glm2_ops.swiglu(**operands), wanted["out"], wanted["golden_out"], "L1")
