"""The README is true: its examples print what it shows, and what it names exists."""

import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README, README_ZH = ROOT / "README.md", ROOT / "README_zh.md"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "ascend_ops/**/*.md", "reference/*.md")
    for path in ROOT.glob(pattern)
)
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"^\| `(GLM2_\w+)", re.MULTILINE)


def blocks(path):
    """Return (language, text) of each fenced block, in order."""
    return FENCE.findall(path.read_text(encoding="utf-8"))


def python_examples():
    """Pair each Python block with the text block that follows it."""
    found = blocks(README)
    for (language, code), (next_language, output) in itertools.pairwise(found):
        if language == "python":
            assert next_language == "text", "a Python example is followed by its output"
            yield pytest.param(code, output, id=re.search(r"from (\w+)", code)[1])


def shell_lines():
    """Return the commands of the shell blocks, without comments."""
    lines = [
        line for language, text in blocks(README) if language == "sh" for line in text.split("\n")
    ]
    return [line.split("  #")[0].strip() for line in lines if line.strip()]


def extras_and_scripts():
    """Read the names of extras and entry points from pyproject.toml; Python 3.10 has no tomllib."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    sections = dict(
        re.findall(r"^\[([\w.-]+)\][^\n]*\n(.*?)(?=^\[|\Z)", text, re.MULTILINE | re.DOTALL)
    )
    names = re.compile(r"^(\w+) = ", re.MULTILINE)
    return (
        set(names.findall(sections["project.optional-dependencies"])),
        set(names.findall(sections["project.scripts"])),
    )


@pytest.mark.parametrize(("code", "output"), list(python_examples()))
def test_readme_example_prints_what_it_shows(code, output, tmp_path, request):
    env = None
    if "demo_folder" in code:
        pytest.importorskip("mindspore", reason="needs MindSpore")
        env, _ = request.getfixturevalue("first_answer")
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env=env,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == output


@pytest.mark.mindspore
def test_mindspore_page_prints_what_it_shows(tmp_path):
    """Its Python blocks are one program; a graph is compiled from a file alone."""
    pytest.importorskip("mindspore", reason="needs MindSpore")
    page = blocks(ROOT / "docs/mindspore.md")
    program = tmp_path / "program.py"
    program.write_text("".join(text for language, text in page if language == "python"))
    result = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "".join(text for language, text in page if language == "text")


def test_readme_headline_lines_each_work_alone():
    headlines = [line for line in shell_lines() if line.startswith("python3 -m venv")]
    assert len(headlines) == 2
    extras, scripts = extras_and_scripts()
    for line in headlines:
        steps = [shlex.split(step) for step in line.split("&&")]
        assert steps[:2] == [["python3", "-m", "venv", ".venv"], [".", ".venv/bin/activate"]]
        assert steps[2][:2] == ["pip", "install"]
        assert re.fullmatch(r"\.\[(\w+)\]", steps[2][2])[1] in extras
        assert steps[3][0] in scripts | {"pytest"}
    assert headlines[1].endswith("&& pytest")  # what .ci/run looks for


def test_readme_commands_and_flags_exist(tmp_path):
    calls = [
        shlex.split(step)
        for line in shell_lines()
        for step in line.split("&&")
        if step.split()[0] == "glm2"
    ]
    assert {call[1] for call in calls} == {
        "bench",
        "chat",
        "convert",
        "doctor",
        "generate",
        "report",
    }
    for command, *name in (
        ("bench",),
        ("chat",),
        ("convert",),
        ("doctor",),
        ("generate",),
        ("report", "hbm"),
    ):
        result = subprocess.run(
            [sys.executable, "-m", "glm2", command, *name, "--help"],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,  # the installed package, not the checkout
            check=True,
        )
        flags = {word for call in calls if call[1] == command for word in call if word[0] == "-"}
        assert flags <= set(re.findall(r"(?<![\w-])--?\w[\w-]*", result.stdout))


def test_readme_files_exist():
    scripts = [word for line in shell_lines() for word in line.split() if word.endswith(".py")]
    assert scripts
    for script in scripts:
        assert (ROOT / script).is_file(), script


@pytest.mark.parametrize("readme", [README, README_ZH], ids=lambda path: path.name)
def test_readme_tree_lists_what_exists(readme):
    (tree,) = [text for _, text in blocks(readme) if text.startswith("reference/")]
    rows = [line.split(maxsplit=1) for line in tree.splitlines()]
    for path, description in rows:
        assert description
        assert (ROOT / path).is_dir(), path
    top = {path.split("/")[0] for path, _ in rows}
    assert top >= {"reference", "ascend_ops", "bindings", "glm2", "tests", "benchmarks", "docs"}


def test_readme_zh_has_the_same_blocks():
    def comparable(path):
        return [block for block in blocks(path) if not block[1].startswith("reference/")]

    assert comparable(README_ZH) == comparable(README)


def test_readme_options_are_read_somewhere():
    options = OPTION.findall(README.read_text(encoding="utf-8"))
    assert sorted(options) == sorted(OPTION.findall(README_ZH.read_text(encoding="utf-8")))
    sources = [ROOT / "CMakeLists.txt", ROOT / "pyproject.toml"]
    for folder in ("glm2", "bindings", "ascend_ops"):
        sources += [p for p in (ROOT / folder).rglob("*") if p.suffix in {".py", ".cpp", ".h"}]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    for option in options:
        assert option in code, option
    read = re.findall(r'(?:environ\.get\(|environ\[|getenv\()"(GLM2_\w+)"', code)
    assert set(read) <= set(options)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_page_links_resolve(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            path, _, _ = target.partition("#")
            assert not path or (page.parent / path).exists(), f"{target} in {page.name}"


def test_no_document_has_an_unfilled_place():
    for path in [ROOT / "README.md", ROOT / "README_zh.md", *(ROOT / "docs").glob("*.md")]:
        assert "<!--" not in path.read_text(encoding="utf-8"), path


def test_tests_that_documents_name_exist():
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", "".join(p.read_text() for p in PAGES))
    assert named
    for file_name, function in named:
        found = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file_name)]
        assert any(not function or f"def {function}(" in text for text in found), function
