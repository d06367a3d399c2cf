"""Tile schedules: counts are the papers' formulas, to the byte, tails included."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2_reference.memory import Memory
from glm2_reference.memory_systems import A100
from glm2_reference.schedules import closed_forms
from glm2_reference.schedules.block_sparse import block_sparse_forward, butterfly_mask
from glm2_reference.schedules.flash1 import flash1_forward
from glm2_reference.schedules.heads import (
    BACKWARD,
    FORWARD,
    HeadShape,
    run_backward,
    run_forward,
    trace,
)
from glm2_reference.schedules.problem import AS_RUN, CLOSED_FORM, Convention, Problem
from glm2_reference.schedules.split_kv import split_kv_forward
from glm2_reference.schedules.standard import standard_backward, standard_forward
from glm2_reference.testing import random_qkv

PAPER = HeadShape(
    batch=64, num_heads=16, num_kv_heads=16, seq_len_q=1024, seq_len_kv=1024, head_dim=64
)


CONVENTIONS = [CLOSED_FORM, AS_RUN, Convention(element_bytes=4, stat_bytes=8)]


def formula(name, which, m, n, d, t_r, t_c, c):
    """The papers' formulas, typed anew."""
    e, s, init = c.element_bytes, c.stat_bytes, c.init_writes
    return {
        ("standard", "forward"): e * (4 * m * n + 2 * m * d + 2 * n * d),
        ("standard", "backward"): e * (7 * m * n + 4 * m * d + 4 * n * d),
        ("flash1", "forward"): e * (2 * n * d + t_c * 3 * m * d) + s * t_c * 4 * m
        + init * (e * m * d + s * 2 * m),
        ("flash1", "backward"): e * (4 * n * d + t_c * 5 * m * d) + s * t_c * 2 * m
        + init * e * (m * d + 2 * n * d),
        ("flash2", "forward"): e * (2 * m * d + t_r * 2 * n * d) + s * m,
        ("flash2", "backward"): e * (2 * m * d + 4 * n * d + t_c * 4 * m * d)
        + s * (m + t_c * 2 * m) + init * e * m * d,
    }[name, which]  # fmt: skip


@pytest.mark.parametrize("which", ["forward", "backward"])
@pytest.mark.parametrize("name", FORWARD)
@settings(deadline=None)  # blocks of one row are slow
@given(
    m=st.integers(1, 40), n=st.integers(1, 40), d=st.integers(1, 9), group=st.integers(1, 3),
    block_m=st.integers(1, 50), block_n=st.integers(1, 50),
    convention=st.sampled_from(CONVENTIONS),
)  # fmt: skip
def test_counts_are_the_closed_forms_tails_included(
    name, which, m, n, d, group, block_m, block_n, convention
):
    schedules = FORWARD if which == "forward" else BACKWARD
    shape = HeadShape(
        batch=3, num_heads=2 * group, num_kv_heads=2, seq_len_q=m, seq_len_kv=n, head_dim=d
    )
    for share_kv in (True, False):
        rows, calls = (m * group, 6) if share_kv else (m, 6 * group)
        memory = trace(
            schedules[name], shape, block_m=block_m, block_n=block_n, share_kv=share_kv,
            convention=convention,
        )  # fmt: skip
        blocks = math.ceil(rows / block_m), math.ceil(n / block_n)
        assert memory.moved_bytes() == calls * formula(name, which, rows, n, d, *blocks, convention)
        problem = shape.problem(
            share_kv=share_kv, scale=None, block_m=block_m, block_n=block_n, convention=convention
        )
        forms = getattr(closed_forms, f"{which.upper()}_BYTES")
        products = getattr(closed_forms, f"{which.upper()}_PRODUCTS")
        assert memory.moved_bytes() == calls * forms[name](problem)
        assert memory.flops == calls * products[name] * 2 * rows * n * d


PAPER_GB = [  # block_n, forward, backward, total: GB, as paper_numbers has them
    (64, 6.845, 11.341, 18.186),
    (128, 3.557, 5.939, 9.496),
    (256, 1.913, 3.238, 5.151),
    (384, 1.502, 2.563, 4.064),
    (512, 1.091, 1.887, 2.978),
]


@pytest.mark.parametrize(("block_n", "forward", "backward", "total"), PAPER_GB)
def test_flash1_at_the_papers_shape(block_n, forward, backward, total):
    got = [
        trace(schedules["flash1"], PAPER, block_m=64, block_n=block_n, limited=False).moved_bytes()
        for schedules in (FORWARD, BACKWARD)
    ]
    assert [round(x / 1e9, 3) for x in got] == [forward, backward]
    assert abs(sum(got) / 1e9 - total) < 6e-4  # the total was added up from rounded terms


