import math

import numpy as np
import pytest

from glm2_reference import apply_rope, rope_table


def loop_rope(x, positions, *, rotary_dim, base, position_scale=1.0):
    out = x.astype(np.float64).copy()
    for t, position in enumerate(positions):
        for h in range(x.shape[1]):
            for i in range(rotary_dim // 2):
                angle = position / position_scale * base ** (-2 * i / rotary_dim)
                a, b = float(x[t, h, 2 * i]), float(x[t, h, 2 * i + 1])
                out[t, h, 2 * i] = a * math.cos(angle) - b * math.sin(angle)
                out[t, h, 2 * i + 1] = b * math.cos(angle) + a * math.sin(angle)
    return out


@pytest.mark.parametrize(
    ("dtype", "atol"), [(np.float16, 4e-3), (np.float32, 1e-5), (float, 1e-13)]
)
@pytest.mark.parametrize(("base", "position_scale"), [(10000.0, 1.0), (1e4, 16.0), (5e5, 1.0)])
def test_apply_rope_matches_loops(rng, dtype, atol, base, position_scale):
    positions = np.array([0, 1, 2, 30, 63])
    x = rng.standard_normal((5, 3, 16)).astype(dtype)
    table = np.float64 if dtype is float else np.float32
    cos, sin = rope_table(
        max_position=64, rotary_dim=8, base=base, position_scale=position_scale, dtype=table
    )
    assert cos.dtype == sin.dtype == table
    assert cos.shape == (64, 4)
    out = apply_rope(x, cos, sin, positions)
    want = loop_rope(x, positions, rotary_dim=8, base=base, position_scale=position_scale)
    assert out.dtype == x.dtype
    np.testing.assert_allclose(out, want, atol=atol)
    assert np.array_equal(out[:, :, 8:], x[:, :, 8:])
    assert np.array_equal(out[0], x[0])


def test_rope_table_stays_exact_past_position_2048():
    cos, _ = rope_table(max_position=32768, rotary_dim=64, base=10000.0)
    assert cos[32767, 0] == pytest.approx(math.cos(32767), abs=1e-6)  # float16 positions are not
    assert cos[32767, 31] == pytest.approx(math.cos(32767 * 10000 ** (-62 / 64)), abs=1e-5)


def test_rotary_dim_zero_passes_everything_through(rng):
    x = rng.standard_normal((2, 1, 4))
    cos, sin = rope_table(max_position=2, rotary_dim=0, base=10000.0)
    assert np.array_equal(apply_rope(x, cos, sin, np.arange(2)), x)


X, COS = np.ones((2, 1, 4), np.float32), np.ones((3, 2), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: rope_table(max_position=4, rotary_dim=3, base=1e4),
            ValueError,
            "rotary_dim is 3; dims rotate in pairs, so it must be even",
        ),
        (
            lambda: rope_table(max_position=0, rotary_dim=4, base=1e4),
            ValueError,
            "max_position is 0, base 10000.0 and position_scale 1.0; each must be positive",
        ),
        (
            lambda: apply_rope(X, COS, COS, np.array([0, 3])),
            ValueError,
            "positions contain 3; expected 0 to 2, the table's rows",
        ),
        (lambda: apply_rope(X, COS, COS, np.array([-1, 0])), ValueError, "positions contain -1"),
        (lambda: apply_rope(X, COS, COS, np.arange(1)), ValueError, r"positions has shape \(1,\)"),
        (lambda: apply_rope(X, COS, COS[:2], np.arange(2)), ValueError, "the shape of cos"),
        (lambda: apply_rope(X[0], COS, COS, np.arange(2)), ValueError, r"3 axes, \(T, H, D\)"),
        (
            lambda: apply_rope(X[:, :, :2], COS, COS, np.arange(2)),
            ValueError,
            "cos has 2 columns, so 4 dims rotate, but x has 2 a head",
        ),
        (
            lambda: apply_rope(X.astype(int), COS, COS, np.arange(2)),
            TypeError,
            "x has dtype int64; expected one of float16",
        ),
    ],
)
def test_rope_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()
