"""The kernel's schedule in the reference: what the kernel moved, and what attention is."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm2_reference.memory import Memory, MemoryLimitError
from glm2_reference.memory_systems import A100, ASCEND_A2
from glm2_reference.schedules.ascend_forward import ascend_forward
from glm2_reference.schedules.ascend_tiling import AscendTiling, choose_tiling
from glm2_reference.testing import (
    paged_from_tnd,
    ragged_attention,
    random_block_table,
    random_ragged,
)

RECORDED = json.loads((Path(__file__).parents[1] / "golden/kernel_copies.json").read_text())
# Which moves go through which kind of copy.
COPIES = {
    "nd2nz": [
        ("gm", "l1", "q"), ("gm", "l1", "k"), ("gm", "l1", "v"),
        ("l2", "l1", "probs"), ("l2", "l1", "q_cast"),
    ],
    "data_copy_in": [
        ("l2", "ub", "scores"), ("l2", "ub", "acc"),
        ("l2", "ub", "part_acc"), ("l2", "ub", "part_max"), ("l2", "ub", "part_sum"),
    ],
    "data_copy_out": [
        ("ub", "l2", "probs"), ("ub", "l2", "q_cast"),
        ("ub", "l2", "part_acc"), ("ub", "l2", "part_max"), ("ub", "l2", "part_sum"),
    ],
    "data_copy_pad_in": [("gm", "ub", "q")],
    "data_copy_pad_out": [("ub", "gm", "o"), ("ub", "gm", "lse")],
    "fixpipe": [("l0c", "l2", "scores"), ("l0c", "l2", "acc")],
    "load_l0a": [("l1", "l0a", "q"), ("l1", "l0a", "probs")],
    "load_l0b": [("l1", "l0b", "k"), ("l1", "l0b", "v")],
}  # fmt: skip


def make(case):
    """Draw the operator's arguments."""
    rng = np.random.default_rng(0)
    problem = random_ragged(
        rng, seq_lens_q=case["seq_lens_q"], seq_lens_kv=case["seq_lens_kv"],
        num_heads=case["num_heads"], num_kv_heads=case["num_kv_heads"],
        head_dim=case["head_dim"], dtype=case["dtype"], kv_dtype=case["kv_dtype"],
    )  # fmt: skip
    size = case["page_size"]
    table, num_pages = random_block_table(rng, problem.seq_len_kv, page_size=size)
    caches = [
        paged_from_tnd(x, problem.cu_seqlens_kv, table, num_pages=num_pages, page_size=size)
        for x in (problem.k, problem.v)
    ]
    options = dict(case["options"])
    if "prefix_len" in options:
        options["prefix_len"] = np.array(options["prefix_len"], np.int32)
    arguments = (problem.q, *caches, table, problem.cu_seqlens_q, problem.seq_len_kv)
    return problem, arguments, options


@pytest.mark.parametrize("record", RECORDED["cases"], ids=range(len(RECORDED["cases"])))
def test_it_moves_what_the_kernel_moved(record):
    _, arguments, options = make(record["case"])
    memory = Memory(ASCEND_A2, compute=False)
    ascend_forward(memory, *arguments, **options, return_lse=record["case"]["return_lse"])
    for copy, moves in COPIES.items():
        moved = [memory.traffic[move] for move in moves if move in memory.traffic]
        assert [sum(x.bytes for x in moved), sum(x.bursts for x in moved)] == (
            record["copies"][copy]
        ), copy
    assert set(memory.traffic) <= {move for moves in COPIES.values() for move in moves}


