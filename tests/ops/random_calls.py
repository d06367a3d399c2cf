"""Random right calls of each operator, and changes that make some of them wrong.

Tests load it with runpy, as tests are no package.
"""

import fractions
import runpy
from pathlib import Path

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided

rules = runpy.run_path(str(Path(__file__).with_name("call_rules.py")))
AXES, OPTIONAL = rules["AXES"], rules["OPTIONAL"]

DTYPES = [np.dtype(np.float16), np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16)]
MOST_BYTES = 2**24  # of an array; of larger ones a call that is right would only take long


def choose(rng, options):
    return options[rng.integers(len(options))]


# Right calls


def floats(rng, dtype, *shape):
    return rng.standard_normal(shape).astype(dtype)


def offsets(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def options(rng):
    chosen = {}
    if rng.random() < 0.5:
        chosen["scale"] = choose(rng, [0.25, 1, -0.5, np.float32(0.1), None])
    if rng.random() < 0.5:
        chosen["causal"] = choose(rng, [True, False, np.bool_(True)])
    if rng.random() < 0.5:
        chosen["window"] = choose(rng, [1, 7, np.int64(3), 2**31 - 1, None])
    return chosen


def sizes(rng):
    heads, kv_heads = choose(rng, [(1, 1), (4, 2), (6, 3), (16, 1), (2, 2)])
    batch = int(rng.integers(0, 4))
    len_q = rng.integers(0, 6, batch)
    return heads, kv_heads, choose(rng, [16, 32, 64]), len_q, len_q + rng.integers(0, 40, batch)


def dtypes(rng):
    """Return the dtype of queries and one of the keys that they may have."""
    dtype = choose(rng, DTYPES)
    return dtype, choose(rng, DTYPES) if dtype == np.float32 else dtype


def paged(rng, kv_heads, head_dim, lengths, dtype):
    page_size = choose(rng, [16, 32])
    needed = -(-lengths // page_size)
    width = int(needed.max(initial=0)) + int(rng.integers(0, 2))
    pages = int(needed.sum()) + int(rng.integers(0, 3))
    table = np.full((len(lengths), width), -1, np.int32)
    ids = rng.permutation(pages)
    for row, count in zip(table, needed, strict=True):
        row[:count], ids = ids[:count], ids[count:]
    shape = (pages, kv_heads, page_size, head_dim)
    return {"k_cache": floats(rng, dtype, *shape), "v_cache": floats(rng, dtype, *shape),
            "block_table": table}  # fmt: skip


def flash_attention(rng):
    heads, kv_heads, head_dim, len_q, lengths = sizes(rng)
    dtype, cache_dtype = dtypes(rng)
    arguments = {
        "q": floats(rng, dtype, int(len_q.sum()), heads, head_dim),
        **paged(rng, kv_heads, head_dim, lengths, cache_dtype),
        "cu_seqlens_q": offsets(len_q),
        "seq_len_kv": lengths.astype(np.int32),
        **options(rng),
    }
    if rng.random() < 0.3:
        arguments["prefix_len"] = (lengths // 2).astype(np.int32)
    if rng.random() < 0.3:
        arguments["return_lse"] = choose(rng, [True, False])
    return arguments


def flash_attention_varlen(rng):
    heads, kv_heads, head_dim, len_q, lengths = sizes(rng)
    dtype, kv_dtype = dtypes(rng)
    arguments = {
        "q": floats(rng, dtype, int(len_q.sum()), heads, head_dim),
        "k": floats(rng, kv_dtype, int(lengths.sum()), kv_heads, head_dim),
        "v": floats(rng, kv_dtype, int(lengths.sum()), kv_heads, head_dim),
        "cu_seqlens_q": offsets(len_q),
        "cu_seqlens_kv": offsets(lengths),
        **options(rng),
    }
    if rng.random() < 0.3:
        arguments["prefix_len"] = (lengths // 2).astype(np.int32)
    return arguments


def flash_attention_grad(rng):
    forward = flash_attention_varlen(rng)
    q = forward["q"]
    for name in "kv":
        forward[name] = forward[name].astype(q.dtype)
    return {
        "do": floats(rng, q.dtype, *q.shape),
        **{name: forward[name] for name in "qkv"},
        "o": floats(rng, q.dtype, *q.shape),
        "lse": np.abs(floats(rng, np.float32, *q.shape[:2])) + 5,
        **{name: value for name, value in forward.items() if name not in "qkv"},
    }


def rope_append(rng):
    heads, kv_heads, head_dim, len_q, lengths = sizes(rng)
    dtype, cache_dtype = dtypes(rng)
    rotary_dim = choose(rng, [0, 8, 16])
    table = (int(lengths.max(initial=0)) + int(rng.integers(0, 3)), rotary_dim // 2)
    return {
        "qkv": floats(rng, dtype, int(len_q.sum()), (heads + 2 * kv_heads) * head_dim),
        "cos": floats(rng, np.float32, *table),
        "sin": floats(rng, np.float32, *table),
        **paged(rng, kv_heads, head_dim, lengths, cache_dtype),
        "cu_seqlens_q": offsets(len_q),
        "seq_len_kv": lengths.astype(np.int32),
        "num_heads": heads,
        "num_kv_heads": choose(rng, [kv_heads, np.int32(kv_heads)]),
        "rotary_dim": rotary_dim,
    }


def rms_norm(rng):
    dtype = choose(rng, DTYPES)
    shape = (int(rng.integers(0, 5)), int(rng.integers(1, 70)))
    arguments = {"x": floats(rng, dtype, *shape), "weight": floats(rng, dtype, shape[1]),
                 "eps": choose(rng, [1e-5, 1, np.float32(1e-6)])}  # fmt: skip
    if rng.random() < 0.5:
        arguments["residual"] = floats(rng, dtype, *shape)
    return arguments


def swiglu(rng):
    shape = (int(rng.integers(0, 5)), 2 * int(rng.integers(0, 40)))
    return {"x": floats(rng, choose(rng, DTYPES), *shape)}


RIGHT_CALLS = {
    make.__name__: make
    for make in (
        flash_attention, flash_attention_varlen, flash_attention_grad, rope_append, rms_norm, swiglu
    )
}  # fmt: skip


# Changes of an array: some make a call wrong, some do not


class Subclass(np.ndarray):
    pass


def unaligned(array):
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    moved = memory[: array.nbytes].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


def strided(array):
    wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def resized(rng, array):
    """Another length of one axis; huge only where another is empty, or nothing is ever read."""
    axis = int(rng.integers(array.ndim))
    shape = list(array.shape)
    shape[axis] = max(0, shape[axis] + choose(rng, [-16, -2, -1, 1, 2, 16, -shape[axis]]))
    return np.resize(array, shape) if array.size else np.zeros(shape, array.dtype)


def huge(rng, array):
    if array.ndim == 1:
        length = choose(rng, [2**20, 2**31, 2**32, 2**40])
        return as_strided(np.zeros(1, array.dtype), [length], [0])
    shape = list(array.shape)
    axis = int(rng.integers(array.ndim))
    shape[axis] = choose(rng, [2**20, 2**28, 2**31 - 1, 2**31, 2**32, 2**33 + 16, 2**40])
    shape[axis - 1] = 0
    return np.zeros(shape, array.dtype)


def other_value(rng, array):
    """Another number somewhere: indices that lead out of bounds, or floats that are none."""
    if not array.size:
        return array
    array = array.copy()
    if array.dtype.kind == "i":
        info = np.iinfo(array.dtype)
        value = choose(rng, [-1, 0, 1, 5, 33, 1000, 2**16, 2**30, info.max, info.min])
    else:
        value = choose(rng, [np.nan, np.inf, -np.inf, 0.0])
    array.flat[rng.integers(array.size)] = value
    return array


OTHER_DTYPES = [
    np.int8, np.uint8, np.int32, np.uint32, np.int64, np.float16, np.float32, np.float64,
    np.longdouble, np.complex64, np.bool_, object, "S4", "U2", ml_dtypes.bfloat16,
    ml_dtypes.float8_e4m3fn, ml_dtypes.int4,
]  # fmt: skip


def recast(rng, array):
    dtype = np.dtype(choose(rng, OTHER_DTYPES))
    return array.astype(np.float32).astype(dtype)


def structured(array):
    return np.zeros(array.shape, [("first", array.dtype), ("second", np.int8)])


ARRAY_CHANGES = [
    lambda rng, _: choose(rng, [None, 3, 0.5, "text", b"bytes", {}, (), object(), np.float32(1)]),
    lambda _, a: a.tolist() if max(a.shape) < 2**20 else [],  # which spells empty axes out
    lambda _, a: memoryview(a.astype(np.float32)),
    lambda _, a: np.array(a.sum(), a.dtype),
    lambda _, a: a.reshape(-1),
    lambda _, a: a[None],
    lambda _, a: a[..., None],
    lambda rng, a: np.swapaxes(a, *rng.integers(0, a.ndim, 2)),
    resized, resized, resized, huge,
    other_value, other_value, other_value, other_value,
    recast, recast,
    lambda _, a: structured(a),
    lambda _, a: a.astype(a.dtype.newbyteorder()),
    lambda _, a: unaligned(a), lambda _, a: strided(a), lambda _, a: read_only(a),
    lambda _, a: np.asfortranarray(a),
    lambda _, a: a[::-1], lambda _, a: a[::-1].copy()[::-1],
    lambda _, a: as_strided(a, a.shape, [0] * a.ndim) if a.size else a,
    lambda _, a: a.view(Subclass),
    lambda _, a: np.ma.masked_array(a),
    lambda _, a: np.matrix(a) if a.ndim == 2 and a.dtype.name != "bfloat16" else a.view(Subclass),
]  # fmt: skip

NUMBERS = [
    None, True, False, np.True_, 0, 1, -1, 2, 3, 8, 12, 24, 2**31 - 1, 2**31, 2**32 + 8, 2**63, 2**64,
    -(2**31), -(2**63), 10**400, 10**5000, 0.0, 0.5, -0.5, 1e39, 1e-50, 3.4028235e38,
    float("nan"), float("inf"), float("-inf"), np.float32("nan"), np.float64("inf"), np.float16(2),
    np.longdouble(2), np.int64(4), np.uint8(16), np.array(8), np.array(0.5), np.array([8]), "1", "", b"8",
    [], [1], (2,), {}, 1j, np.complex64(1), fractions.Fraction(1, 2), object(), Subclass, len,
]  # fmt: skip


def overlapping(rng, arguments, name):
    """One array over the memory of another: as a whole, or by its last bytes."""
    arrays = [n for n, a in arguments.items() if isinstance(a, np.ndarray) and n != name]
    other = arguments[choose(rng, arrays)]
    array = arguments[name]
    step = choose(rng, [0, max(0, other.nbytes - array.dtype.alignment)])
    step -= step % array.dtype.alignment
    memory = np.zeros(step + array.nbytes + other.nbytes, np.uint8)
    first = memory[: other.nbytes].view(other.dtype).reshape(other.shape)
    second = memory[step : step + array.nbytes].view(array.dtype).reshape(array.shape)
    second[...] = array
    first[...] = other
    changed = {n: first if a is other else a for n, a in arguments.items()}
    return {**changed, name: second}


@np.errstate(all="ignore")
def changed_call(rng, operator):
    """A right call with up to three changes."""
    arguments = RIGHT_CALLS[operator](rng)
    names = [*AXES[operator], *(n for n in arguments if n not in AXES[operator])]
    for _ in range(choose(rng, [0, 1, 1, 1, 1, 1, 2, 3])):
        name = choose(rng, names)
        value = arguments.get(name)
        if not isinstance(value, np.ndarray) or value.ndim == 0:
            if name not in OPTIONAL and not isinstance(value, np.ndarray):
                arguments[name] = choose(rng, NUMBERS)
        elif value.nbytes > MOST_BYTES:
            continue
        elif operator == "rope_append" and rng.random() < 0.2:
            if value.dtype.kind in "if" or value.dtype.name == "bfloat16":
                arguments = overlapping(rng, arguments, name)
        else:
            try:
                changed = choose(rng, ARRAY_CHANGES)(rng, value)
            except (TypeError, ValueError, BufferError, MemoryError):
                continue  # numpy itself would not make that change, after an earlier one
            if getattr(changed, "nbytes", 0) <= MOST_BYTES or 0 in changed.strides:
                arguments[name] = changed
    return arguments


def shown(arguments):
    """One line an argument, for the report of a failure."""
    lines = []
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            text = f"{type(value).__name__} {value.dtype} {value.shape} strides {value.strides}"
            if value.dtype.kind in "iu" and value.size < 50:
                text += f" {value.tolist()}"
        else:
            text = f"{value!r:.80}" if not isinstance(value, int) else f"{value.bit_length()} bits"
        lines.append(f"  {name}: {text}")
    return "\n".join(lines)
