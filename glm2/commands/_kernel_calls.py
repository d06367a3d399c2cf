"""Operands of each operator for ``glm2 report kernel``: shapes of the options, ones everywhere."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

_PAGE_SIZE = 128
_Call = tuple[tuple[Any, ...], dict[str, Any]]


def _ones(shape: tuple[int, ...], args: argparse.Namespace) -> Any:
    return np.ones(shape, args.dtype)


def _offsets(batch: int, length: int) -> Any:
    return np.arange(batch + 1, dtype=np.int32) * np.int32(length)


def _paged(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Return a cache, its block table and lengths."""
    pages = -(-args.seq_len_kv // _PAGE_SIZE)
    table = np.arange(args.batch * pages, dtype=np.int32).reshape(args.batch, pages)
    shape = (args.batch * pages, args.kv_heads, _PAGE_SIZE, args.head_dim)
    return _ones(shape, args), table, np.full(args.batch, args.seq_len_kv, np.int32)


def _flash_attention(args: argparse.Namespace) -> _Call:
    cache, table, lengths = _paged(args)
    q = _ones((args.batch * args.seq_len_q, args.heads, args.head_dim), args)
    return (q, cache, cache.copy(), table, _offsets(args.batch, args.seq_len_q), lengths), {}


def _rope_append(args: argparse.Namespace) -> _Call:
    cache, table, lengths = _paged(args)
    width = (args.heads + 2 * args.kv_heads) * args.head_dim
    qkv = _ones((args.batch * args.seq_len_q, width), args)
    rotary = args.head_dim // 16 * 8
    angles = np.ones((args.seq_len_kv, rotary // 2), np.float32)
    operands = (
        qkv, angles, angles.copy(), cache, cache.copy(), table,
        _offsets(args.batch, args.seq_len_q), lengths,
    )  # fmt: skip
    heads = {"num_heads": args.heads, "num_kv_heads": args.kv_heads, "rotary_dim": rotary}
    return operands, heads


def _flash_attention_grad(args: argparse.Namespace) -> _Call:
    q = _ones((args.batch * args.seq_len_q, args.heads, args.head_dim), args)
    k = _ones((args.batch * args.seq_len_kv, args.kv_heads, args.head_dim), args)
    lse = np.zeros(q.shape[:2], np.float32)
    offsets = _offsets(args.batch, args.seq_len_q), _offsets(args.batch, args.seq_len_kv)
    return (q.copy(), q, k, k.copy(), q.copy(), lse, *offsets), {}


def _rms_norm(args: argparse.Namespace) -> _Call:
    x = _ones((args.batch * args.seq_len_q, args.hidden_size), args)
    return (x, x[0].copy()), {"eps": 1e-5}


def _swiglu(args: argparse.Namespace) -> _Call:
    return (_ones((args.batch * args.seq_len_q, 2 * args.ffn_hidden_size), args),), {}


CALLS: dict[str, Callable[[argparse.Namespace], _Call]] = {
    "flash_attention": _flash_attention,
    "flash_attention_grad": _flash_attention_grad,
    "rms_norm": _rms_norm,
    "rope_append": _rope_append,
    "swiglu": _swiglu,
}
