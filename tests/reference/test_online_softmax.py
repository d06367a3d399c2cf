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
