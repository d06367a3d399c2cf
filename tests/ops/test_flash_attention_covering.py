"""glm2_ops.flash_attention over a covering set: every value of every parameter meets every value of each other.

By the accuracy rule at level L2. Then what the set leaves out: 32,768 keys, and inputs that are
constant, infinite or no numbers.
"""

import itertools
import math

import ml_dtypes
import numpy as np
import pytest

import glm2_ops
from glm2_reference.testing import (
    assert_accurate,
    paged_from_tnd,
    ragged_attention,
    random_block_table,
    random_ragged,
)

BFLOAT16 = ml_dtypes.bfloat16
DTYPES = [
    (np.float16, np.float16), (BFLOAT16, BFLOAT16), (np.float32, np.float32),
    (np.float32, np.float16), (np.float32, BFLOAT16),
]  # fmt: skip
DTYPE_IDS = ["-".join(np.dtype(x).name for x in pair) for pair in DTYPES]

PARAMETERS = {
    "length": [1, 15, 16, 17, 127, 128, 129, 511, 513, 1000, 4097],
    "head_dim": [16, 48, 64, 80, 128, 144, 208, 256],
    "group_size": [1, 2, 3, 7, 16, 32],
    "page_size": [16, 48, 64, 128, 256],
    "dtypes": range(len(DTYPES)),
    "mask": ["causal", "bidirectional", "window", "no prefix", "half prefix", "whole prefix"],
}


def covering_set(parameters):
    """Return cases in which all pairs of values of two parameters occur; greedy, always the same."""
    names = list(parameters)
    missing = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x in parameters[a]
        for y in parameters[b]
    }
    cases = []
    while missing:
        case = dict(min(missing, key=str))
        for name in names:
            if name not in case:
                case[name] = max(
                    parameters[name], key=lambda x: sum(p in missing for p in pairs(names, {**case, name: x}))
                )  # fmt: skip
        missing.difference_update(pairs(names, case))
        cases.append(case)
    return cases


def pairs(names, case):
    items = [(name, case[name]) for name in names if name in case]
    return set(itertools.combinations(items, 2))


CASES = covering_set(PARAMETERS)

# The accuracy rule compares statistics: in float32 the few elements near zero make up the RMSE.
ENOUGH_ELEMS = {np.float16: 20_000, BFLOAT16: 20_000, np.float32: 800_000}


def paged(rng, problem, page_size):
    """Return the operands of flash_attention; slots without a token hold NaN."""
    table, num_pages = random_block_table(rng, problem.seq_len_kv, page_size=page_size)
    caches = (
        paged_from_tnd(x, problem.cu_seqlens_kv, table, num_pages=num_pages, page_size=page_size)
        for x in (problem.k, problem.v)
    )
    return (problem.q, *caches, table, problem.cu_seqlens_q, problem.seq_len_kv)


def sequences_of(length):
    """A batch of (queries, keys): decode, a chunk, a whole prompt, more queries than keys, empty ones."""
    whole = min(length, 600)
    return [
        (1, length),
        (0, 9),
        (min(17, length), length),
        (whole, length),
        (3, 0),
        (length % 5 + 2, 1),
    ]


def prefixes_of(mask, lens):
    share = {"no prefix": 0, "half prefix": 0.5, "whole prefix": 1}
    if mask not in share:
        return None
    return np.array([math.ceil(share[mask] * len_kv) for _, len_kv in lens], np.int32)


def case_id(case):
    values = (DTYPE_IDS[value] if name == "dtypes" else value for name, value in case.items())
    return "-".join(str(value).replace(" ", "_") for value in values)


