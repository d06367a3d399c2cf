"""`glm2_ops.tiling`: what the host tilings choose, on this CPU and for an NPU."""

import pytest

import glm2_ops
from glm2_ops.tiling import PLANNED_OPERATORS, tiling_plan

HEADS = {"num_heads": 32, "num_kv_heads": 2, "head_dim": 128}
SHAPES = {
    "flash_attention": {
        **HEADS, "dtype": "float16", "cache_dtype": "float16", "page_size": 128,
        "seq_lens_q": [300, 7], "seq_lens_kv": [300, 4096],
    },
    "flash_attention_grad": {
        **HEADS, "dtype": "bfloat16", "seq_lens_q": [300, 7], "seq_lens_kv": [300, 9],
    },
    "quant_matmul": {
        "dtype": "float16", "weight_format": "int4", "activation_bits": 8, "num_rows": 1,
        "in_features": 4096, "out_features": 27392,
    },
    "rms_norm": {"dtype": "float16", "num_rows": 512, "hidden_size": 4096, "residual": True},
    "rope_append": {
        **HEADS, "dtype": "float32", "cache_dtype": "float16", "num_tokens": 512,
        "rotary_dim": 64, "page_size": 128,
    },
    "swiglu": {"dtype": "float16", "num_rows": 512, "width": 13696},
}  # fmt: skip


def test_every_planned_operator_is_tried():
    assert set(SHAPES) == set(PLANNED_OPERATORS)


@pytest.mark.parametrize("target", ["twin", "npu"])
@pytest.mark.parametrize("operator", SHAPES)
def test_a_plan_fits_and_adds_up(operator, target):
    plan = tiling_plan(operator, target, **SHAPES[operator])
    assert 1 <= plan["cores"] <= plan["cores_available"]
    assert "ub" in plan["memory"]
    for memory in plan["memory"].values():
        assert sum(memory["buffers"].values()) == memory["used_bytes"] <= memory["capacity_bytes"]
    behind = plan["split"]["workspace_bytes"] if plan["split"] else 0
    assert plan["workspace_bytes"] == plan["cores"] * plan["workspace_bytes_per_core"] + behind
    assert (plan["split"] is not None) == ("ub_combine" in plan["memory"])
    assert plan["reason"]


def test_targets_differ_in_cores_and_in_tasks_in_flight():
    shape = SHAPES["flash_attention"]
    twin, npu = (tiling_plan("flash_attention", target, **shape) for target in ("twin", "npu"))
    assert twin["cores_available"] == glm2_ops.build_info()["threads"]
    assert (twin["task_slots"], npu["task_slots"]) == (1, 3)
    assert npu["cores_available"] == 24
    assert tiling_plan("swiglu", "npu", **SHAPES["swiglu"])["cores_available"] == 48
    assert npu["workspace_bytes_per_core"] > twin["workspace_bytes_per_core"]


def test_split_keys_show_their_parts_and_what_they_take():
    shape = {**SHAPES["flash_attention"], "seq_lens_q": [1, 300, 3], "seq_lens_kv": [4096, 4096, 9]}
    plan = tiling_plan("flash_attention", "npu", **shape)
    part = 2 * 16 * (128 + 2) * 4  # groups x rows x (acc, row_max and row_sum)
    assert plan["split"] == {
        "keys_per_part": 1024, "sequences": 1, "parts": 4, "workspace_bytes": 4 * part,
    }  # fmt: skip
    assert plan["memory"]["ub_combine"]["used_bytes"] < plan["memory"]["ub"]["used_bytes"]
    shape["seq_lens_kv"] = [1024, 4096, 9]
    assert tiling_plan("flash_attention", "npu", **shape)["split"] is None


def test_wider_types_take_smaller_tiles():
    shape = {**SHAPES["flash_attention"], "head_dim": 256}
    narrow = tiling_plan("flash_attention", "npu", **shape)["tiles"]["block_n"]
    shape |= {"dtype": "float32", "cache_dtype": "float32"}
    wide = tiling_plan("flash_attention", "npu", **shape)
    assert wide["tiles"]["block_n"] < narrow
    assert f"with block_n {2 * wide['tiles']['block_n']}, L1 needs" in wide["reason"]


@pytest.mark.parametrize(
    ("operator", "changed", "message"),
    [
        ("flash_attention", {"num_heads": 30, "num_kv_heads": 4}, "q has 30 heads and k has 4"),
        ("flash_attention", {"dtype": "half"}, "dtype is 'half'; expected one of float16"),
        ("flash_attention", {"cache_dtype": "float32"}, "the cache must have the queries' type"),
        ("flash_attention", {"page_size": -1}, "page_size is -1; expected 0 to"),
        ("flash_attention", {"page_size": 0}, "page_size is 0; it must be a multiple of 16"),
        ("flash_attention", {"seq_lens_q": []}, "seq_lens_q is \\[\\]; expected lengths"),
        ("flash_attention", {"seq_lens_q": [2**31]}, "expected lengths of at most 2147483647"),
        ("flash_attention", {"seq_lens_q": [1]}, "seq_lens_q has 1 sequences and seq_lens_kv has"),
        ("flash_attention_grad", {"head_dim": 24}, "head_dim is 24; it must be a multiple of 16"),
        (
            "quant_matmul",
            {"weight_format": "int2"},
            "weight_format is 'int2'; expected one of fp16",
        ),
        ("quant_matmul", {"in_features": 20000}, "in_features is 20000; it must be 1 to 16384"),
        ("quant_matmul", {"activation_bits": 4}, "activation_bits is 4; it must be 16, or 8"),
        ("rms_norm", {"hidden_size": 20000}, "hidden_size is 20000; it must be 1 to 11264"),
        ("rope_append", {"rotary_dim": 256}, "rotary_dim is 256; it must be a multiple of 8"),
        ("swiglu", {"width": 0}, "width is 0; it must be positive"),
    ],
)
def test_a_wrong_shape_is_refused(operator, changed, message):
    with pytest.raises(ValueError, match=message):
        tiling_plan(operator, "npu", **{**SHAPES[operator], **changed})


def test_wrong_names_are_refused():
    with pytest.raises(ValueError, match="operator is 'softmax'; expected one of flash_attention"):
        tiling_plan("softmax", "npu")
    with pytest.raises(ValueError, match="target is 'gpu'; expected 'twin' or 'npu'"):
        tiling_plan("swiglu", "gpu", **SHAPES["swiglu"])
    with pytest.raises(ValueError, match="swiglu takes dtype, num_rows, width; got nothing"):
        tiling_plan("swiglu", "npu")
    with pytest.raises(TypeError):
        tiling_plan("swiglu", "npu", **{**SHAPES["swiglu"], "width": "wide"})
