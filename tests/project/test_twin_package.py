"""The twin alone: it builds and installs by itself, kernels outside of the tree compile against it, and
the ten examples say what their page shows."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/twin"
RIGHT = ("vector_add", "matmul", "matmul_relu", "row_sum", "ragged_cast")
RULES = {  # of the five that are wrong, what must be found
    "missing_wait": {"race", "flag_left_set", "order_dependent"},
    "early_reuse": {"race", "order_dependent"},
    "overflowing_tile": {"capacity"},
    "misaligned_copy": {"alignment"},
    "empty_tail": {"hang"},
}


def cmake_is_new_enough():
    if shutil.which("cmake") is None or shutil.which("ninja") is None:
        return False
    text = subprocess.run(["cmake", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", text)[:2])) >= (3, 24)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not cmake_is_new_enough(), reason="needs CMake 3.24 and Ninja"),
]


def cmake(*arguments):
    done = subprocess.run(
        ["cmake", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """Install the twin, and build a copy of the examples that lies outside of the tree."""
    folder = tmp_path_factory.mktemp("twin")
    built, prefix = folder / "twin", folder / "prefix"
    shutil.copytree(EXAMPLES, folder / "examples")
    debug = ("-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug")  # the quickest to compile
    cmake("-S", ROOT / "ascend_ops/twin", "-B", built, *debug, "-DGLM2_WERROR=ON")
    cmake("--build", built)
    cmake("--install", built, "--prefix", prefix)
    shutil.rmtree(built)  # an installed package does without
    build = folder / "build"
    cmake("-S", folder / "examples", "-B", build, *debug, f"-DCMAKE_PREFIX_PATH={prefix}")
    cmake("--build", build)
    return build


def run(programs, name):
    return subprocess.run(
        [programs / name], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("mode", ["", "_fast"])
@pytest.mark.parametrize("name", RIGHT)
def test_right_kernels_give_right_numbers(programs, name, mode):
    done = run(programs, name + mode)
    assert done.returncode == 0, done.stdout + done.stderr
    right, wanted = re.match(r"(\d+) of (\d+) numbers are right\nno errors\n", done.stdout).groups()
    assert right == wanted


@pytest.mark.parametrize("name", RULES)
def test_wrong_kernels_are_found_out(programs, name):
    done = run(programs, name)
    assert done.returncode == 1, done.stdout + done.stderr
    assert set(re.findall(r"error \[(\w+)\]", done.stdout)) >= RULES[name]
    assert f"{name}.cpp:" in done.stdout


def test_the_page_shows_what_the_programs_say(programs):
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^```text\n\$ (\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL))
    assert shown.keys() == {"vector_add", *RULES}
    for name, text in shown.items():
        assert text == run(programs, name).stdout


def test_the_page_and_the_build_name_every_example():
    files = {path.stem for path in EXAMPLES.glob("*.cpp")}
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert files == {*RIGHT, *RULES}
    assert all(f"[`{name}.cpp`]({name}.cpp)" in page for name in files)
