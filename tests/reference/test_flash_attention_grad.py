"""The ragged gradient against dense gradients, against slopes, and its rounding points."""

import numpy as np
import pytest

from glm2_reference import flash_attention_grad, flash_attention_varlen
from glm2_reference.layer_gradients import attention_gradients
from glm2_reference.testing import bnsd_from_tnd, random_ragged, tnd_from_bnsd, upcast

OPTIONS = [
    {},
    {"causal": False},
    {"window": 3},
    {"causal": False, "window": 2},
    {"prefix_len": np.array([2, 0, 0, 1], np.int32), "scale": 0.7},
]


def draw(rng, *, dtype=np.float64, num_heads=4, num_kv_heads=2, **options):
    """Return do, q, k, v, o, lse and the offsets; a sequence without queries, and one without keys."""
    problem = random_ragged(
        rng, seq_lens_q=[5, 0, 3, 4], seq_lens_kv=[7, 2, 0, 4], num_heads=num_heads,
        num_kv_heads=num_kv_heads, head_dim=8, dtype=dtype,
    )  # fmt: skip
    operands = (problem.q, problem.k, problem.v)
    offsets = (problem.cu_seqlens_q, problem.cu_seqlens_kv)
    o, lse = flash_attention_varlen(*operands, *offsets, return_lse=True, **options)
    do = rng.standard_normal(o.shape).astype(dtype)
    return (do, *operands, o, lse), offsets


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_it_equals_the_dense_gradient_of_each_sequence(rng, num_kv_heads, options):
    operands, offsets = draw(rng, num_kv_heads=num_kv_heads, **options)
    dense = {"scale": 8**-0.5, **options}
    prefixes = dense.pop("prefix_len", np.zeros(4, np.int32))
    parts = [
        bnsd_from_tnd(x, offsets[0 if name in {"do", "q", "o", "lse"} else 1])
        for name, x in zip(
            ("do", "q", "k", "v", "o", "lse"),
            (*operands[:5], operands[5][..., None]),
            strict=True,
        )
    ]
    wanted = [
        attention_gradients(*xs, lse[..., 0], prefix_len=int(prefix), **dense)
        for *xs, lse, prefix in zip(*parts, prefixes, strict=True)
    ]
    got = flash_attention_grad(*operands, *offsets, **options)
    for x, ys in zip(got, zip(*wanted, strict=True), strict=True):
        np.testing.assert_allclose(x, tnd_from_bnsd(ys), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_slope_of_the_forward_pass(rng, options):
    operands, offsets = draw(rng, **options)
    do, inputs = operands[0], operands[1:4]

    def loss():
        return np.sum(do * flash_attention_varlen(*inputs, *offsets, **options))

    for x, grad in zip(inputs, flash_attention_grad(*operands, *offsets, **options), strict=True):
        for index in rng.integers(x.size, size=12):
            kept, values = x.flat[index], []
            for step in (1e-5, -1e-5):
                x.flat[index] = kept + step
                values.append(loss())
            x.flat[index] = kept
            slope = (values[0] - values[1]) / 2e-5
            assert grad.flat[index] == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_rows_without_lse_and_sequences_without_keys_have_no_gradient(rng):
    operands, offsets = draw(rng)
    assert np.isneginf(operands[5][5:8]).all()  # three queries without keys
    operands[5][1] = -np.inf
    dq, dk, dv = flash_attention_grad(*operands, *offsets)
    assert not dq[[1, 5, 6, 7]].any()
    assert dq[0].any()
    assert not dk[7:9].any()  # two keys without queries
    assert not dv[7:9].any()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_dtypes_round_where_they_say(rng, dtype):
    """P and dS in the dtype: dv of one key and row is P rounded, times do, rounded again."""
    operands, offsets = draw(rng, dtype=dtype, num_heads=16, num_kv_heads=16)
    got = flash_attention_grad(*operands, *offsets)
    for x, y in zip(got, (operands[1], *operands[2:4]), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert np.isfinite(x).all()
    golden = flash_attention_grad(*upcast(*operands), *offsets)
    unit = 2.0**-11 if dtype == np.float16 else 2.0**-24
    for x, wanted in zip(got, golden, strict=True):
        np.testing.assert_allclose(x, wanted, atol=40 * unit * np.abs(wanted).max())
    # The last key of the first sequence is seen by its last query alone.
    do, q, k, _, _, lse = (x.astype(np.float32) for x in operands)
    scores = np.sum(q[4] * k[6], axis=-1) * np.float32(8**-0.5)
    probs = np.exp(scores - lse[4]).astype(dtype).astype(np.float32)
    wanted = (probs[:, None] * do[4]).astype(dtype)
    np.testing.assert_allclose(got[2][6], wanted, rtol=16 * unit)


def change(index, function):
    def apply(operands, offsets):
        values = [*operands, *offsets]
        values[index] = function(values[index])
        return values

    return apply


@pytest.mark.parametrize(
    ("apply", "error", "message"),
    [
        (change(0, lambda x: x[1:]), ValueError, "do has shape .* the shape of q"),
        (change(1, lambda x: x[0]), ValueError, "q has shape .* expected 3 axes"),
        (change(1, lambda x: x.astype(int)), TypeError, "q has dtype int64"),
        (change(2, lambda x: x[..., 1:]), ValueError, "k has shape .* with the head_dim of q"),
        (change(2, lambda x: x.astype(np.float32)), TypeError, "k is float32 and q float64"),
        (change(3, lambda x: x[1:]), ValueError, "v has shape .* the shape of k"),
        (change(4, lambda x: x[1:]), ValueError, "o has shape .* the shape of q"),
        (change(5, lambda x: x[1:]), ValueError, "lse has shape .* a row of q each"),
        (change(5, lambda x: x.astype(np.float32)), TypeError, "lse is float32; expected float64"),
        (change(6, lambda x: x[:-1]), ValueError, "cu_seqlens_q ends at 8"),
        (change(7, lambda x: x[1:]), ValueError, "cu_seqlens_kv is .* it must start at 0"),
        (change(7, lambda x: x[[0, -1]]), ValueError, "the shape of cu_seqlens_q"),
    ],
)
def test_wrong_operands_are_refused(rng, apply, error, message):
    with pytest.raises(error, match=message):
        flash_attention_grad(*apply(*draw(rng)))


def test_wrong_options_are_refused(rng):
    operands, offsets = draw(rng)
    with pytest.raises(ValueError, match="window is 0"):
        flash_attention_grad(*operands, *offsets, window=0)
    with pytest.raises(ValueError, match=r"prefix_len\[0\] is 8"):
        flash_attention_grad(*operands, *offsets, prefix_len=np.array([8, 0, 0, 0], np.int32))
