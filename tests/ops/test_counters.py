"""What the kernels move in check mode, against the reference's schedule and closed forms: exactly."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glm2_ops
from glm2_reference.memory import Memory
from glm2_reference.memory_systems import ASCEND_A2
from glm2_reference.schedules.ascend_forward import ascend_forward
from glm2_reference.testing import paged_from_tnd, random_block_table, random_ragged

RECORDED = json.loads((Path(__file__).parents[1] / "golden/kernel_copies.json").read_text())
WORKSPACE = "workspace"


def attention(case):
    """Draw the operands of a recorded case."""
    rng = np.random.default_rng(0)
    p = random_ragged(
        rng, seq_lens_q=case["seq_lens_q"], seq_lens_kv=case["seq_lens_kv"],
        num_heads=case["num_heads"], num_kv_heads=case["num_kv_heads"],
        head_dim=case["head_dim"], dtype=case["dtype"], kv_dtype=case["kv_dtype"],
    )  # fmt: skip
    size = case["page_size"]
    table, pages = random_block_table(rng, p.seq_len_kv, page_size=size)
    caches = [
        paged_from_tnd(x, p.cu_seqlens_kv, table, num_pages=pages, page_size=size)
        for x in (p.k, p.v)
    ]
    options = dict(case["options"])
    if options.get("prefix_len") is not None:
        options["prefix_len"] = np.array(options["prefix_len"], np.int32)
    options["return_lse"] = case["return_lse"]
    return (p.q, *caches, table, p.cu_seqlens_q, p.seq_len_kv), options


def reference_counts(operands, options):
    """Return the schedule's traffic by (level, tensor, field), of GM, workspace and L1 to L0."""
    memory = Memory(ASCEND_A2, compute=False)
    ascend_forward(memory, *operands, **options)
    counts = {}
    for (source, target, tensor), traffic in memory.traffic.items():
        for level, field in ((source, "read_bytes"), (target, "write_bytes")):
            name = {"l2": WORKSPACE}.get(level, level)
            # In L1 and L0 the schedule calls q what was rounded from it.
            tensor_name = "q_cast" if tensor == "q_cast" and name == WORKSPACE else tensor
            for key, value in ((field, traffic.bytes), ("bursts", traffic.bursts)):
                at = (name, tensor_name, key)
                counts[at] = counts.get(at, 0) + value
    return counts


def kernel_counts(counters):
    """Return a kernel's counters in the same form."""
    return {
        (level, tensor, field): value
        for level in ("gm", WORKSPACE, "l1", "l0a", "l0b", "l0c", "ub")
        for tensor, fields in counters[level].items()
        for field, value in fields.items()
        if value != 0
    }


def merge_q(counts):
    """Count q and what was rounded from it as one, inside of the core."""
    merged = {}
    for (level, tensor, field), value in counts.items():
        inside = level in ("l1", "l0a", "l0b")
        at = (level, "q" if inside and tensor == "q_cast" else tensor, field)
        merged[at] = merged.get(at, 0) + value
    return merged


def assert_counts_agree(case, **settings_):
    operands, options = attention(case)
    report = glm2_ops.check("flash_attention", *operands, schedules=0, **settings_, **options)
    (counters,) = report.counters
    assert counters["kernel"] == "flash_attention"
    assert counters["calls"] == 1
    wanted = {at: n for at, n in reference_counts(operands, options).items() if n != 0}
    assert merge_q(kernel_counts(counters)) == merge_q(wanted)


@pytest.mark.parametrize("record", RECORDED["cases"], ids=range(len(RECORDED["cases"])))
def test_recorded_cases_move_what_the_schedule_says(record):
    assert_counts_agree(record["case"])


@settings(max_examples=60)
@given(
    lens=st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 300)).filter(any), min_size=1, max_size=3
    ),
    heads=st.sampled_from([(2, 2), (7, 1), (32, 2), (12, 4), (3, 3)]),
    head_dim=st.sampled_from([16, 64, 80, 128, 256]),
    page_size=st.sampled_from([16, 48, 128]),
    dtypes=st.sampled_from(
        [("float16", "float16"), ("float32", "float16"), ("float32", "float32")]
    ),
    window=st.none() | st.integers(1, 200), causal=st.booleans(), lse=st.booleans(),
    cores=st.integers(1, 4),
)  # fmt: skip
def test_any_shape_moves_what_the_schedule_says(
    lens, heads, head_dim, page_size, dtypes, window, causal, lse, cores
):
    lens = [(queries, max(queries, keys)) for queries, keys in lens]
    if sum(queries for queries, _ in lens) == 0:
        lens.append((1, 5))
    case = {
        "seq_lens_q": [x for x, _ in lens], "seq_lens_kv": [x for _, x in lens],
        "num_heads": heads[0], "num_kv_heads": heads[1], "head_dim": head_dim,
        "dtype": dtypes[0], "kv_dtype": dtypes[1], "page_size": page_size,
        "options": {"window": window, "causal": causal}, "return_lse": lse,
    }  # fmt: skip
    assert_counts_agree(case, cores=cores)


def test_a_long_context_is_split_as_the_schedule_says():
    case = {
        "seq_lens_q": [1, 3], "seq_lens_kv": [5000, 2100], "num_heads": 32, "num_kv_heads": 2,
        "head_dim": 128, "dtype": "float16", "kv_dtype": "float16", "page_size": 128,
        "options": {}, "return_lse": True,
    }  # fmt: skip
    for cores in (1, 3):
        assert_counts_agree(case, cores=cores)


@pytest.mark.parametrize("rows", [1, 37, 200])
@pytest.mark.parametrize("width", [33, 1000, 13696])
def test_swiglu_reads_and_writes_once(rows, width):
    x = np.ones((rows, 2 * width), np.float16)
    (counters,) = glm2_ops.check("swiglu", x, schedules=0, cores=2).counters
    nbytes = rows * width * 2
    assert counters["gm"]["x"]["read_bytes"] == 2 * nbytes
    assert counters["gm"]["out"]["write_bytes"] == nbytes
    assert counters["ub"]["x"]["write_bytes"] == 2 * nbytes
    assert counters["workspace"] == {}


@pytest.mark.parametrize("cores", [1, 3])
def test_rms_norm_reads_rows_once_and_the_weight_once_a_core(cores):
    x = np.ones((100, 512), np.float32)
    weight, residual = x[0].copy(), x.copy()
    report = glm2_ops.check(
        "rms_norm", x, weight, eps=1e-5, residual=residual, schedules=0, cores=cores
    )
    (counters,) = report.counters
    gm = counters["gm"]
    for name in ("x", "residual"):
        assert gm[name]["read_bytes"] == x.nbytes
    for name in ("y", "total"):
        assert gm[name]["write_bytes"] == x.nbytes
    assert gm["weight"] == {
        "read_bytes": cores * 512 * 4, "write_bytes": 0, "bursts": cores
    }  # fmt: skip
    assert counters["instructions"]["V"] > 0
