"""glm2_ops.rope_append against loops over tokens and heads, bit for bit."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import glm2_ops
import glm2_reference
from glm2_reference.testing import cu_seqlens, random_block_table

BFLOAT16 = ml_dtypes.bfloat16
DTYPES = [
    (np.float16, np.float16), (np.float32, np.float16), (np.float32, np.float32),
    (BFLOAT16, BFLOAT16), (np.float32, BFLOAT16),
]  # fmt: skip
dtype_pairs = pytest.mark.parametrize(("dtype", "kv_dtype"), DTYPES)


@pytest.fixture(autouse=True)
def restore_threads():
    threads = glm2_ops.build_info()["threads"]
    yield
    glm2_ops.set_num_threads(threads)


def rotate(head, cos, sin):
    """Rotate the pairs of one head in float32, one rounding a product and one a sum."""
    out = head.copy()
    x = head.astype(np.float32)
    for i in range(len(cos)):
        a, b = x[2 * i], x[2 * i + 1]
        out[2 * i] = a * cos[i] - b * sin[i]
        out[2 * i + 1] = b * cos[i] + a * sin[i]
    return out


def loop_rope_append(
    qkv, cos, sin, k_cache, v_cache, block_table, cu_seqlens_q, seq_len_kv, *, num_heads,
    num_kv_heads, rotary_dim,
):  # fmt: skip
    """Return q and write the caches, a token and a head at a time."""
    page_size, head_dim = k_cache.shape[2:]
    assert cos.shape[1] == sin.shape[1] == rotary_dim // 2
    q = np.empty((len(qkv), num_heads, head_dim), qkv.dtype)
    for b, length in enumerate(seq_len_kv):
        start, end = cu_seqlens_q[b : b + 2]
        for t in range(start, end):
            position = length - (end - t)
            page, slot = block_table[b, position // page_size], position % page_size
            heads = qkv[t].reshape(-1, head_dim)
            for n in range(num_heads):
                q[t, n] = rotate(heads[n], cos[position], sin[position])
            for g in range(num_kv_heads):
                key = heads[num_heads + g]
                k_cache[page, g, slot] = rotate(key, cos[position], sin[position])
                v_cache[page, g, slot] = heads[num_heads + num_kv_heads + g]
    return q


def random_call(
    rng, *, len_q, past, num_heads, num_kv_heads, head_dim, rotary_dim, page_size, dtype, kv_dtype
):
    """Return operands and keywords; the caches hold random bits, NaNs among them."""
    seq_len_kv = np.array(len_q, np.int32) + np.array(past, np.int32)
    block_table, num_pages = random_block_table(rng, seq_len_kv, page_size=page_size)
    max_position = int(seq_len_kv.max(initial=0)) + 1
    cos, sin = glm2_reference.rope_table(
        max_position=max_position, rotary_dim=rotary_dim, base=10000.0
    )
    width = (num_heads + 2 * num_kv_heads) * head_dim
    qkv = rng.standard_normal((sum(len_q), width)).astype(dtype)
    shape = (num_pages, num_kv_heads, page_size, head_dim)
    bits = np.dtype(kv_dtype).itemsize
    caches = [
        rng.integers(0, 256, (*shape[:3], head_dim * bits), np.uint8).view(kv_dtype)
        for _ in range(2)
    ]
    operands = [qkv, cos, sin, *caches, block_table, cu_seqlens(len_q), seq_len_kv]
    sizes = {"num_heads": num_heads, "num_kv_heads": num_kv_heads, "rotary_dim": rotary_dim}
    return operands, sizes


def assert_matches_loops(operands, sizes):
    qkv, cos, sin, k_cache, v_cache, *indices = operands
    want_k, want_v = k_cache.copy(), v_cache.copy()
    want_q = loop_rope_append(qkv, cos, sin, want_k, want_v, *indices, **sizes)
    before = [x.tobytes() for x in (qkv, cos, sin, *indices)]
    q = glm2_ops.rope_append(*operands, **sizes)
    assert (q.dtype, q.shape) == (want_q.dtype, want_q.shape)
    np.testing.assert_array_equal(q, want_q)
    # The bytes outside the new slots too: a cache that other sequences read must not move.
    assert k_cache.tobytes() == want_k.tobytes()
    assert v_cache.tobytes() == want_v.tobytes()
    assert [x.tobytes() for x in (qkv, cos, sin, *indices)] == before


@dtype_pairs
@pytest.mark.parametrize("rotary_dim", [0, 8, 24, 32, 40, 48])
def test_rope_append_matches_loops_for_any_rotary_dim(rng, dtype, kv_dtype, rotary_dim):
    assert_matches_loops(
        *random_call(
            rng, len_q=[5, 0, 1, 3], past=[0, 4, 31, 14], num_heads=6, num_kv_heads=2, head_dim=48,
            rotary_dim=rotary_dim, page_size=16, dtype=dtype, kv_dtype=kv_dtype,
        )
    )  # fmt: skip


@dtype_pairs
@pytest.mark.parametrize("past", [0, 14, 15, 16, 17, 31])
def test_rope_append_at_page_edges(rng, dtype, kv_dtype, past):
    assert_matches_loops(
        *random_call(
            rng, len_q=[1, 2, 18], past=[past] * 3, num_heads=2, num_kv_heads=1, head_dim=16,
            rotary_dim=8, page_size=16, dtype=dtype, kv_dtype=kv_dtype,
        )
    )  # fmt: skip


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(data=st.data(), dtypes=st.sampled_from(DTYPES), seed=st.integers(0, 2**32 - 1))
def test_rope_append_matches_loops_for_any_problem(data, dtypes, seed):
    page_size = 16 * data.draw(st.integers(1, 16), "page_size / 16")
    lengths = st.tuples(st.integers(0, 12), st.integers(0, 40) | st.just(page_size - 1))
    len_q, past = zip(*data.draw(st.lists(lengths, min_size=1, max_size=4), "lens"), strict=True)
    assume(any(len_q))
    head_dim = 16 * data.draw(st.integers(1, 16), "head_dim / 16")
    num_kv_heads = data.draw(st.integers(1, 3), "num_kv_heads")
    group_size = data.draw(st.sampled_from([1, 2, 3, 7, 16, 20]), "group_size")
    operands, sizes = random_call(
        np.random.default_rng(seed), len_q=len_q, past=past, num_heads=num_kv_heads * group_size,
        num_kv_heads=num_kv_heads, head_dim=head_dim,
        rotary_dim=8 * data.draw(st.integers(0, head_dim // 8), "rotary_dim / 8"),
        page_size=page_size, dtype=dtypes[0], kv_dtype=dtypes[1],
    )  # fmt: skip
    qkv, cos, sin, k_cache, v_cache, *indices = operands
    want_k, want_v = k_cache.copy(), v_cache.copy()
    want = glm2_reference.rope_append(qkv, cos, sin, want_k, want_v, *indices, **sizes)
    np.testing.assert_array_equal(glm2_ops.rope_append(*operands, **sizes), want)
    assert k_cache.tobytes() == want_k.tobytes()
    assert v_cache.tobytes() == want_v.tobytes()


def chatglm_call(rng, **changes):
    sizes = {
        "len_q": [1, 9, 0, 30], "past": [100, 0, 7, 120], "num_heads": 32, "num_kv_heads": 2,
        "head_dim": 128, "rotary_dim": 64, "page_size": 128, "dtype": np.float16,
        "kv_dtype": np.float16,
    }  # fmt: skip
    return random_call(rng, **(sizes | changes))


def test_rope_append_in_the_shape_of_chatglm(rng):
    assert_matches_loops(*chatglm_call(rng, len_q=[1, 5, 0, 3]))


@pytest.mark.parametrize("len_q", [[], [0], [0, 0]])
def test_no_tokens_write_nothing(rng, len_q):
    assert_matches_loops(*chatglm_call(rng, len_q=len_q, past=[3] * len(len_q)))


def test_more_heads_than_one_pass_holds(rng):
    assert_matches_loops(
        *chatglm_call(
            rng, len_q=[2], past=[3], num_heads=70, num_kv_heads=35, head_dim=16, rotary_dim=16
        )
    )


def test_the_result_does_not_depend_on_the_number_of_threads():
    results = []
    for threads in (1, 2, 7):
        glm2_ops.set_num_threads(threads)
        operands, sizes = chatglm_call(np.random.default_rng(5))
        q = glm2_ops.rope_append(*operands, **sizes)
        results.append([q.tobytes(), operands[3].tobytes(), operands[4].tobytes()])
    assert results[0] == results[1] == results[2]


def test_strided_projections_and_tables_are_copied(rng):
    operands, sizes = chatglm_call(rng)
    want_k = operands[3].copy()
    want = glm2_ops.rope_append(*operands[:3], want_k, operands[4].copy(), *operands[5:], **sizes)
    for i in range(3):
        operands[i] = np.asfortranarray(operands[i])
        assert not operands[i].flags.c_contiguous
    assert np.array_equal(glm2_ops.rope_append(*operands, **sizes), want)
    assert operands[3].tobytes() == want_k.tobytes()


@dtype_pairs
def test_decodes_append_what_one_prefill_appends(rng, dtype, kv_dtype):
    operands, sizes = chatglm_call(rng, len_q=[140], past=[0], dtype=dtype, kv_dtype=kv_dtype)
    qkv, cos, sin, k_cache, v_cache, block_table, _, _ = operands
    k_steps, v_steps = k_cache.copy(), v_cache.copy()
    want = glm2_ops.rope_append(*operands, **sizes)
    start, q = 0, []
    for end in (120, *range(121, 141)):
        ends = cu_seqlens([end - start]), np.array([end], np.int32)
        q.append(
            glm2_ops.rope_append(
                qkv[start:end], cos, sin, k_steps, v_steps, block_table, *ends, **sizes
            )
        )
        start = end
    assert np.array_equal(np.concatenate(q), want)
    assert k_steps.tobytes() == k_cache.tobytes()
    assert v_steps.tobytes() == v_cache.tobytes()


@dtype_pairs
def test_append_then_attend_is_the_reference_end_to_end(rng, dtype, kv_dtype):
    """What rope_append writes is where flash_attention reads."""
    operands, sizes = chatglm_call(
        rng, past=[0, 0, 0, 0], len_q=[20, 1, 0, 150], dtype=dtype, kv_dtype=kv_dtype
    )
    copies = [x.copy() for x in operands[3:5]]
    q = glm2_ops.rope_append(*operands, **sizes)
    o = glm2_ops.flash_attention(q, *operands[3:])
    operands[3:5] = copies
    want_q = glm2_reference.rope_append(*operands, **sizes)
    want = glm2_reference.flash_attention(want_q, *operands[3:])
    o, want = (x.astype(np.float32) for x in (o, want))  # bfloat16 has no common dtype with others
    np.testing.assert_allclose(
        o, want, atol={np.float16: 2e-3, BFLOAT16: 2e-2, np.float32: 2e-6}[kv_dtype]
    )
