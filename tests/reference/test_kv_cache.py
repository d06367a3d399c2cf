import math

import numpy as np
import pytest

from glm2_reference import KVCache, rope_append, rope_table
from glm2_reference.testing import (
    cu_seqlens,
    paged_from_tnd,
    random_block_table,
    tnd_from_paged,
)

N, G, D, PAGE = 4, 2, 8, 16


def rotate(row, position, rotary_dim, base=10000.0):
    """Rotate one head by loops, in Python floats."""
    out = [float(x) for x in row]
    for i in range(rotary_dim // 2):
        angle = position * base ** (-2 * i / rotary_dim)
        a, b = out[2 * i], out[2 * i + 1]
        out[2 * i] = a * math.cos(angle) - b * math.sin(angle)
        out[2 * i + 1] = b * math.cos(angle) + a * math.sin(angle)
    return out


@pytest.mark.parametrize("rotary_dim", [0, 4, 8])
@pytest.mark.parametrize(
    ("dtype", "cache_dtype", "atol"),
    [
        (np.float64, np.float64, 1e-13),
        (np.float32, np.float32, 1e-5),
        (np.float32, np.float16, 4e-3),
        (np.float16, np.float16, 4e-3),
    ],
)
def test_rope_append_writes_each_token_to_its_slot(rng, rotary_dim, dtype, cache_dtype, atol):
    len_q, seq_len_kv = [3, 0, 1, 17], np.array([17, 4, 16, 17], np.int32)
    block_table, num_pages = random_block_table(rng, seq_len_kv, page_size=PAGE)
    qkv = rng.standard_normal((sum(len_q), (N + 2 * G) * D)).astype(dtype)
    k_cache, v_cache = (np.full((num_pages, G, PAGE, D), 9, cache_dtype) for _ in range(2))
    cos, sin = rope_table(max_position=32, rotary_dim=rotary_dim, base=1e4, dtype=np.float64)
    offsets = cu_seqlens(len_q)
    q = rope_append(
        qkv, cos, sin, k_cache, v_cache, block_table, offsets, seq_len_kv,
        num_heads=N, num_kv_heads=G, rotary_dim=rotary_dim,
    )  # fmt: skip
    assert (q.dtype, q.shape) == (dtype, (21, N, D))
    want_k, want_v = (np.full(k_cache.shape, 9.0) for _ in range(2))
    for b in range(4):
        for i in range(len_q[b]):
            row, position = qkv[offsets[b] + i], int(seq_len_kv[b]) - len_q[b] + i
            page, slot = block_table[b, position // PAGE], position % PAGE
            for n in range(N):
                want_q = rotate(row[n * D : (n + 1) * D], position, rotary_dim)
                np.testing.assert_allclose(q[offsets[b] + i, n], want_q, atol=atol)
            for g in range(G):
                k = row[(N + g) * D : (N + g + 1) * D]
                want_k[page, g, slot] = rotate(k, position, rotary_dim)
                want_v[page, g, slot] = row[(N + G + g) * D : (N + G + g + 1) * D]
    np.testing.assert_allclose(k_cache, want_k, atol=atol)
    np.testing.assert_array_equal(v_cache, want_v.astype(cache_dtype))


def test_rope_append_with_rotary_dim_0_does_not_alias_its_input():
    arguments = append_arguments() | {"rotary_dim": 0}
    q = rope_append(**arguments)
    q[:] = 7
    assert not (arguments["qkv"] == 7).any()


def append_arguments():
    return {
        "qkv": np.ones((3, (N + 2 * G) * D), np.float32),
        "cos": np.ones((20, 2), np.float32),
        "sin": np.zeros((20, 2), np.float32),
        "k_cache": np.zeros((3, G, PAGE, D), np.float32),
        "v_cache": np.zeros((3, G, PAGE, D), np.float32),
        "block_table": np.array([[0, 2], [1, -1]], np.int32),
        "cu_seqlens_q": np.array([0, 2, 3], np.int32),
        "seq_len_kv": np.array([18, 3], np.int32),
        "num_heads": N,
        "num_kv_heads": G,
        "rotary_dim": 4,
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"qkv": np.ones((3, 63), np.float32)},
            ValueError,
            r"qkv has shape .*\(3, 64\), \(num_head",
        ),
        ({"qkv": np.ones(64, np.float32)}, ValueError, r"qkv has shape \(64,\); expected 2 axes"),
        ({"qkv": np.ones((3, 64), np.float16)}, TypeError, "qkv is float16, k float32"),
        ({"num_heads": 3}, ValueError, "q has 3 heads and k has 2"),
        ({"num_kv_heads": 4}, ValueError, "k_cache has shape .*with num_kv_heads on its second"),
        ({"rotary_dim": 6}, ValueError, r"rotary_dim is 6, but cos has shape \(20, 2\)"),
        ({"cos": np.ones(2, np.float32)}, ValueError, r"rotary_dim is 4, but cos has shape \(2,\)"),
        ({"cos": np.ones((17, 2)), "sin": np.ones((17, 2))}, ValueError, "positions contain 17"),
        ({"cu_seqlens_q": np.array([0, 2, 4], np.int32)}, ValueError, "ends at 4, but there are 3"),
        (
            {"seq_len_kv": np.array([1, 3], np.int32)},
            ValueError,
            r"seq_len_kv\[0\] is 1, but this call appends 2 tokens to sequence 0",
        ),
        ({"seq_len_kv": np.array([33, 3], np.int32)}, ValueError, "is 33; expected 0 to 32"),
        (
            {"block_table": np.array([[0, -1], [1, -1]], np.int32)},
            ValueError,
            r"block_table\[0, 1\] is -1, but sequence 0 has 18 tokens",
        ),
    ],
)
def test_rope_append_refuses_and_writes_nothing(change, error, message):
    arguments = append_arguments() | change
    with pytest.raises(error, match=message):
        rope_append(**arguments)
    assert not arguments["k_cache"].any()
    assert not arguments["v_cache"].any()


