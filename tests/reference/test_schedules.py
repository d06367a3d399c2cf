"""Tile schedules: results are dense attention's; what fits a memory, and what is refused."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm2_reference.attention import attention
from glm2_reference.layer_gradients import attention_gradients
from glm2_reference.memory import Memory, MemoryLimitError
from glm2_reference.memory_systems import A100, ASCEND_A2, CPU
from glm2_reference.schedules.block_sparse import block_sparse_forward
from glm2_reference.schedules.flash1 import block_sizes
from glm2_reference.schedules.heads import (
    BACKWARD,
    FORWARD,
    HeadShape,
    run_backward,
    run_forward,
    trace,
)
from glm2_reference.schedules.problem import AS_RUN, Convention, Problem
from glm2_reference.schedules.split_kv import split_kv_forward
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