def test_the_set_covers_all_pairs():
    names = list(PARAMETERS)
    seen = set().union(*(pairs(names, {name: case[name] for name in names}) for case in CASES))
    sizes = [len(values) for values in PARAMETERS.values()]
    assert len(seen) == sum(a * b for a, b in itertools.combinations(sizes, 2))
    assert len(CASES) < 1.6 * 11 * 8  # not the full product


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_every_pair_of_parameters(rng, case):
    dtype, kv_dtype = DTYPES[case["dtypes"]]
    lens = sequences_of(case["length"])
    options = {
        "causal": case["mask"] != "bidirectional",
        "window": 100 if case["mask"] == "window" else None,
    }
    elems = sum(min(*pair) for pair in lens) * case["group_size"] * case["head_dim"]
    copies = math.ceil(ENOUGH_ELEMS[dtype] / elems)
    num_kv_heads = max(1, min(copies, 65535 // (case["group_size"] * case["head_dim"]), 64))
    lens = lens * math.ceil(copies / num_kv_heads)
    seq_lens_q, seq_lens_kv = zip(*lens, strict=True)
    problem = random_ragged(
        rng, seq_lens_q=seq_lens_q, seq_lens_kv=seq_lens_kv,
        num_heads=case["group_size"] * num_kv_heads, num_kv_heads=num_kv_heads,
        head_dim=case["head_dim"], dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    options["prefix_len"] = prefixes_of(case["mask"], lens)
    o, lse = glm2_ops.flash_attention(
        *paged(rng, problem, case["page_size"]), return_lse=True, **options
    )
    golden, golden_lse = ragged_attention(problem, dtype=np.float64, **options)
    plain, plain_lse = ragged_attention(problem, round_dtype=kv_dtype, **options)
    assert_accurate(o, plain, golden, "L2")
    blind = np.isneginf(golden_lse)
    assert np.array_equal(np.isneginf(lse), blind)
    assert not o[blind].any()
    seen = ~blind
    far = np.abs(plain_lse[seen] - golden_lse[seen]).max()
    np.testing.assert_allclose(lse[seen], golden_lse[seen], rtol=1e-6, atol=2 * far + 2e-6)


@pytest.mark.parametrize(("dtype", "kv_dtype"), DTYPES, ids=DTYPE_IDS)
def test_decode_over_32768_keys(rng, dtype, kv_dtype):
    """Sequences that share their pages, each with a query of its own; keys in 32 parts."""
    sequences = 210 if dtype is np.float32 else 20
    problem = random_ragged(
        rng, seq_lens_q=[sequences], seq_lens_kv=[32768], num_heads=32, num_kv_heads=2,
        head_dim=128, dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    q, k_cache, v_cache, table, _, _ = paged(rng, problem, 128)
    o = glm2_ops.flash_attention(
        q, k_cache, v_cache, np.repeat(table, sequences, axis=0),
        np.arange(sequences + 1, dtype=np.int32), np.full(sequences, 32768, np.int32),
    )  # fmt: skip
    golden, _ = ragged_attention(problem, dtype=np.float64, causal=False)
    plain, _ = ragged_attention(problem, round_dtype=kv_dtype, causal=False)
    assert_accurate(o, plain, golden, "L2")


@pytest.mark.parametrize(("dtype", "kv_dtype"), DTYPES, ids=DTYPE_IDS)
def test_a_chunk_after_32768_keys(rng, dtype, kv_dtype):
    """Too many queries for one tile, so keys are not cut; few heads."""
    num_heads = 16 if dtype is np.float32 else 4
    problem = random_ragged(
        rng, seq_lens_q=[400], seq_lens_kv=[32768], num_heads=num_heads, num_kv_heads=2,
        head_dim=128, dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    o = glm2_ops.flash_attention(*paged(rng, problem, 128))
    golden, _ = ragged_attention(problem, dtype=np.float64)
    plain, _ = ragged_attention(problem, round_dtype=kv_dtype)
    assert_accurate(o, plain, golden, "L2")


@pytest.mark.parametrize(("dtype", "kv_dtype"), DTYPES, ids=DTYPE_IDS)
@pytest.mark.parametrize("value", [0.0, 1.0, -3.0, 200.0])
def test_constant_inputs_give_the_constant(dtype, kv_dtype, value):
    """Any average of equal values is that value; scores of 200 * 200 * 64 are equal too."""
    problem = random_ragged(
        np.random.default_rng(0), seq_lens_q=[150], seq_lens_kv=[1500], num_heads=8,
        num_kv_heads=2, head_dim=64, dtype=dtype, kv_dtype=kv_dtype,
    )  # fmt: skip
    for x in (problem.q, problem.k, problem.v):
        x[:] = value
    o, lse = glm2_ops.flash_attention(
        *paged(np.random.default_rng(0), problem, 48), return_lse=True
    )
    rounding = ml_dtypes.finfo(dtype).eps + 2.0**-20
    np.testing.assert_allclose(o.astype(np.float64), value, rtol=rounding)
    want = value * value * 8.0 + np.log(np.arange(1351, 1501))
    np.testing.assert_allclose(lse, np.tile(want[:, None], (1, 8)), rtol=1e-6)


@pytest.fixture
def clean():
    """Two sequences with queries and keys, and their result."""
    rng = np.random.default_rng(0)
    problem = random_ragged(
        rng, seq_lens_q=[40, 30], seq_lens_kv=[300, 200], num_heads=8, num_kv_heads=2, head_dim=32
    )
    return problem, glm2_ops.flash_attention_varlen(*operands_of(problem), return_lse=True)


def operands_of(problem):
    return problem.q, problem.k, problem.v, problem.cu_seqlens_q, problem.cu_seqlens_kv


def test_nan_in_a_query_stays_in_its_row(clean):
    problem, (want, want_lse) = clean
    problem.q[13, 5, 7] = np.nan
    o, lse = glm2_ops.flash_attention_varlen(*operands_of(problem), return_lse=True)
    assert np.isnan(o[13, 5]).all()
    assert np.isnan(lse[13, 5])
    o[13, 5], lse[13, 5] = want[13, 5], want_lse[13, 5]
    assert np.array_equal(o, want)
    assert np.array_equal(lse, want_lse)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_in_a_key_reach_the_rows_that_see_it(clean, value):
    problem, (want, _) = clean
    problem.q[..., 3] = np.abs(problem.q[..., 3])  # times infinity: all scores are +inf
    want = glm2_ops.flash_attention_varlen(*operands_of(problem))
    problem.k[280, 1, 3] = value  # token 20 of the first sequence's queries is the first to see it
    o = glm2_ops.flash_attention_varlen(*operands_of(problem))
    assert np.isnan(o[20:40, 4:]).all()
    o[20:40, 4:] = want[20:40, 4:]
    assert np.array_equal(o, want)


def test_a_key_whose_score_is_minus_infinity_weighs_nothing(clean):
    problem, _ = clean
    problem.q[..., 3] = np.abs(problem.q[..., 3]) + 0.1
    problem.k[280, 1, 3] = -np.inf
    o, lse = glm2_ops.flash_attention_varlen(*operands_of(problem), return_lse=True)
    golden, golden_lse = ragged_attention(problem, dtype=np.float64)
    np.testing.assert_allclose(o, golden, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(lse, golden_lse, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_reaches_its_column(clean, value):
    """Of rows that see it, surely; of rows of its tile that do not, 0 times it is NaN as well."""
    problem, (want, want_lse) = clean
    problem.v[280, 1, 9] = value
    o, lse = glm2_ops.flash_attention_varlen(*operands_of(problem), return_lse=True)
    seen = o[20:40, 4:, 9]
    assert np.isnan(seen).all() if np.isnan(value) else np.isin(seen, value).all()
    o[:40, 4:, 9] = want[:40, 4:, 9]
    assert np.array_equal(o, want)
    assert np.array_equal(lse, want_lse)


def test_scores_that_overflow_float32_are_nan_not_a_crash(clean):
    problem, _ = clean
    problem.q[:] = 1e30
    problem.k[:] = 1e30
    o = glm2_ops.flash_attention_varlen(*operands_of(problem))
    assert np.isnan(o).all()
