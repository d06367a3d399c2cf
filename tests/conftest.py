"""Fixtures for every test; nothing here imports MindSpore or a compiled module."""

import numpy as np
import pytest

from glm2_reference.config import GLM2Config


@pytest.fixture
def rng():
    return np.random.default_rng(20240607)


@pytest.fixture
def tiny_config():
    """A model of ChatGLM2's shape, small enough to check with Python loops."""
    return GLM2Config(
        num_layers=2,
        hidden_size=24,
        ffn_hidden_size=20,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        vocab_size=50,
        seq_length=64,
        norm_eps=1e-5,
        add_qkv_bias=True,
    )
