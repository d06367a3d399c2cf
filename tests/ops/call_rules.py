"""What a call of each operator may be: an oracle written from the operators' docstrings alone.

It shares no code with ``glm2_ops.checks``. `violations` names every rule that a call breaks; a call
that breaks none must run. Tests load it with runpy, as tests are no package.
"""

from __future__ import annotations

import itertools
import math
import operator as op
from typing import NamedTuple

import numpy as np

FLOATS = ("float16", "bfloat16", "float32")
MAX_INT32 = 2**31 - 1
LONGEST_INDEX = 2**18  # of index arrays that belong together, in tests
MAX_LENGTH = 2**30  # of a sequence: positions and windows add up inside int32

AXES = {
    "flash_attention": {
        "q": 3, "k_cache": 4, "v_cache": 4, "block_table": 2, "cu_seqlens_q": 1, "seq_len_kv": 1,
        "prefix_len": 1,
    },
    "flash_attention_varlen": {
        "q": 3, "k": 3, "v": 3, "cu_seqlens_q": 1, "cu_seqlens_kv": 1, "prefix_len": 1,
    },
    "flash_attention_grad": {
        "do": 3, "q": 3, "k": 3, "v": 3, "o": 3, "lse": 2, "cu_seqlens_q": 1, "cu_seqlens_kv": 1,
        "prefix_len": 1,
    },
    "rope_append": {
        "qkv": 2, "cos": 2, "sin": 2, "k_cache": 4, "v_cache": 4, "block_table": 2,
        "cu_seqlens_q": 1, "seq_len_kv": 1,
    },
    "rms_norm": {"x": 2, "weight": 1, "residual": 2},
    "swiglu": {"x": 2},
}  # fmt: skip
INDICES = {"block_table", "cu_seqlens_q", "cu_seqlens_kv", "seq_len_kv", "prefix_len"}
IN_PLACE = {"k_cache", "v_cache"}
OPTIONAL = {"prefix_len", "residual"}


class Violation(NamedTuple):
    """A broken rule: one of the words that a message about it holds, and the errors that fit it."""

    words: tuple[str, ...]
    errors: tuple[type[Exception], ...]