@pytest.mark.parametrize("record", RECORDED["cases"], ids=range(len(RECORDED["cases"])))
def test_it_computes_attention(record):
    problem, arguments, options = make(record["case"])
    memory = Memory(ASCEND_A2)
    o, lse = ascend_forward(memory, *arguments, **options)
    golden, golden_lse = ragged_attention(problem, dtype=np.float64, **options)
    tolerance = 2e-2 if problem.k.dtype == np.float16 else 2e-5
    np.testing.assert_allclose(o, golden, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(lse, golden_lse, rtol=2e-3, atol=2e-3)
    assert set(memory.used_bytes.values()) == {0}


CHAT = {
    "seq_lens_q": [1], "seq_lens_kv": [4096], "num_heads": 32, "num_kv_heads": 2, "head_dim": 128,
    "page_size": 128, "dtype": "float16", "kv_dtype": "float16", "options": {},
}  # fmt: skip


def counted(**changes):
    memory = Memory(ASCEND_A2, compute=False)
    _, arguments, options = make({**CHAT, **changes})
    ascend_forward(memory, *arguments, **options)
    return memory


def test_a_decode_step_reads_each_key_once_in_bursts_of_a_page():
    memory = counted()
    gm = memory.counters()["gm"]
    assert gm["k"]["read_bytes"] == gm["v"]["read_bytes"] == 4096 * 2 * 128 * 2
    assert gm["k"]["bursts"] == 2 * 4096 // 128  # 32 KB each
    assert gm["q"]["read_bytes"] == 4 * 32 * 128 * 2  # once a part
    assert gm["o"]["write_bytes"] == 32 * 128 * 2
    assert gm["lse"]["write_bytes"] == 32 * 4


def test_parts_of_keys_are_written_once_and_read_once():
    memory = counted()
    parts, rows = 4, 32
    for name, row_bytes in (("part_acc", 128 * 4), ("part_max", 4), ("part_sum", 4)):
        assert memory.write_bytes("l2", name) == parts * rows * row_bytes
        assert memory.read_bytes("l2", name) == parts * rows * row_bytes


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"seq_lens_kv": [1024]}, 0),
        ({"seq_lens_kv": [1025]}, 2),
        ({"seq_lens_q": [8]}, 8 * 4),  # 8 tokens are one Q tile: 8 times the rows
        ({"seq_lens_q": [9]}, 0),
        ({"options": {"window": 100}}, 0),  # keys of one part
        ({"options": {"window": 1025}}, 2),
        ({"options": {"window": 100, "prefix_len": [1]}}, 4),
        ({"seq_lens_q": [1, 0, 20], "seq_lens_kv": [2000, 5000, 5000]}, 2),
    ],
)
def test_keys_are_cut_where_one_q_tile_holds_all_queries(changes, parts):
    assert counted(**changes).write_bytes("l2", "part_max") == parts * 32 * 4


