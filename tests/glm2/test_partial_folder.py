import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from glm2.partial_folder import MANIFEST, partial_folder
from glm2.synthetic_checkpoint import LIKE, make_checkpoint

JOB = {"make": "test", "seed": 1}


def write(content):
    def write_to(path):
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    return write_to


def test_folder_appears_when_it_is_whole(tmp_path):
    target = tmp_path / "made"
    with partial_folder(target, JOB) as folder:
        folder.add("a", write(b"1"))
        assert not target.exists()
    assert {path.name for path in target.iterdir()} == {"a", MANIFEST}
    assert not (tmp_path / "made.partial").exists()
    manifest = json.loads((target / MANIFEST).read_text())
    assert manifest == {"job": JOB, "sha256": {"a": hashlib.sha256(b"1").hexdigest()}}


def interrupted(target, job=JOB):
    def stop(path):
        path.with_name(".c.tmp").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), partial_folder(target, job) as folder:  # noqa: PT012
        folder.add("a", write(b"1"))
        folder.add("b", write(b"2"))
        folder.add("c", stop)
    return target.with_name(f"{target.name}.partial")


def test_interrupted_folder_is_gone_on_with(tmp_path):
    target = tmp_path / "made"
    partial = interrupted(target)
    (partial / "b").write_bytes(b"3")  # changed since: made again
    with partial_folder(target, JOB) as folder:
        assert (folder.has("a"), folder.has("b"), folder.has("c")) == (True, False, False)
        folder.add("b", write(b"2"))
    assert {path.name for path in target.iterdir()} == {"a", "b", MANIFEST}
    assert (target / "b").read_bytes() == b"2"


def test_folder_of_another_job_is_not_gone_on_with(tmp_path):
    partial = interrupted(tmp_path / "made")
    with (
        pytest.raises(FileExistsError, match=r"begun with other settings \(seed\); delete it"),
        partial_folder(tmp_path / "made", JOB | {"seed": 2}),
    ):
        pytest.fail("it must not begin")
    assert (partial / "a").read_bytes() == b"1"


def test_files_of_others_are_not_touched(tmp_path):
    target = tmp_path / "made"
    partial = tmp_path / "made.partial"
    partial.mkdir()
    (partial / "mine").touch()
    with (
        pytest.raises(FileExistsError, match="holds files that no interrupted run left"),
        partial_folder(target, JOB),
    ):
        pytest.fail("it must not begin")
    (partial / "mine").unlink()
    target.mkdir()
    (target / "mine").touch()
    with (
        pytest.raises(FileExistsError, match="already exists and is not an empty folder"),
        partial_folder(target, JOB),
    ):
        pytest.fail("it must not begin")
    (target / "mine").unlink()
    with partial_folder(target, JOB) as folder:  # an empty one is as good as none
        folder.add("a", write(b"1"))
    assert (target / "a").is_file()


@pytest.mark.parametrize("manifest", ["[", "{}", '{"job": 1, "sha256": [1]}'])
def test_damaged_manifest_is_an_error(tmp_path, manifest):
    partial = interrupted(tmp_path / "made")
    (partial / MANIFEST).write_text(manifest)
    with (
        pytest.raises(ValueError, match=r"is damaged .* delete .* and start again"),
        partial_folder(tmp_path / "made", JOB),
    ):
        pytest.fail("it must not begin")


def test_disk_that_gives_back_other_bytes_is_an_error(tmp_path):
    def lie(path):
        path.write_bytes(b"other")
        return hashlib.sha256(b"wanted").hexdigest()

    with (
        pytest.raises(OSError, match="reads back other bytes"),
        partial_folder(tmp_path / "made", JOB) as folder,
    ):
        folder.add("a", lie)
    assert not (tmp_path / "made").exists()


def test_two_processes_do_not_build_one_folder(tmp_path):
    script = (
        "import sys, pathlib\nfrom glm2.partial_folder import partial_folder\n"
        f"with partial_folder(pathlib.Path(sys.argv[1]), {JOB!r}):\n"
        "    print('begun', flush=True)\n    sys.stdin.read()\n"
    )
    target = tmp_path / "made"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"begun\n"
        with pytest.raises(BlockingIOError, match="another process"), partial_folder(target, JOB):
            pytest.fail("it must not begin")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with partial_folder(target, JOB) as folder:  # the lock went with the process
        folder.add("a", write(b"1"))
    assert (target / "a").is_file()


def test_disk_without_room_is_an_error_before_the_work(tmp_path, monkeypatch):
    """What an interrupted run has made already counts."""
    interrupted(tmp_path / "made")
    usage = shutil.disk_usage(tmp_path)._replace(free=100_000_010)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with partial_folder(tmp_path / "made", JOB) as folder:
        folder.check_room(12)  # of which a and b, a byte each, are there
        with pytest.raises(
            OSError, match=r"needs 0\.1 GB more and its disk has 0\.1 GB free; make"
        ):
            folder.check_room(13)


def test_make_checkpoint_looks_at_the_disk_first(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OSError, match="choose a folder on another disk"):
        make_checkpoint(tmp_path / "made", LIKE["tiny"], seed=0, report=lambda *_: None)
    assert not (tmp_path / "made").exists()