def test_standard_at_the_papers_shape():
    got = [
        trace(schedules["standard"], PAPER, block_m=64, block_n=256).moved_bytes()
        for schedules in (FORWARD, BACKWARD)
    ]
    assert [round(x / 1e9, 3) for x in got] == [9.127, 16.106]
    assert round(sum(got) / 1e9, 3) == 25.233


def test_computing_and_tracing_count_the_same(rng):
    q, k, v = random_qkv(rng, seq_len_q=9, seq_len_kv=13, num_heads=4, num_kv_heads=2, head_dim=8)
    shape = HeadShape(batch=1, num_heads=4, num_kv_heads=2, seq_len_q=9, seq_len_kv=13, head_dim=8)
    for name in FORWARD:
        for causal in (False, True):
            sizes = {"block_m": 5, "block_n": 3, "causal": causal}
            real = Memory(A100)
            run_forward(FORWARD[name], q, k, v, real, **sizes)
            run_backward(BACKWARD[name], q, q, k, v, real, **sizes)
            traced = [trace(x[name], shape, **sizes) for x in (FORWARD, BACKWARD)]
            assert real.moved_bytes() == sum(memory.moved_bytes() for memory in traced)
            assert real.flops == sum(memory.flops for memory in traced)


@pytest.mark.parametrize("name", ["flash1", "flash2"])
@settings(deadline=None)
@given(
    tokens=st.integers(1, 40), extra=st.integers(0, 20), group=st.integers(1, 4),
    block_m=st.integers(1, 48), block_n=st.integers(1, 48),
)  # fmt: skip
def test_a_causal_mask_skips_the_tiles_that_nobody_sees(
    name, tokens, extra, group, block_m, block_n
):
    keys, rows = tokens + extra, tokens * group
    problem = Problem(
        seq_len_q=tokens, seq_len_kv=keys, head_dim=2, group_size=group, causal=True,
        block_m=block_m, block_n=block_n,
    )  # fmt: skip
    memory = Memory(A100, compute=False)
    FORWARD[name](memory, problem, {})
    elems = 0
    seen_keys = set()
    for first in range(0, rows, block_m):
        tile = range(first, min(first + block_m, rows))
        elems += 2 * 2 * len(tile) + len(tile) if name == "flash2" else 0
        for start in range(0, keys, block_n):
            columns = range(start, min(start + block_n, keys))
            if any(j <= r // group + extra for r in tile for j in columns):
                elems += (3 * 2 + 4) * len(tile) if name == "flash1" else 2 * 2 * len(columns)
                seen_keys.update(columns)
    elems += 2 * 2 * len(seen_keys) if name == "flash1" else 0
    assert memory.moved_bytes() == 2 * elems


def test_doubling_the_block_halves_the_term_that_it_divides():
    def moved(block_n):
        return trace(FORWARD["flash1"], PAPER, block_m=64, block_n=block_n, limited=False
                     ).moved_bytes()  # fmt: skip

    resident = 1024 * 2 * 1024 * 64 * 2  # 2 n d elements of 2 bytes, 1024 heads
    terms = [moved(block_n) - resident for block_n in (64, 128, 256, 512)]
    assert [a / b for a, b in itertools.pairwise(terms)] == [2, 2, 2]
    slope = math.log(moved(512) / moved(64)) / math.log(512 / 64)
    assert round(slope, 2) == -0.88


def test_sharing_divides_kv_traffic_by_the_group_where_keys_are_outside():
    shape = HeadShape(
        batch=1, num_heads=32, num_kv_heads=2, seq_len_q=64, seq_len_kv=64, head_dim=128
    )
    for name in ("standard", "flash1"):
        shared, alone = (
            trace(FORWARD[name], shape, block_m=16, block_n=16, share_kv=share)
            for share in (True, False)
        )
        for tensor in ("k", "v"):
            got = shared.read_bytes("hbm", tensor), alone.read_bytes("hbm", tensor)
            assert got == (2 * 64 * 128 * 2, 16 * 2 * 64 * 128 * 2)


def test_sharing_divides_kv_traffic_in_decoding_and_not_in_a_prefill_of_full_tiles():
    def kv_bytes(tokens, share):
        shape = HeadShape(
            batch=1, num_heads=32, num_kv_heads=2, seq_len_q=tokens, seq_len_kv=512, head_dim=128
        )
        memory = trace(FORWARD["flash2"], shape, block_m=16, block_n=128, share_kv=share)
        return memory.read_bytes("hbm", "k") + memory.read_bytes("hbm", "v")

    assert kv_bytes(1, share=False) == 16 * kv_bytes(1, share=True)
    assert kv_bytes(64, share=False) == kv_bytes(64, share=True)  # a tile is 16 rows either way


@settings(deadline=None)
@given(
    keys=st.integers(1, 90), splits=st.integers(1, 9), block_n=st.integers(1, 40),
    rows=st.integers(1, 40),
)  # fmt: skip
def test_split_kv_counts(keys, splits, block_n, rows):
    d = 8
    problem = Problem(seq_len_q=1, seq_len_kv=keys, head_dim=d, group_size=rows, block_m=16,
                      block_n=block_n)  # fmt: skip
    memory = Memory(A100, compute=False)
    split_kv_forward(memory, problem, {}, splits=splits)
    blocks = math.ceil(keys / block_n)
    parts = math.ceil(blocks / math.ceil(blocks / splits))
    elems = math.ceil(rows / 16) * 2 * keys * d + parts * rows * d + rows * d + rows
    assert memory.moved_bytes() == 2 * elems + 4 * 2 * parts * rows * (d + 2)
    assert memory.moved_bytes() == closed_forms.split_kv_forward_bytes(problem, parts)
    assert parts <= splits
    assert memory.peak_bytes["sram"] <= A100.level("sram").capacity_bytes


def test_block_sparse_counts_the_tiles_that_it_keeps():
    problem = Problem(seq_len_q=60, seq_len_kv=60, head_dim=4, block_m=16, block_n=16)
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 0] = mask[3, 0] = mask[3, 3] = True  # tiles of 16 x 16, 12 x 16 and 12 x 12
    memory = Memory(A100, compute=False)
    block_sparse_forward(memory, problem, {}, block_mask=mask)
    rows = 16 + 12 + 12
    assert memory.moved_bytes() == 2 * (2 * (16 + 12) * 4 + rows * (3 * 4 + 4))
    assert memory.flops == 2 * 2 * 4 * (16 * 16 + 12 * 16 + 12 * 12)
    assert memory.moved_bytes() == closed_forms.block_sparse_forward_bytes(problem, mask)
    as_run = dataclasses.replace(problem, convention=AS_RUN)
    memory = Memory(A100, compute=False)
    block_sparse_forward(memory, as_run, {}, block_mask=mask)
    assert memory.moved_bytes() == closed_forms.block_sparse_forward_bytes(as_run, mask)


