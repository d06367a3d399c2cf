"""Tile schedules: results are dense attention's, counts are the papers' formulas, to the byte."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2_reference.attention import attention
from glm2_reference.layer_gradients import attention_gradients
from glm2_reference.memory import Memory, MemoryLimitError
from glm2_reference.memory_systems import A100, ASCEND_A2, CPU
from glm2_reference.schedules import closed_forms
from glm2_reference.schedules.block_sparse import block_sparse_forward, butterfly_mask
from glm2_reference.schedules.flash1 import block_sizes, flash1_forward
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

shapes = st.fixed_dictionaries(
    {
        "seq_len_q": st.integers(1, 9),
        "extra": st.integers(0, 5),
        "num_kv_heads": st.integers(1, 2),
        "group": st.integers(1, 3),
        "block_m": st.integers(1, 8),
        "block_n": st.integers(1, 8),
        "causal": st.booleans(),
        "share_kv": st.booleans(),
        "seed": st.integers(0, 2**16),
    }
)


def draw(case, head_dim=4, batch=2):
    rng = np.random.default_rng(case["seed"])
    return random_qkv(
        rng, seq_len_q=case["seq_len_q"], seq_len_kv=case["seq_len_q"] + case["extra"],
        num_heads=case["num_kv_heads"] * case["group"], num_kv_heads=case["num_kv_heads"],
        head_dim=head_dim, batch=batch, dtype=np.float64,
    )  # fmt: skip


def options(case):
    return {name: case[name] for name in ("block_m", "block_n", "causal", "share_kv")}


# ---- results ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORWARD)
@settings(deadline=None)
@given(case=shapes)
def test_forward_gives_dense_attention(name, case):
    q, k, v = draw(case)
    want, lse = attention(q, k, v, causal=case["causal"])
    memory = Memory(A100)
    got = run_forward(FORWARD[name], q, k, v, memory, **options(case))
    np.testing.assert_allclose(got["o"], want, rtol=1e-10, atol=1e-12)
    if name == "flash1":
        got["lse"] = got["row_max"] + np.log(got["row_sum"])
    if name != "standard":
        np.testing.assert_allclose(got["lse"], lse, rtol=1e-10, atol=1e-12)
    assert set(memory.used_bytes.values()) == {0}  # every tile was freed


@pytest.mark.parametrize("name", BACKWARD)
@settings(deadline=None)
@given(case=shapes)
def test_backward_gives_dense_gradients(name, case):
    q, k, v = draw(case)
    do = np.random.default_rng(case["seed"] + 1).standard_normal(q.shape)
    memory = Memory(A100)
    got = run_backward(BACKWARD[name], do, q, k, v, memory, **options(case))
    for gradient, x in zip(("dq", "dk", "dv"), (0, 1, 2), strict=True):
        want = loop_gradient(do, (q, k, v), x, causal=case["causal"])
        np.testing.assert_allclose(got[gradient], want, rtol=1e-9, atol=1e-10)
    assert set(memory.used_bytes.values()) == {0}


def loop_gradient(do, inputs, which, *, causal):
    """The textbook's gradients of sum(do * attention), one head at a time."""
    q, k, v = inputs
    batch, num_heads = q.shape[:2]
    group = num_heads // k.shape[1]
    gradients = [np.zeros_like(x) for x in inputs]
    offset = k.shape[2] - q.shape[2]
    for b in range(batch):
        for n in range(num_heads):
            g = n // group
            scale = 1 / math.sqrt(q.shape[3])
            scores = scale * q[b, n] @ k[b, g].T
            if causal:
                tokens, keys = np.indices(scores.shape)
                scores[keys > tokens + offset] = -np.inf
            probs = np.exp(scores - scores.max(axis=1, keepdims=True))
            probs /= probs.sum(axis=1, keepdims=True)
            dprobs = do[b, n] @ v[b, g].T
            dscores = probs * (dprobs - (probs * dprobs).sum(axis=1, keepdims=True))
            gradients[0][b, n] = scale * dscores @ k[b, g]
            gradients[1][b, g] += scale * dscores.T @ q[b, n]
            gradients[2][b, g] += probs.T @ do[b, n]
    return gradients[which]


