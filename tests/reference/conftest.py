"""Attention as a loop over rows, heads and keys, in Python floats: what the reference must match."""

import math

import numpy as np
import pytest


def _loop_attention(q, k, v, *, scale, causal=True, prefix_len=0, window=None):
    """Attend one sequence: q (len_q, N, D), k and v (len_kv, G, D) -> o (len_q, N, D), lse."""
    len_q, num_heads, head_dim = q.shape
    len_kv, num_kv_heads, _ = k.shape
    o = np.zeros(q.shape)
    lse = np.full((len_q, num_heads), -np.inf)
    for i in range(len_q):
        p = len_kv - len_q + i
        for n in range(num_heads):
            g = n * num_kv_heads // num_heads
            scores = {}
            for j in range(len_kv):
                past = j <= p or not causal
                near = window is None or p - window < j < p + window
                if (past and near) or j < prefix_len:
                    dot = sum(float(q[i, n, d]) * float(k[j, g, d]) for d in range(head_dim))
                    scores[j] = scale * dot
            if not scores:
                continue
            top = max(scores.values())
            weights = {j: math.exp(score - top) for j, score in scores.items()}
            total = sum(weights.values())
            lse[i, n] = top + math.log(total)
            for d in range(head_dim):
                o[i, n, d] = sum(w * float(v[j, g, d]) for j, w in weights.items()) / total
    return o, lse


@pytest.fixture(scope="session")
def loop_attention():
    return _loop_attention