def test_block_sparse_traffic_grows_with_the_share_of_tiles():
    problem = Problem(seq_len_q=256, seq_len_kv=256, head_dim=4, block_m=16, block_n=16)
    mask = butterfly_mask(16)
    assert mask.sum(axis=1).tolist() == [1 + 4] * 16  # itself, and one block for each bit
    reached = np.linalg.matrix_power(mask.astype(int), 4)
    assert (reached > 0).all()  # four steps join all of sixteen blocks
    sparse, dense = Memory(A100, compute=False), Memory(A100, compute=False)
    block_sparse_forward(sparse, problem, {}, block_mask=mask)
    flash1_forward(dense, problem, {})
    kv = 2 * 2 * 256 * 4
    assert (sparse.moved_bytes() - kv) * 16 == (dense.moved_bytes() - kv) * 5
    with pytest.raises(ValueError, match="blocks is 0"):
        butterfly_mask(0)
    with pytest.raises(ValueError, match=r"block_mask has shape \(4, 4\); expected \(16, 16\)"):
        block_sparse_forward(sparse, problem, {}, block_mask=mask[:4, :4])


def test_streaming_reads_the_kept_operand_once_a_tile_of_the_other():
    problem = Problem(seq_len_q=40, seq_len_kv=24, head_dim=4, block_m=16, block_n=8)
    m, n, d = 40, 24, 4
    memory = Memory(A100, compute=False)
    standard_forward(memory, problem, {}, stream=True)
    assert memory.moved_bytes() == 2 * (4 * m * n + 2 * m * d + 3 * 2 * n * d)  # 3 row tiles
    backward = Memory(A100, compute=False)
    standard_backward(backward, problem, {}, stream=True)
    # Three row tiles re-read V and K, three key tiles re-read dO and Q.
    elems = 7 * m * n + (3 + 1 + 1 + 3) * m * d + (1 + 3 + 3 + 1) * n * d
    assert backward.moved_bytes() == 2 * elems
