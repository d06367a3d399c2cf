"""Names to folders, with a small hub on this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import subprocess
import sys
import threading

import pytest

from glm2.hub import SHORT_NAMES, find_checkpoint

pytest.importorskip("huggingface_hub")

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FETCH = "import sys; from glm2.hub import find_checkpoint; print(find_checkpoint(sys.argv[1]))"


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves ``repositories``: name -> file -> bytes, as the hub's public interface does."""

    def __init__(self, repositories, log, *args):
        self.repositories, self.log = repositories, log
        super().__init__(*args)

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, *, body):
        self.log.append(self.path)
        path = self.path.partition("?")[0]
        for name, files in self.repositories.items():
            if path.startswith(f"/api/models/{name}"):
                if "/tree/" in path:
                    tree = [
                        {"type": "file", "path": file, "size": len(data), "oid": COMMIT}
                        for file, data in files.items()
                    ]
                    return self.send(json.dumps(tree).encode(), body)
                listed = [{"rfilename": file} for file in files]
                return self.send(
                    json.dumps({"id": name, "sha": COMMIT, "siblings": listed}).encode(), body
                )
            head = f"/{name}/resolve/"
            if path.startswith(head):
                return self.send(files[path.removeprefix(head).partition("/")[2]], body)
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def send(self, data, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tmp_path):
    """``hub(repositories)``: (fetch in a fresh process, paths asked for, stop the server)."""
    servers = []

    def build(repositories):
        log = []
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Hub, repositories, log)
        )
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"

        def fetch(name, script=FETCH):
            return subprocess.run(
                [sys.executable, "-c", script, name],
                env={
                    "PATH": "/usr/bin:/bin",
                    "HOME": str(tmp_path),
                    "HF_HOME": str(tmp_path / "hf"),
                    "HF_ENDPOINT": address,
                    "HF_HUB_DISABLE_XET": "1",
                    "PYTHONPATH": ":".join(filter(None, sys.path)),
                },
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        return fetch, log, lambda: (server.shutdown(), server.server_close())

    yield build
    for server in servers:
        server.shutdown()
        server.server_close()


CHATGLM3 = {
    "config.json": b"{}",
    "tokenizer.model": b"pieces",
    "tokenization_chatglm.py": b"raise SystemExit",
    "model-00001-of-00001.safetensors": b"safe",
    "model.safetensors.index.json": b"{}",
    "pytorch_model-00001-of-00001.bin": b"pickle",
    "README.md": b"text",
}


def test_short_name_fetches_safetensors_and_then_works_offline(hub):
    fetch, log, stop = hub({SHORT_NAMES["glm3_6b"]: CHATGLM3})
    done = fetch("glm3_6b")
    assert done.returncode == 0, done.stderr
    script = (
        "import sys, pathlib; print(sorted(p.name for p in pathlib.Path(sys.argv[1]).iterdir()))"
    )
    names = fetch(done.stdout.strip(), script).stdout
    wanted = sorted(set(CHATGLM3) - {"pytorch_model-00001-of-00001.bin", "README.md"})
    assert names.strip() == str(wanted)
    assert any("/resolve/" in path for path in log)
    stop()
    again = fetch("glm3_6b")
    assert again.stdout == done.stdout, again.stderr


def test_repository_of_bin_files_alone(hub):
    files = {name: data for name, data in CHATGLM3.items() if "safetensors" not in name}
    fetch, _, _ = hub({"someone/glm": files})
    done = fetch(
        "someone/glm",
        FETCH + "\nimport os; print(sorted(os.listdir(find_checkpoint(sys.argv[1]))))",
    )
    assert "pytorch_model-00001-of-00001.bin" in done.stdout, done.stderr


def test_tokenizer_alone_fetches_no_weights(hub):
    fetch, log, _ = hub({"someone/glm": CHATGLM3})
    done = fetch("someone/glm", FETCH.replace("(sys.argv[1])", "(sys.argv[1], with_weights=False)"))
    assert done.returncode == 0, done.stderr
    assert not any("safetensors" in path and "index" not in path for path in log)


def test_unknown_repository_is_an_error(hub):
    fetch, _, _ = hub({})
    done = fetch("someone/else")
    assert (
        "FileNotFoundError: someone/else is not a folder here, and the hub has no someone/else"
        in done.stderr
    )


def test_no_network_is_an_error(hub):
    fetch, _, stop = hub({})
    stop()
    done = fetch("glm2_6b")
    assert "OSError: THUDM/chatglm2-6b could not be fetched (" in done.stderr
    assert "check the network or HF_ENDPOINT (http://127.0.0.1" in done.stderr


def test_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = r'glm3_6b is not a folder here, and fetching THUDM/chatglm3-6b needs huggingface_hub; run pip install "glm2\[hub\]"'
    with pytest.raises(ImportError, match=message):
        find_checkpoint("glm3_6b")


def test_folder_goes_first(tmp_path, monkeypatch):
    (tmp_path / "glm3_6b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint("glm3_6b").is_dir()


@pytest.mark.parametrize("name", ["nowhere", "/no/such/folder", "a/b/c", ""])
def test_what_is_neither_folder_nor_name(name):
    with pytest.raises(FileNotFoundError, match="is not a folder; pass the folder of a ChatGLM2"):
        find_checkpoint(name)
