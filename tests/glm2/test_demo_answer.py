"""The main job, as a user runs it: `glm2 chat` fetches the demo weights and answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mindspore", reason="needs MindSpore")
pytest.importorskip("glm2_ops", reason="needs the compiled operators")

from glm2.config import read_checkpoint_config
from glm2.prompt import Message, build_prompt
from glm2.tokenizer import load_tokenizer
from glm2.weights import load_weights
from glm2_reference import GLM2Model, generate

pytestmark = [pytest.mark.slow, pytest.mark.mindspore]

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
CHAT = [sys.executable, "-m", "glm2", "chat", "--temperature", "0"]


@pytest.fixture(scope="module")
def demo(first_answer):
    """Environment of a user whose cache holds the demo weights, fetched by the command itself."""
    env, done = first_answer
    assert done.stdout == ANSWER + "\n"
    assert "small English model" in done.stderr
    return env


def test_answer_is_the_same_every_time(demo):
    for _ in range(2):
        done = subprocess.run(
            [*CHAT, "-p", QUESTION], env=demo, capture_output=True, text=True, check=True
        )
        assert done.stdout == ANSWER + "\n"


def test_seeded_sampling_repeats(demo):
    command = [*CHAT[:-1], "0.8", "--seed", "7", "--max-new-tokens", "12", "-p", "Tell me a story."]
    answers = {
        subprocess.run(command, env=demo, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(answers) == 1
    assert answers.pop().strip()


def test_reference_gives_the_same_tokens(demo):
    (folder,) = (path.parent for path in Path(demo["GLM2_CACHE"]).rglob("config.json"))
    checkpoint = read_checkpoint_config(folder)
    tokenizer = load_tokenizer(folder)
    model = GLM2Model(checkpoint.config, load_weights(folder, checkpoint.config))
    messages = [Message("system", checkpoint.default_system), Message("user", QUESTION)]
    ids = np.array(build_prompt(tokenizer, messages, checkpoint.chat_format), np.int32)
    tokens = generate(model, ids, max_new_tokens=12, stop_ids=checkpoint.eos_token_ids)
    assert tokenizer.decode(tokens[:-1]) == ANSWER


def test_conversation_remembers(demo):
    turns = f"{QUESTION}\nAnd of Italy?\n"
    done = subprocess.run(CHAT, env=demo, input=turns, capture_output=True, text=True, check=True)
    assert ANSWER in done.stdout
    assert "Rome" in done.stdout


def test_interrupt_ends_the_answer_not_the_program(demo):
    with subprocess.Popen(
        [*CHAT, "--max-new-tokens", "2000"],
        env={**demo, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as chat:
        chat.stdin.write("Count from 1 to 500 in words, one a line.\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)  # the answer has begun
        time.sleep(0.5)
        chat.send_signal(signal.SIGINT)
        chat.stdin.write(f"clear\n{QUESTION}\n")
        chat.stdin.flush()
        chat.stdin.close()
        rest = chat.stdout.read()
        assert "[stopped]" in chat.stderr.read()
        assert chat.wait(timeout=60) == 0
    assert rest.endswith(ANSWER + "\n")


def test_doctor_is_content(demo):
    done = subprocess.run(
        [sys.executable, "-m", "glm2", "doctor", "--json"],
        env=demo,
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["ok"], report
    assert done.returncode == 0


def test_damaged_demo_weights_say_what_to_delete(demo, tmp_path):
    (folder,) = (path.parent for path in Path(demo["GLM2_CACHE"]).rglob("config.json"))
    copy = tmp_path / folder.name
    copy.mkdir()
    for path in folder.iterdir():
        data = path.read_bytes() if path.suffix == ".json" else b"damaged"
        (copy / path.name).write_bytes(data)
    done = subprocess.run(
        [*CHAT, "-p", QUESTION],
        env={**demo, "GLM2_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"The demo weights are built anew if you delete {copy}" in done.stderr
