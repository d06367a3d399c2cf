"""``glm2 generate``: JSON lines in and out."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest

import glm2.cli
from glm2.chat_tokenizer import ChatTokenizer
from glm2.commands import generate as command
from glm2.commands._options import Opened
from glm2.commands._output import claimed_output
from glm2.json_lines import Request, parse_request

ANSWERS = {"hi": "你好 there", "colour": "red green blue", "nan": ""}


class EchoModel:
    """Answers each question of `ANSWERS` byte by byte; others with their own text."""

    def __init__(self, config, tokenizer):
        self.config, self.tokenizer = config, tokenizer
        self.batches = []

    def new_cache(self, max_tokens, *, num_seqs):
        assert max_tokens <= self.config.seq_length
        return types.SimpleNamespace(
            lengths=np.zeros(num_seqs, np.int32), ids=[[] for _ in range(num_seqs)]
        )

    def forward_ragged(self, ids, cu_seqlens, cache, *, prefix_len=None):
        del prefix_len
        rows = []
        for seq in range(len(cache.ids)):
            new = ids[cu_seqlens[seq] : cu_seqlens[seq + 1]].tolist()
            cache.ids[seq] += new
            if new:
                rows.append(self.logits(cache.ids[seq]))
        self.batches.append(len(rows))
        return np.stack(rows)

    def logits(self, ids):
        opening = self.tokenizer.special_id("<|assistant|>")
        logits = np.zeros(self.config.vocab_size, np.float32)
        if opening not in ids:
            logits[ids[-1]] = 9
            return logits
        start = len(ids) - ids[::-1].index(opening)
        question = self.tokenizer.decode(ids[: start - 1]).split("\n")[-1]
        if question == "nan":
            logits[:] = np.nan
            return logits
        answer = [
            *("\n" + ANSWERS.get(question, question)).encode(),
            self.tokenizer.special_id("<|user|>"),
        ]
        logits[answer[len(ids) - start]] = 9
        return logits


@pytest.fixture
def model(byte_config, byte_tokenizer):
    return EchoModel(byte_config, byte_tokenizer)


@pytest.fixture
def run(monkeypatch, capfd, model, byte_tokenizer, checkpoint):
    """``run(*arguments, stdin="")``: exit code, answers, stderr."""

    def open_fake(*_):
        return Opened(
            types.SimpleNamespace(model=model, config=model.config, checkpoint=checkpoint()),
            ChatTokenizer(byte_tokenizer, "chatglm3"),
        )

    monkeypatch.setattr("glm2.commands._options._open", open_fake)
    monkeypatch.setattr("glm2.commands._options._named", Path)

    def invoke(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["glm2", "generate", *arguments, "--model", "m"])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as left:
            glm2.cli.main()
        captured = capfd.readouterr()
        answers = [json.loads(line) for line in captured.out.splitlines()]
        return left.value.code or 0, answers, captured.err

    return invoke


def lines(*objects):
    return "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects)


def test_every_form_is_answered_in_order(run):
    code, answers, _ = run(
        "--max-new-tokens",
        "40",
        stdin=lines(
            {"prompt": "hi", "id": "first"},
            {
                "messages": [
                    {"role": "system", "content": "x"},
                    {"role": "user", "content": "colour"},
                ]
            },
            {"text": "ab", "id": 7},
            {"ids": [97]},
        ),
    )
    assert code == 0
    assert [a["index"] for a in answers] == [0, 1, 2, 3]
    assert [a.get("id") for a in answers] == ["first", None, 7, None]
    assert [a["response"] for a in answers] == [
        "你好 there",
        "red green blue",
        "b" * 40,
        "a" * 40,
    ]
    assert [a["finish_reason"] for a in answers] == ["stop", "stop"] + ["max_new_tokens"] * 2
    assert answers[3]["prompt_tokens"] == 1
    assert answers[3]["new_tokens"] == 40


@pytest.mark.parametrize("batch_size", ["1", "2", "9"])
def test_batches_change_nothing(run, model, batch_size):
    asked = lines(*({"prompt": text} for text in ("hi", "colour", "abc", "hi", "x")))
    code, answers, _ = run("--batch-size", batch_size, stdin=asked)
    assert code == 0
    assert [a["response"] for a in answers] == [
        "你好 there",
        "red green blue",
        "abc",
        "你好 there",
        "x",
    ]
    assert max(model.batches) == min(int(batch_size), 5)


def test_a_bad_line_is_an_error_of_its_own(run):
    bad = [
        ("nonsense", "the line is not valid JSON"),
        ("[1]", "the line holds a JSON list; expected an object"),
        ("{}", "the object has none of prompt, messages, text, ids"),
        (json.dumps({"prompt": "a", "text": "b"}), "the object has prompt, text of"),
        (json.dumps({"prompt": "a", "tempreture": 1}), "unknown: tempreture"),
        (json.dumps({"prompt": " "}), "prompt is ' '; expected a text that is not empty"),
        (json.dumps({"prompt": 3}), "prompt is 3; expected a text"),
        (json.dumps({"ids": [1, "x"]}), "ids is [1, 'x']; expected a list of integers"),
        (json.dumps({"ids": []}), "the prompt is empty"),
        (
            json.dumps({"ids": [10**6]}),
            "the prompt holds token id 1000000; the vocabulary has ids 0 to",
        ),
        (json.dumps({"messages": "x"}), "messages is a str; expected a list"),
        (json.dumps({"messages": []}), "there are no messages"),
        (json.dumps({"messages": [{"role": "king", "content": "x"}]}), "role is 'king'; expected"),
        (json.dumps({"prompt": "x" * 500}), "tokens and the context holds 400"),
        (json.dumps({"prompt": "nan"}), "logits are NaN or inf"),
        ("[" * 100000, "the line is not valid JSON"),
        ('{"prompt": "hi", "id": NaN}', "the line is not valid JSON in UTF-8 (it holds NaN)"),
        ('{"\\ud800": 1}', "unknown: \ud800"),
    ]
    asked = "".join(f"{line}\n" for line, _ in bad) + lines({"prompt": "hi"})
    code, answers, err = run(stdin=asked)
    assert code == 1
    for answer, (_, message) in zip(answers, bad, strict=False):
        assert message in answer["error"]
    assert answers[-1]["response"] == "你好 there"
    assert f"glm2: {len(bad)} lines could not be answered" in err


def test_labels_that_utf8_cannot_hold_come_back(run):
    code, answers, _ = run(stdin='{"prompt": "hi", "id": "\\ud800"}\n{"prompt": "colour"}\n')
    assert code == 0
    assert answers[0]["id"] == "\ud800"
    assert answers[1]["response"] == "red green blue"


def test_a_row_that_fails_leaves_the_others_their_answers(run):
    asked = lines({"prompt": "hi"}, {"prompt": "nan"}, {"prompt": "colour"})
    code, answers, _ = run("--batch-size", "3", stdin=asked)
    assert code == 1
    assert "NaN or inf" in answers[1]["error"]
    assert [answers[i]["response"] for i in (0, 2)] == ["你好 there", "red green blue"]


def test_bytes_that_are_not_utf8_are_an_error_of_their_line(run, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_bytes(
        b'\xef\xbb\xbf{"prompt": "hi"}\r\n{"prompt": "h\xff\xfei"}\n{"prompt": "colour"}'
    )
    code, answers, _ = run(str(source))
    assert code == 1
    assert answers[0]["response"] == "你好 there"  # a byte order mark is no part of the line
    assert "not valid JSON in UTF-8" in answers[1]["error"]
    assert answers[2]["response"] == "red green blue"


@pytest.mark.parametrize(
    ("left", "message"),
    [
        ("x\ny\n", "is not what an interrupted run leaves (line 1); delete it"),
        ('{"index": 1}\n', "is not what an interrupted run leaves (line 1)"),
        ('{"index": 0}\n{"index": 1}\n', "has 2 answers and"),
    ],
)
def test_resume_of_something_else_is_refused(run, tmp_path, left, message):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(lines({"prompt": "hi"}))
    partial = tmp_path / "out.jsonl.partial"
    partial.write_text(left)
    code, _, err = run(str(source), "-o", str(target), "--resume")
    assert code == 1
    assert message in err
    assert partial.read_text() == left
    assert not target.exists()


def test_resume_remembers_the_errors_of_the_first_part(run, tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("nonsense\n" + lines({"prompt": "hi"}))
    (tmp_path / "out.jsonl.partial").write_text('{"index": 0, "error": "x"}\n')
    code, _, err = run(str(source), "-o", str(target), "--resume")
    assert code == 1
    assert "1 lines could not be answered" in err
    assert len(target.read_text(encoding="utf-8").splitlines()) == 2


def test_stop_text_ends_an_answer(run):
    _, answers, _ = run("--stop", " green", "--stop", "zzz", stdin=lines({"prompt": "colour"}))
    assert answers[0]["response"] == "red"
    assert answers[0]["finish_reason"] == "stop"


def test_file_in_and_file_out(run, tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(
        lines({"prompt": "hi"}) + "\n\n" + lines({"prompt": "colour"}), encoding="utf-8"
    )
    code, answers, _ = run(str(source), "-o", str(target))
    assert (code, answers) == (0, [])
    written = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [answer["index"] for answer in written] == [0, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_an_interrupted_run_goes_on(run, tmp_path, monkeypatch):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(lines(*({"prompt": text} for text in ("a", "b", "c"))), encoding="utf-8")
    answer = command._answer

    def interrupted(job, batch):
        if batch[0][0] == 1:
            raise KeyboardInterrupt
        return answer(job, batch)

    monkeypatch.setattr(command, "_answer", interrupted)
    code, _, err = run(str(source), "-o", str(target))
    partial = tmp_path / "out.jsonl.partial"
    assert code == 130
    assert f"stopped; --resume goes on from {partial}" in err
    assert not target.exists()
    with partial.open("a", encoding="utf-8") as file:
        file.write('{"index": 1, "resp')  # killed in the middle of a line
    monkeypatch.setattr(command, "_answer", answer)
    code, _, err = run(str(source), "-o", str(target))
    assert code == 1
    assert "is left from an interrupted run; pass --resume to go on, or delete it" in err
    code, _, _ = run(str(source), "-o", str(target), "--resume")
    written = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert code == 0
    assert [(a["index"], a["response"]) for a in written] == [(0, "a"), (1, "b"), (2, "c")]
    assert not partial.exists()


def test_outputs_that_cannot_be_written_are_refused_first(run, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text(lines({"prompt": "hi"}))
    assert "make the folder" in run(str(source), "-o", str(tmp_path / "none" / "out"))[2]
    assert "or name a file" in run(str(source), "-o", str(tmp_path))[2]
    assert "is both the input and --output" in run(str(source), "-o", str(source))[2]
    assert source.read_text() == lines({"prompt": "hi"})
    os.mkfifo(tmp_path / "pipe")
    assert (
        "is no regular file; leave --output out"
        in run(str(source), "-o", str(tmp_path / "pipe"))[2]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "pipe"]


def test_an_output_that_is_a_link_is_written_through(run, tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "real.jsonl"
    source.write_text(lines({"prompt": "hi"}))
    target.write_text("old")
    (tmp_path / "link.jsonl").symlink_to(target)
    assert run(str(source), "-o", str(tmp_path / "link.jsonl"))[0] == 0
    assert (tmp_path / "link.jsonl").is_symlink()
    assert "你好" in target.read_text(encoding="utf-8")


def test_two_runs_do_not_write_one_output(run, tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(lines({"prompt": "hi"}))
    with claimed_output(target, str(source), resume=False) as first:
        for options in ((), ("--resume",)):
            code, _, err = run(str(source), "-o", str(target), *options)
            assert code == 1
            assert "another run is writing" in err or "is left from an interrupted run" in err
        first.file.write('{"index": 0}\n')
    assert target.read_text() == '{"index": 0}\n'
    with pytest.raises(ValueError, match="boom"), claimed_output(target, str(source), resume=False):
        raise ValueError("boom")  # noqa: EM101
    assert target.read_text() == '{"index": 0}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_wrong_options_are_refused(run, tmp_path):
    assert run(str(tmp_path / "none.jsonl"))[2].endswith(
        "pass JSON lines, or - for standard input\n"
    )
    code, _, err = run("--temperature", "-1", stdin="")
    assert code == 2
    assert "temperature is -1.0" in err
    code, _, err = run("--cache-dtype", "int8", stdin="")
    assert code == 2
    assert "--cache-dtype is 'int8'; expected float16 or float32" in err
    assert "--stop is empty" in run("--stop", "", stdin="")[2]
    assert "--resume goes on with a file; name it with --output" in run("--resume", stdin="")[2]
    assert run(stdin="") == (0, [], "")


PIPE = """
import sys, types
import numpy as np
sys.path.insert(0, {tests!r})
import conftest
import glm2.commands._options as options
from glm2.chat_tokenizer import ChatTokenizer
import test_generate_command as here
from glm2.config import CheckpointConfig
from glm2.sampling import SamplingParams
from glm2_reference.config import GLM2Config
from pathlib import Path
config = GLM2Config(num_layers=1, hidden_size=8, ffn_hidden_size=8, num_heads=2, num_kv_heads=1,
    head_dim=4, vocab_size=265, seq_length=400, norm_eps=1e-5, add_qkv_bias=True)
