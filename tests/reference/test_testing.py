import numpy as np

from glm2_reference import attention
from glm2_reference.testing import (
    bnsd_from_tnd,
    ragged_attention,
    random_block_table,
    random_ragged,
    random_weights,
    tnd_from_bnsd,
)


def test_ragged_and_dense_are_inverses(rng):
    x = rng.standard_normal((9, 3, 2))
    offsets = np.array([0, 4, 4, 9], np.int32)
    parts = bnsd_from_tnd(x, offsets)
    assert [part.shape for part in parts] == [(1, 3, 4, 2), (1, 3, 0, 2), (1, 3, 5, 2)]
    for b, i, n in [(0, 3, 2), (2, 1, 0)]:
        assert np.array_equal(parts[b][0, n, i], x[offsets[b] + i, n])
    assert np.array_equal(tnd_from_bnsd(parts), x)


def test_block_tables_are_shuffled_and_never_share_a_page(rng):
    seq_len_kv = np.array([0, 16, 17, 100], np.int32)
    block_table, num_pages = random_block_table(rng, seq_len_kv, page_size=16, spare_pages=3)
    used = block_table[block_table >= 0]
    assert num_pages == 0 + 1 + 2 + 7 + 3
    assert len(set(used.tolist())) == len(used) == 10
    assert used.max() < num_pages
    assert used.tolist() != sorted(used.tolist())
    assert [(row >= 0).sum() for row in block_table] == [0, 1, 2, 7]
    assert block_table.dtype == np.int32


def test_ragged_attention_upcasts_for_the_golden(rng, loop_attention):
    problem = random_ragged(
        rng, seq_lens_q=[2, 3], seq_lens_kv=[4, 3], num_heads=2, num_kv_heads=1, head_dim=4,
        dtype=np.float16,
    )  # fmt: skip
    prefix_len = np.array([0, 3], np.int32)
    o, lse = ragged_attention(problem, dtype=np.float64, prefix_len=prefix_len)
    assert o.dtype == lse.dtype == np.float64
    want_o, want_lse = loop_attention(
        problem.q[2:], problem.k[4:], problem.v[4:], scale=0.5, prefix_len=3
    )
    np.testing.assert_allclose(o[2:], want_o, atol=1e-14)
    np.testing.assert_allclose(lse[2:], want_lse, atol=1e-14)


def test_inputs_are_the_same_for_one_seed():
    sizes = {"seq_lens_q": [2], "seq_lens_kv": [3], "num_heads": 2, "num_kv_heads": 1}
    first, second = (random_ragged(np.random.default_rng(1), **sizes) for _ in range(2))
    assert np.array_equal(first.q, second.q)
    q, k, v = (x.swapaxes(0, 1)[None] for x in (first.q, first.k, first.v))
    assert np.array_equal(attention(q, k, v)[0][0].swapaxes(0, 1), ragged_attention(first)[0])


def test_random_weights_have_published_names_and_dtype(tiny_config, rng):
    weights = random_weights(tiny_config, rng, np.float16)
    assert {x.dtype for x in weights.values()} == {np.dtype(np.float16)}
    assert "transformer.encoder.layers.1.self_attention.query_key_value.bias" in weights