def test_paged_adapters_are_inverses(rng):
    seq_len_kv = np.array([1, 0, 33, 16], np.int32)
    x = rng.standard_normal((50, G, D)).astype(np.float16)
    block_table, num_pages = random_block_table(rng, seq_len_kv, page_size=PAGE)
    offsets = cu_seqlens(seq_len_kv.tolist())
    cache = paged_from_tnd(x, offsets, block_table, num_pages=num_pages, page_size=PAGE)
    assert np.array_equal(tnd_from_paged(cache, block_table, seq_len_kv), x)
    assert np.isnan(cache).sum() == (num_pages * PAGE - 50) * G * D


def test_kv_cache_append_fills_every_layer_and_counts(tiny_config, rng):
    cache = KVCache.new(tiny_config, max_tokens=20, page_size=16, dtype=np.float64)
    assert (cache.length, cache.max_tokens) == (0, 32)
    first, second = (rng.standard_normal((2, 2, tokens, 2, 8)) for tokens in (15, 2))
    cache.append(*first)
    cache.append(*second)
    assert cache.length == 17
    for layer in range(2):
        for t in range(17):
            want_k, want_v = first[:, layer, t] if t < 15 else second[:, layer, t - 15]
            page = cache.block_table[0, t // 16]
            assert np.array_equal(cache.k[layer][page, :, t % 16], want_k)
            assert np.array_equal(cache.v[layer][page, :, t % 16], want_v)


def test_kv_cache_refuses(tiny_config):
    with pytest.raises(ValueError, match="max_tokens is 0 and page_size 128; expected at least 1"):
        KVCache.new(tiny_config, max_tokens=0)
    with pytest.raises(ValueError, match="max_tokens is 9 and page_size 8"):
        KVCache.new(tiny_config, max_tokens=9, page_size=8)
    cache = KVCache.new(tiny_config, max_tokens=16, page_size=16)
    cache.advance(10)
    full = np.zeros((2, 7, 2, 8), np.float32)
    with pytest.raises(ValueError, match="the cache holds 10 of 16 tokens and 7 more do not fit"):
        cache.append(full, full)
    with pytest.raises(ValueError, match=r"k has shape .*; expected 4 axes"):
        cache.append(full[0], full[0])
    with pytest.raises(ValueError, match=r"k has shape \(1, 7, 2, 8\); expected \(2, 7, 2, 8\)"):
        cache.append(full[:1], full)
    with pytest.raises(ValueError, match=r"v has shape .*, the shape of k"):
        cache.append(full[:, :5], full)
    assert cache.length == 10


@pytest.mark.parametrize("batch", [0, 2])
def test_rope_append_of_no_tokens_writes_nothing(batch):
    k_cache, v_cache = (np.full((3, 2, 16, 8), value, np.float32) for value in (1, 2))
    table = np.ones((1, 4), np.float32)
    q = rope_append(
        np.zeros((0, 8 * 8), np.float32), table[:, :2], table[:, :2], k_cache, v_cache,
        np.zeros((batch, 1), np.int32), np.zeros(batch + 1, np.int32), np.full(batch, 5, np.int32),
        num_heads=4, num_kv_heads=2, rotary_dim=4,
    )  # fmt: skip
    assert q.shape == (0, 4, 8)
    assert (k_cache == 1).all()
    assert (v_cache == 2).all()
