import numpy as np
import pytest

from glm2_reference.online_softmax import TileOptions, attend_tile


@pytest.mark.parametrize("block_n", [1, 2, 3, 7, 8])
def test_attend_tile_matches_loops_for_any_tile(rng, loop_attention, block_n):
    q, k, v = (rng.standard_normal((rows, 4)) for rows in (3, 7, 7))
    options = TileOptions(
        scale=0.5, causal=True, prefix_len=0, window=None, block_m=3, block_n=block_n
    )
    o, lse = attend_tile(q, k, v, np.array([4, 5, 6]), options)
    want_o, want_lse = loop_attention(q[:, None], k[:, None], v[:, None], scale=0.5)
    np.testing.assert_allclose(o, want_o[:, 0], atol=1e-14)
    np.testing.assert_allclose(lse, want_lse[:, 0], atol=1e-14)


def test_attend_tile_without_a_visible_key_is_zero(rng):
    q, k, v = (rng.standard_normal((rows, 4)).astype(np.float32) for rows in (2, 5, 5))
    options = TileOptions(scale=1.0, causal=True, prefix_len=0, window=None, block_m=2, block_n=2)
    o, lse = attend_tile(q, k, v, np.array([-2, -1]), options)
    assert not o.any()
    assert np.isneginf(lse).all()


def test_attend_tile_row_that_first_sees_a_later_tile(rng, loop_attention):
    """Under a window the first tile is masked for the last row, but not for the first."""
    q, k, v = (rng.standard_normal((rows, 4)) for rows in (4, 6, 6))
    options = TileOptions(scale=1.0, causal=True, prefix_len=0, window=2, block_m=4, block_n=2)
    o, _ = attend_tile(q, k, v, np.array([2, 3, 4, 5]), options)
    want, _ = loop_attention(q[:, None], k[:, None], v[:, None], scale=1.0, window=2)
    np.testing.assert_allclose(o, want[:, 0], atol=1e-14)


@pytest.mark.parametrize("part_keys", [2, 4, 6, 8])
def test_attend_tile_in_parts_matches_loops(rng, loop_attention, part_keys):
    q, k, v = (rng.standard_normal((rows, 4)) for rows in (3, 7, 7))
    options = TileOptions(scale=0.5, causal=True, prefix_len=0, window=3, block_m=3, block_n=2)
    positions = np.array([4, 5, 6])
    o, lse = attend_tile(q, k, v, positions, options, part_keys=part_keys)
    want_o, want_lse = loop_attention(q[:, None], k[:, None], v[:, None], scale=0.5, window=3)
    np.testing.assert_allclose(o, want_o[:, 0], atol=1e-14)
    np.testing.assert_allclose(lse, want_lse[:, 0], atol=1e-14)


def test_parts_that_a_row_does_not_see_change_no_bit(rng):
    q, k, v = (rng.standard_normal((rows, 4)).astype(np.float32) for rows in (2, 8, 8))
    options = TileOptions(scale=1.0, causal=True, prefix_len=0, window=2, block_m=2, block_n=2)
    for positions in ([2, 3], [-2, -1]):  # keys of one part, of none
        whole = attend_tile(q, k, v, np.array(positions), options)
        parts = attend_tile(q, k, v, np.array(positions), options, part_keys=2)
        if positions[0] > 0:
            assert np.array_equal(parts[0][1], whole[0][1])  # position 3 sees keys 2 and 3
            assert parts[1][1] == whole[1][1]
        else:
            assert not parts[0].any()
            assert np.isneginf(parts[1]).all()