class Rules:
    """Collects what one call breaks."""

    def __init__(self, operator, arguments):
        self.operator = operator
        self.arguments = arguments
        self.broken = []
        self.unsure = False  # the documents leave it open whether the call is wrong
        self.bad = set()  # arrays of which nothing more can be asked

    def wrong(self, words, *errors):
        words = (words,) if isinstance(words, str) else tuple(words)
        self.broken.append(Violation(words, errors or (ValueError,)))

    def require(self, condition, words, *errors):
        if not condition:
            self.wrong(words, *errors)
        return condition

    def sound(self, *names):
        """Whether these are arrays of the right rank, so that shapes and values can be compared."""
        return not self.bad.intersection(names) and all(
            self.arguments.get(name) is not None for name in names
        )

    def check_arrays(self):
        for name, axes in AXES[self.operator].items():
            array = self.arguments.get(name)
            if array is None and name in OPTIONAL:
                continue
            if not isinstance(array, np.ndarray) or isinstance(
                array, np.ma.MaskedArray | np.matrix
            ):
                self.wrong(name, TypeError)
                self.bad.add(name)
                continue
            if not self.require(array.ndim == axes, name):
                self.bad.add(name)
            if name in INDICES and array.size > LONGEST_INDEX:
                self.wrong(tuple(INDICES))  # another one has not as many sequences
                self.bad.add(name)
            if any(size > MAX_INT32 for size in array.shape):
                self.unsure = True
            self.check_memory(name, array)

    def check_memory(self, name, array):
        if name in INDICES:
            named = array.dtype == np.int32 and array.dtype.isnative
            if not self.require(named, name, TypeError):
                self.bad.add(name)
        elif name in {"cos", "sin", "lse"}:
            self.require(array.dtype == np.float32 and array.dtype.isnative, name, TypeError)
        else:
            named = array.dtype.name in FLOATS and array.dtype.isnative
            self.require(named, (name, "k_cache" if name == "v_cache" else name), TypeError)
        if name in INDICES | IN_PLACE:
            self.require(array.flags.c_contiguous, name)
        self.require(array.flags.aligned, name)

    def check_dtypes(self):
        arrays = {n: a for n, a in self.arguments.items() if isinstance(a, np.ndarray)}

        def same(first, second):
            if first in arrays and second in arrays:
                equal = arrays[first].dtype == arrays[second].dtype
                self.require(equal, (first, second), TypeError)

        def under(first, second):
            if first in arrays and second in arrays:
                wide = arrays[first].dtype == np.float32
                self.require(
                    wide or arrays[first].dtype == arrays[second].dtype, (first, second), TypeError
                )

        match self.operator:
            case "flash_attention":
                under("q", "k_cache")
                same("v_cache", "k_cache")
            case "flash_attention_varlen":
                under("q", "k")
                same("v", "k")
            case "flash_attention_grad":
                for name in ("q", "k", "v", "o"):
                    same("do", name)
                    same("q", name)
            case "rope_append":
                under("qkv", "k_cache")
                same("v_cache", "k_cache")
            case "rms_norm":
                same("weight", "x")
                same("residual", "x")

    def check_heads(self, heads, kv_heads, head_dim, *, attention):
        names = ("q", "k", "k_cache", "num_heads", "num_kv_heads", "KV heads", "group size")
        self.require(heads >= 1 and kv_heads >= 1 and heads % max(kv_heads, 1) == 0, names)
        if attention and kv_heads >= 1:
            self.require(heads <= 128 * kv_heads, names)
        names += ("head_dim",)
        self.require(head_dim % 16 == 0 and 16 <= head_dim <= 256, names)
        if attention:
            self.require(heads * head_dim <= 65535, names)

    def check_offsets(self, name, tokens):
        if not self.sound(name):
            return
        offsets = self.arguments[name].tolist()
        if not self.require(len(offsets) > 0, name):
            self.bad.add(name)
            return
        self.require(offsets[0] == 0, name)
        self.require(all(a <= b for a, b in itertools.pairwise(offsets)), name)
        self.require(offsets[-1] == tokens, name)

    def check_prefix(self, lengths):
        if not self.sound("prefix_len"):
            return
        prefix = self.arguments["prefix_len"]
        if self.require(prefix.shape == lengths.shape, "prefix_len"):
            self.require(np.all((prefix >= 0) & (prefix <= lengths)), "prefix_len")

    def check_cache(self):
        if not self.sound("k_cache", "v_cache"):
            return
        k, v = self.arguments["k_cache"], self.arguments["v_cache"]
        self.require(k.shape == v.shape, ("k_cache", "v_cache"))
        self.require(k.shape[2] % 16 == 0 and 16 <= k.shape[2] <= 256, "page_size")

    def check_pages(self):
        if not self.sound("block_table", "cu_seqlens_q", "seq_len_kv", "k_cache"):
            return
        table, lengths = self.arguments["block_table"], self.arguments["seq_len_kv"]
        pages, _, page_size, _ = self.arguments["k_cache"].shape
        batch = self.arguments["cu_seqlens_q"].size - 1
        names = ("block_table", "seq_len_kv", "cu_seqlens_q")  # one of them has another batch
        fits = self.require(table.shape[0] == batch, names)
        fits &= self.require(lengths.shape == (batch,), names)
        if not fits or page_size == 0:
            return
        for row, length in zip(table.tolist(), lengths.tolist(), strict=True):
            if not self.require(0 <= length <= len(row) * page_size, "seq_len_kv"):
                continue
            if length > MAX_LENGTH:
                self.unsure = True
            used = row[: math.ceil(length / page_size)]
            self.require(all(0 <= page < pages for page in used), "block_table")

    def check_numbers(self):
        for name in {"scale", "eps"} & self.arguments.keys():
            number = self.arguments[name]
            if number is None and name == "scale":
                continue
            real = isinstance(number, int | float | np.integer | np.floating)
            if not self.require(real and not isinstance(number, bool), name, TypeError):
                continue
            finite = abs(number) <= float(np.finfo(np.float32).max)  # False for NaN
            self.require(finite and (name == "scale" or number >= 0), name)
        for name in {"causal", "return_lse"} & self.arguments.keys():
            self.require(isinstance(self.arguments[name], bool | np.bool_), name, TypeError)
        if self.arguments.get("window") is not None:
            window = self.integer("window", ValueError)
            if window is not None:
                self.require(1 <= window <= MAX_INT32, "window")

    def integer(self, name, *errors):
        """Return an integer argument, or None where it is wrong."""
        value = self.arguments[name]
        if isinstance(value, np.ndarray) and value.shape == ():
            self.unsure = True  # numpy lets some arrays stand for the number in them
        if isinstance(value, bool | np.bool_):
            self.wrong(name, TypeError, *errors)
            return None
        try:
            return op.index(value)
        except TypeError:
            self.wrong(name, TypeError)
            return None

    def flash_attention(self):
        self.check_cache()
        self.check_pages()
        if self.sound("q"):
            self.check_offsets("cu_seqlens_q", self.arguments["q"].shape[0])
        if self.sound("q", "k_cache"):
            q, k = self.arguments["q"], self.arguments["k_cache"]
            self.check_heads(q.shape[1], k.shape[1], q.shape[2], attention=True)
            self.require(q.shape[2] == k.shape[3], ("k_cache", "head_dim", "q"))
        if self.sound("seq_len_kv"):
            self.check_prefix(self.arguments["seq_len_kv"])

    def flash_attention_varlen(self):
        for tokens, name in (("q", "cu_seqlens_q"), ("k", "cu_seqlens_kv")):
            if self.sound(tokens):
                self.check_offsets(name, self.arguments[tokens].shape[0])
        if self.sound("q", "k"):
            q, k = self.arguments["q"], self.arguments["k"]
            self.check_heads(q.shape[1], k.shape[1], q.shape[2], attention=True)
            self.require(q.shape[2] == k.shape[2], ("k", "q", "head_dim"))
        if self.sound("k", "v"):
            self.require(self.arguments["k"].shape == self.arguments["v"].shape, ("k", "v"))
        if self.sound("cu_seqlens_q", "cu_seqlens_kv"):
            starts = self.arguments["cu_seqlens_kv"]
            same = self.arguments["cu_seqlens_q"].shape == starts.shape
            self.require(same, ("cu_seqlens_q", "cu_seqlens_kv"))
            self.check_prefix(np.diff(starts.astype(np.int64)))

    def flash_attention_grad(self):
        self.flash_attention_varlen()
        for name in ("do", "o"):
            if self.sound("q", name):
                same = self.arguments["q"].shape == self.arguments[name].shape
                self.require(same, ("q", name))
        if self.sound("q", "lse"):
            same = self.arguments["lse"].shape == self.arguments["q"].shape[:2]
            self.require(same, ("lse", "q"))

    def rope_append(self):
        integers = ("num_heads", "num_kv_heads", "rotary_dim")
        heads, kv_heads, rotary = (self.integer(name) for name in integers)
        for name, value in zip(integers, (heads, kv_heads, rotary), strict=True):
            self.require(value is None or abs(value) <= MAX_INT32, name)
        self.check_cache()
        self.check_pages()
        if self.sound("qkv"):
            self.check_offsets("cu_seqlens_q", self.arguments["qkv"].shape[0])
        if heads is not None and kv_heads is not None and self.sound("k_cache"):
            _, groups, _, head_dim = self.arguments["k_cache"].shape
            self.require(kv_heads == groups, ("k_cache", "num_kv_heads"))
            self.check_heads(heads, kv_heads, head_dim, attention=False)
            width = (heads + 2 * kv_heads) * head_dim
            if self.sound("qkv"):
                same = self.arguments["qkv"].shape[1] == width
                self.require(same, ("qkv", "num_heads", "num_kv_heads"))
            if rotary is not None:
                self.require(rotary % 8 == 0 and 0 <= rotary <= head_dim, "rotary_dim")
        self.check_tables(rotary)
        self.check_written_memory()
        self.check_written_pages()

    def check_tables(self, rotary):
        if self.sound("cos", "sin"):
            cos, sin = self.arguments["cos"], self.arguments["sin"]
            self.require(cos.shape == sin.shape, ("cos", "sin"))
        for name in ("cos", "sin"):
            if rotary is not None and self.sound(name):
                self.require(self.arguments[name].shape[1] == rotary // 2, (name, "rotary_dim"))

    def check_written_memory(self):
        for name in IN_PLACE:
            cache = self.arguments[name]
            if not isinstance(cache, np.ndarray):
                continue
            self.require(cache.flags.writeable, name)
            for other, array in self.arguments.items():
                if (
                    other != name
                    and isinstance(array, np.ndarray)
                    and np.shares_memory(cache, array)
                ):
                    self.wrong((name, other))

    def check_written_pages(self):
        names = ("block_table", "cu_seqlens_q", "seq_len_kv", "k_cache", "cos")
        if self.broken or not self.sound(*names):
            return  # what follows looks pages up
        table, offsets, lengths, k, cos = (self.arguments[name] for name in names)
        places, written = [], set()
        for row, length, tokens in zip(table, lengths, np.diff(offsets), strict=True):
            self.require(tokens <= length, "seq_len_kv")
            if tokens and self.arguments["rotary_dim"]:
                self.require(length <= cos.shape[0], "seq_len_kv")
            used = row[: math.ceil(length / k.shape[2])].tolist()
            places += used
            if 0 < tokens <= length:
                written.update(used[(length - tokens) // k.shape[2] :])
        self.require(all(places.count(page) == 1 for page in written), "block_table")

    def rms_norm(self):
        if self.sound("x"):
            x = self.arguments["x"]
            self.require(1 <= x.shape[1] <= 11264, "x")
            if self.sound("weight"):
                self.require(self.arguments["weight"].shape == x.shape[1:], ("weight", "x"))
            if self.sound("residual"):
                self.require(self.arguments["residual"].shape == x.shape, ("residual", "x"))

    def swiglu(self):
        if self.sound("x"):
            self.require(self.arguments["x"].shape[1] % 2 == 0, "x")


def violations(operator, arguments):
    """Return the rules that a call breaks, and whether the documents leave it open."""
    rules = Rules(operator, arguments)
    rules.check_arrays()
    rules.check_dtypes()
    rules.check_numbers()
    getattr(rules, operator)()
    return rules.broken, rules.unsure
