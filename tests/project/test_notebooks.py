"""The notebooks are true: run afresh, each prints what is stored in it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))
NEEDED = ("nbclient", "nbformat", "ipykernel")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
MOST_BYTES = 400_000
HOME = re.compile(r"/(?:home|root|Users)/|[A-Z]:\\\\Users")

# In a process of its own: the Jupyter packages may warn, and here a warning is an error.
RUN = """
import sys

import nbclient
import nbformat

notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=".")
nbformat.write(notebook, sys.argv[2])
"""


def read_cells(path, kind="code"):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == kind]


def printed(cell):
    """Return what a cell shows as text: its streams joined, and the text form of its results."""
    streams = {}
    results = []
    for output in cell["outputs"]:
        if output["output_type"] == "stream":
            streams[output["name"]] = streams.get(output["name"], "") + "".join(output["text"])
        else:
            results.append("".join(output.get("data", {}).get("text/plain", "")))
    return streams, results


def has_operators():
    try:
        import glm2_ops  # noqa: F401
    except ImportError:
        return False
    return True


def run_notebook(path, folder):
    """Run a notebook in a fresh kernel of this Python; return its code cells."""
    kernel = folder / "kernels" / "python3"
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    environment = {
        **os.environ,
        "JUPYTER_PATH": str(folder),  # looked at before the kernels of the user and the system
        "JUPYTER_PLATFORM_DIRS": "1",
        **{f"JUPYTER_{name}_DIR": str(folder / name) for name in ("CONFIG", "DATA", "RUNTIME")},
        "IPYTHONDIR": str(folder / "ipython"),
    }
    result = folder / "run.ipynb"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(result)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return read_cells(result)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_prints_what_it_shows(path, tmp_path):
    stored, fresh = read_cells(path), run_notebook(path, tmp_path)
    assert [cell["id"] for cell in fresh] == [cell["id"] for cell in stored]
    for old, new in zip(stored, fresh, strict=True):
        where = f"{path.name}, cell {old['id']}"
        if "glm2_ops" in old["metadata"].get("tags", ()) and not has_operators():
            assert "glm2_ops is not installed" in printed(new)[0]["stdout"], where
        else:
            assert printed(new) == printed(old), where


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_was_run_in_order_and_asserts(path):
    cells = read_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] != "error" for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
    assert any(re.search(r"^\s*assert ", "".join(cell["source"]), re.MULTILINE) for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_names_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert not HOME.search(text)
    notebook = json.loads(text)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    names = [f"c{number:02d}" for number in range(1, len(notebook["cells"]) + 1)]
    assert [cell["id"] for cell in notebook["cells"]] == names
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_links_to_what_exists(path):
    for cell in read_cells(path, "markdown"):
        for target in re.findall(r"\]\(([^)#\s]+)", "".join(cell["source"])):
            assert "://" in target or (path.parent / target).exists(), target