tokenizer = conftest.ByteTokenizer()
checkpoint = CheckpointConfig(folder=Path("m"), config=config, chat_format="chatglm3", name="m",
    torch_dtype="float32", eos_token_ids=(), default_system=None, max_length=400,
    sampling=SamplingParams(temperature=0.0))
options._named = Path
options._open = lambda *_: options.Opened(
    types.SimpleNamespace(model=here.EchoModel(config, tokenizer), config=config, checkpoint=checkpoint),
    ChatTokenizer(tokenizer, "chatglm3"))
sys.argv = ["glm2", "generate", "--model", "m"]
import glm2.cli
glm2.cli.main()
"""


def test_a_pipe_is_answered_line_by_line():
    script = PIPE.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        for text in ("hi", "abc"):
            process.stdin.write(lines({"prompt": text}).encode())
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())  # before the input ends
            assert answer["response"] == ANSWERS.get(text, text)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.stdin.close()
        assert process.wait(timeout=20) == 130
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_prompt_has_the_default_system_message(byte_tokenizer):
    tokenizer = ChatTokenizer(byte_tokenizer, "chatglm3")
    asked = parse_request('{"prompt": "hi", "id": 1}', tokenizer, "be kind")
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    assert asked == Request(tokenizer.apply_chat_template(turns), 1, is_chat=True)
    conversation = parse_request(json.dumps({"messages": turns[1:]}), tokenizer, "be kind")
    assert conversation.ids == tokenizer.apply_chat_template(turns[1:])
    assert not parse_request('{"ids": [5]}', tokenizer).is_chat