@given(
    lens=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 300)), min_size=1, max_size=3),
    heads=st.sampled_from([(2, 2), (7, 1), (32, 2)]), window=st.none() | st.integers(1, 200),
    causal=st.booleans(), prefix=st.integers(0, 300), split_keys=st.sampled_from([16, 32, 128]),
)  # fmt: skip
def test_parts_add_up_to_attention(lens, heads, window, causal, prefix, split_keys):
    seq_lens_q, seq_lens_kv = zip(*lens, strict=True)
    options = {"window": window, "causal": causal}
    if prefix:
        options["prefix_len"] = [min(prefix, length) for length in seq_lens_kv]
    problem, arguments, options = make(
        {
            "seq_lens_q": seq_lens_q, "seq_lens_kv": seq_lens_kv, "num_heads": heads[0],
            "num_kv_heads": heads[1], "head_dim": 16, "dtype": "float64", "kv_dtype": "float64",
            "page_size": 16, "options": options,
        }
    )  # fmt: skip
    tiling = dataclasses.replace(
        choose_tiling(group_size=heads[0] // heads[1], head_dim=16, cache_bytes=4),
        block_n=16, l0_block_k=32, split_keys=split_keys,
    )  # fmt: skip
    o, lse = ascend_forward(Memory(ASCEND_A2), *arguments, **options, tiling=tiling)
    golden, golden_lse = ragged_attention(problem, dtype=np.float64, **options)
    np.testing.assert_allclose(o, golden, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(lse, golden_lse, rtol=1e-12, atol=1e-12)


def test_heads_that_share_keys_add_no_gm_traffic_in_decoding():
    one, sixteen = counted(num_heads=2), counted(num_heads=32)
    for name in ("k", "v"):
        assert one.read_bytes("gm", name) == sixteen.read_bytes("gm", name)


def test_a_causal_prefill_skips_what_nobody_sees():
    causal = counted(seq_lens_q=[1024], seq_lens_kv=[1024])
    whole = counted(seq_lens_q=[1024], seq_lens_kv=[1024], options={"causal": False})
    tiles, keys = 1024 // 8, 2 * 128 * 2  # 8 tokens a tile; bytes of a key of both groups
    assert whole.read_bytes("gm", "k") == tiles * 1024 * keys
    assert causal.read_bytes("gm", "k") == sum(8 * (i + 1) for i in range(tiles)) * keys


@given(
    queries=st.lists(st.integers(0, 40), min_size=1, max_size=3), past=st.integers(0, 300),
    heads=st.sampled_from([(4, 2), (6, 1), (3, 3)]), page_size=st.sampled_from([16, 48, 128]),
)  # fmt: skip
def test_output_is_written_once_and_scores_are_read_as_written(queries, past, heads, page_size):
    num_heads, num_kv_heads = heads
    memory = counted(
        seq_lens_q=queries, seq_lens_kv=[n + past for n in queries], num_heads=num_heads,
        num_kv_heads=num_kv_heads, head_dim=32, page_size=page_size,
    )  # fmt: skip
    tokens = sum(queries)
    assert memory.write_bytes("gm", "o") == tokens * num_heads * 32 * 2
    assert memory.write_bytes("gm", "lse") == tokens * num_heads * 4
    assert memory.read_bytes("l2", "acc") == memory.write_bytes("l2", "acc")
    # Scores are written in whole fractals and read in whole vectors of 64.
    assert memory.read_bytes("l2", "scores") >= memory.write_bytes("l2", "scores")


def test_tiles_shrink_until_they_fit():
    assert choose_tiling(group_size=16, head_dim=128, cache_bytes=2) == AscendTiling(
        tokens_per_block=8, block_m=128, block_n=256, l0_block_k=128, l0_block_n=128, vec_rows=32,
        split_keys=1024,
    )  # fmt: skip
    assert choose_tiling(group_size=16, head_dim=256, cache_bytes=2).block_n == 128
    assert choose_tiling(group_size=5, head_dim=32, cache_bytes=2).block_m == 128  # 125 rows
    assert choose_tiling(group_size=1, head_dim=256, cache_bytes=4).block_n == 64


def test_tiles_that_cannot_fit_are_refused():
    with pytest.raises(MemoryLimitError, match=r"l1 needs .* head_dim=1024 .* lower block_m or"):
        choose_tiling(group_size=16, head_dim=1024, cache_bytes=4)


def test_another_machine_is_refused():
    _, arguments, _ = make(CHAT)
    with pytest.raises(ValueError, match="a100 has no memory called 'l1'"):
        ascend_forward(Memory(A100, compute=False), *arguments)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (3, np.full((1, 32), -1, np.int32), r"block_table\[0, 0\] is -1"),
        (5, np.array([99999], np.int32), r"seq_len_kv\[0\] is 99999"),
        (4, np.array([0, 2], np.int32), "cu_seqlens_q ends at 2"),
    ],
)
def test_contradicting_arguments_are_refused(position, value, message):
    _, arguments, _ = make(CHAT)
    arguments = list(arguments)
    arguments[position] = value
    with pytest.raises(ValueError, match=message):
        ascend_forward(Memory(ASCEND_A2, compute=False), *arguments)


def test_shapes_that_the_kernel_does_not_serve_are_refused():
    for group_size, cache_bytes in ((0, 2), (-1, 2), (200, 2), (16, 3)):
        with pytest.raises(
            ValueError, match=f"group_size is {group_size}, .* {cache_bytes}; expec"
        ):
            choose_tiling(group_size=group_size, head_dim=128, cache_bytes=cache_bytes)