@settings(deadline=None)
@given(case=shapes, splits=st.integers(1, 6))
def test_split_kv_gives_dense_attention(case, splits):
    q, k, v = draw(case)
    want, lse = attention(q, k, v, causal=case["causal"])

    def schedule(memory, problem, arrays):
        return split_kv_forward(memory, problem, arrays, splits=splits)

    got = run_forward(schedule, q, k, v, Memory(A100), **options(case))
    np.testing.assert_allclose(got["o"], want, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got["lse"], lse, rtol=1e-10, atol=1e-12)


@settings(deadline=None)
@given(case=shapes, mask_seed=st.integers(0, 99))
def test_block_sparse_gives_dense_attention_under_its_mask(case, mask_seed):
    q, k, v = draw(case, batch=1)
    block_m, block_n = case["block_m"], case["block_n"]
    tokens, keys = q.shape[2], k.shape[2]
    block_mask = (
        np.random.default_rng(mask_seed).random((-(-tokens // block_m), -(-keys // block_n))) < 0.6
    )
    mask = block_mask.repeat(block_m, 0)[:tokens].repeat(block_n, 1)[:, :keys]
    want, _ = attention(q, k, v, causal=case["causal"], mask=mask)

    def schedule(memory, problem, arrays):
        return block_sparse_forward(memory, problem, arrays, block_mask=block_mask)

    got = run_forward(schedule, q, k, v, Memory(A100), **{**options(case), "share_kv": False})
    np.testing.assert_allclose(got["o"], want, rtol=1e-10, atol=1e-12)


def test_backward_agrees_with_the_layer_that_finite_differences_check(rng):
    q, k, v = random_qkv(rng, seq_len_q=5, seq_len_kv=5, num_heads=4, num_kv_heads=2, dtype=float)
    do = rng.standard_normal(q.shape)
    got = run_backward(BACKWARD["flash2"], do, q, k, v, Memory(A100), block_m=3, block_n=2,
                       causal=True)  # fmt: skip
    wanted = attention_gradients(do, q, k, v, *attention(q, k, v), scale=0.25)
    for name, want in zip(("dq", "dk", "dv"), wanted, strict=True):
        np.testing.assert_allclose(got[name], want, rtol=1e-9, atol=1e-12)


# ---- counts -------------------------------------------------------------------------------------

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


# ---- memory -------------------------------------------------------------------------------------


def test_the_papers_block_fits_with_its_tile_of_scores():
    block_m, block_n = block_sizes(64, A100.level("sram").capacity_bytes, 2)
    assert (block_m, block_n) == (64, 384)
    for schedules in (FORWARD, BACKWARD):
        memory = trace(schedules["flash1"], PAPER, block_m=64, block_n=384, limited=False)
        fits = memory.peak_bytes["sram"] <= A100.level("sram").capacity_bytes
        assert fits == (schedules is FORWARD)  # backward holds dK, dV and a second square too


def test_a_block_that_does_not_fit_is_refused():
    with pytest.raises(
        MemoryLimitError, match=r"block_m=64, block_n=512 .* lower block_m or block"
    ):
        trace(FORWARD["flash1"], PAPER, block_m=64, block_n=512)
    long = dataclasses.replace(PAPER, seq_len_q=4096, seq_len_kv=4096)
    with pytest.raises(MemoryLimitError, match="stream=True, which does not keep the whole of k"):
        trace(FORWARD["standard"], long, block_m=64, block_n=64)
    with pytest.raises(MemoryLimitError, match="sram needs"):  # scores in float32
        trace(FORWARD["flash1"], PAPER, block_m=64, block_n=384, convention=AS_RUN)


def test_flash_memory_grows_linearly_and_standard_quadratically():
    def peak(name, length):
        shape = dataclasses.replace(PAPER, seq_len_q=length, seq_len_kv=length)
        return trace(FORWARD[name], shape, block_m=64, block_n=256, limited=False).peak_bytes["hbm"]

    assert peak("flash1", 4096) == 4 * peak("flash1", 1024)
    squares = [peak("standard", n) - 4 * n * 64 * 2 for n in (1024, 4096)]
    assert squares[1] == 16 * squares[0] == 16 * 2 * 1024**2 * 2


def test_other_two_level_machines_serve_and_ascend_is_refused(rng):
    q, k, v = random_qkv(rng, seq_len_q=4, seq_len_kv=4, num_heads=2, num_kv_heads=1)
    memory = Memory(CPU)
    got = run_forward(FORWARD["flash2"], q, k, v, memory, block_m=2, block_n=2)
    np.testing.assert_allclose(got["o"], attention(q, k, v, causal=False)[0], rtol=1e-5, atol=1e-6)
    assert memory.moved_bytes("dram") > 0
    with pytest.raises(ValueError, match="ascend_a2 has 7 memories"):
        run_forward(FORWARD["flash2"], q, k, v, Memory(ASCEND_A2), block_m=2, block_n=2)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="block_m is 0"):
        Problem(seq_len_q=1, seq_len_kv=1, head_dim=1, block_m=0)
    with pytest.raises(ValueError, match=r"are \(0, 1, 1, 1\)"):
        Problem(seq_len_q=0, seq_len_kv=1, head_dim=1)
    with pytest.raises(ValueError, match="multiple of num_kv_heads"):
        HeadShape(batch=1, num_heads=3, num_kv_heads=2, seq_len_q=1, seq_len_kv=1, head_dim=1)
    problem = Problem(seq_len_q=1, seq_len_kv=1, head_dim=1)
    with pytest.raises(ValueError, match="splits is 0"):
        split_kv_forward(Memory(A100, compute=False), problem, {}, splits=0)


@pytest.mark.parametrize("which", ["forward", "backward"])
def test_inputs_that_contradict_each_other_are_named(rng, which):
    def run(q, k, v, memory=None):
        memory = memory or Memory(A100)
        if which == "forward":
            return run_forward(FORWARD["flash2"], q, k, v, memory, block_m=2, block_n=2)
        return run_backward(BACKWARD["flash2"], q, q, k, v, memory, block_m=2, block_n=2)

    q, k, v = random_qkv(rng, seq_len_q=4, seq_len_kv=4, num_heads=2, num_kv_heads=1, batch=2)
    with pytest.raises(ValueError, match="v has shape"):
        run(q, k, v[..., :1])
    with pytest.raises(ValueError, match="k has shape"):
        run(q, k[:1], v[:1])
    with pytest.raises(ValueError, match="expected 1 or more"):
        run(q[:0], k[:0], v[:0])
    with pytest.raises(ValueError, match=r"only traces, .* compute=True, or call trace"):
        run(q, k, v, Memory(A100, compute=False))
    with pytest.raises(ValueError, match="do has shape"):
        run_backward(BACKWARD["flash2"], q[:1], q, k, v, Memory(A100), block_m=2, block_n=2)


def test_gradients_of_float16_are_summed_over_heads_in_full(rng):
    q, k, v = random_qkv(
        rng, seq_len_q=3, seq_len_kv=3, num_heads=8, num_kv_heads=1, dtype=np.float16
    )
    got = run_backward(
        BACKWARD["flash2"], q, q, k, v, Memory(A100), block_m=2, block_n=2, share_kv=False
    )
    assert {x.dtype for x in got.values()} == {np.dtype(np.float64)}


def test_a_memory_serves_again_after_it_refused(rng):
    q, k, v = random_qkv(rng, seq_len_q=1024, seq_len_kv=1024, num_heads=1, num_kv_heads=1,
                         head_dim=64)  # fmt: skip
    memory = Memory(A100)
    with pytest.raises(MemoryLimitError):
        run_forward(FORWARD["flash1"], q, k, v, memory, block_m=64, block_n=512)
    assert set(memory.used_bytes.values()) == {0}
    run_forward(FORWARD["flash1"], q, k, v, memory, block_m=64, block_n=128)


def test_bad_conventions_and_blocks_are_named():
    with pytest.raises(ValueError, match=r"are \(-2, 2, 2\); expected 1 or more"):
        Convention(element_bytes=-2)
    with pytest.raises(ValueError, match="the sizes are"):
        dataclasses.replace(PAPER, batch=-3)
    with pytest.raises(ValueError, match="room for an element"):
        block_sizes(0, 100, 2)


def test_conventions_describe_themselves():
    assert str(AS_RUN) == ("elements 2 B, row statistics 4 B, score tiles 4 B, with initial writes")
