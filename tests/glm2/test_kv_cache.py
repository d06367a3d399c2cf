"""The paged cache: lengths, prefixes, and reordering against plain copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import glm2.kv_cache
from glm2.kv_cache import PAGE_SIZE, CacheFullError, KVCache

SIZES = {"num_layers": 2, "num_kv_heads": 1, "head_dim": 16}


def write(cache, seq, token):
    """Append one token whose key and value are its number."""
    slot = int(cache.lengths[seq]) + cache.num_prefix
    page, offset = cache.block_table[seq, slot // PAGE_SIZE], slot % PAGE_SIZE
    for layer in range(len(cache.k)):
        cache.k[layer][page, :, offset] = token
        cache.v[layer][page, :, offset] = token + 0.5
    cache.lengths[seq] += 1


def read(cache, seq):
    """Return the tokens of a sequence as both caches of the last layer hold them."""
    slots = np.arange(int(cache.lengths[seq])) + cache.num_prefix
    pages, offsets = cache.block_table[seq, slots // PAGE_SIZE], slots % PAGE_SIZE
    k, v = cache.k[-1][pages, 0, offsets, 0], cache.v[-1][pages, 0, offsets, 0]
    assert np.array_equal(k + 0.5, v)
    return k.tolist()


@settings(max_examples=25, deadline=None)
@given(
    data=st.data(), num_prefix=st.sampled_from([0, 3]), start=st.sampled_from([1, 100, 126, 130])
)
def test_reorder_is_a_copy_of_each_parent(data, num_prefix, start):
    num_seqs = data.draw(st.integers(1, 4))
    prefix = np.full((2, 2, num_prefix, 1, 16), -1.0) if num_prefix else None
    cache = KVCache(
        **SIZES, max_tokens=start + 8, num_seqs=num_seqs, dtype=np.float32, prefix=prefix
    )
    plain = [[] for _ in range(num_seqs)]
    token = 0
    for step in range(8):
        for seq in range(num_seqs):
            for _ in range(start if step == 0 else 1):
                token += 1
                write(cache, seq, token)
                plain[seq].append(token)
        parents = [data.draw(st.integers(0, num_seqs - 1)) for _ in range(num_seqs)]
        cache.reorder(parents)
        plain = [list(plain[parent]) for parent in parents]
        assert [read(cache, seq) for seq in range(num_seqs)] == plain
    for seq in range(num_seqs):
        assert (cache.k[0][cache.block_table[seq, 0], 0, :num_prefix] == -1).all()


def test_reorder_shares_full_pages():
    cache = KVCache(**SIZES, max_tokens=3 * PAGE_SIZE, num_seqs=3, dtype=np.float32)
    for token in range(2 * PAGE_SIZE + 5):
        write(cache, 0, token)
    cache.reorder([0, 0, 0])
    assert len(set(cache.block_table[:, 0])) == len(set(cache.block_table[:, 1])) == 1
    assert len(set(cache.block_table[:, 2])) == 3


def test_truncating_into_shared_pages_is_refused():
    cache = KVCache(**SIZES, max_tokens=300, num_seqs=2, dtype=np.float32)
    for token in range(200):
        write(cache, 0, token)
    cache.reorder([0, 0])
    cache.truncate(150)
    with pytest.raises(
        ValueError, match="length is 127, and sequences share their first 128 tokens"
    ):
        cache.truncate(127)


@pytest.mark.parametrize("parents", [[0], [0, 2], [-1, 0]])
def test_reorder_refuses_wrong_parents(parents):
    cache = KVCache(**SIZES, max_tokens=4, num_seqs=2)
    with pytest.raises(ValueError, match="expected 2 numbers from 0 to 1"):
        cache.reorder(parents)


def test_prefix_takes_slots_of_its_own():
    prefix = np.arange(2 * 2 * 5 * 16, dtype=np.float32).reshape(2, 2, 5, 1, 16)
    cache = KVCache(**SIZES, max_tokens=PAGE_SIZE - 4, num_seqs=2, dtype=np.float32, prefix=prefix)
    assert cache.block_table.shape == (2, 2)  # the prefix needs the second page
    assert cache.length == 0
    for seq in range(2):
        page = cache.block_table[seq, 0]
        assert np.array_equal(cache.k[1][page, 0, :5], prefix[1, 0, :, 0])
        assert np.array_equal(cache.v[1][page, 0, :5], prefix[1, 1, :, 0])


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="max_tokens is 0 and num_seqs 1"):
        KVCache(**SIZES, max_tokens=0)
    cache = KVCache(**SIZES, max_tokens=PAGE_SIZE + 1)
    assert cache.block_table.tolist() == [[0, 1]]
    with pytest.raises(ValueError, match="length is 1; the cache holds 0 tokens"):
        cache.truncate(1)
    with pytest.raises(CacheFullError, match=r"holds 129 tokens a sequence and 130 are needed"):
        cache.lengths_after(np.array([PAGE_SIZE + 2], np.int32))


def test_no_memory_is_an_error_before_it_is_taken(monkeypatch):
    monkeypatch.setattr(glm2.kv_cache, "available_bytes", lambda: 10**6)
    message = (
        r"4 x 4096 tokens needs 0\.54 GB and this machine has 0\.00 GB free; ask for a shorter"
    )
    with pytest.raises(MemoryError, match=message):
        KVCache(
            num_layers=32, num_kv_heads=2, head_dim=256, max_tokens=4096, num_seqs=4, dtype=np.int8
        )


@pytest.mark.parametrize("available", [None, 10**30])
def test_more_than_can_be_addressed_is_an_error(monkeypatch, available):
    monkeypatch.setattr(glm2.kv_cache, "available_bytes", lambda: available)
    with pytest.raises(MemoryError, match=r"needs .* GB and this machine has"):
        KVCache(num_layers=2**20, num_kv_heads=2**20, head_dim=256, max_tokens=2**20)
