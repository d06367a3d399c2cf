"""The NPU build: what it says without CANN, and what it hands to CANN's functions where they are.

The toolkit in these tests is a folder of our own whose functions write down how they are called.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPERATORS = sorted(path.parent.name for path in ROOT.glob("ascend_ops/*/op_kernel"))
OPERATORS.remove("common")
USUAL_PLACES = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest")


def cmake_is_new_enough():
    """Whether there is a CMake that knows the presets' version, 3.24 or later."""
    if shutil.which("cmake") is None:
        return False
    text = subprocess.run(["cmake", "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(map(int, re.findall(r"\d+", text)[:2])) >= (3, 24)


pytestmark = [
    pytest.mark.skipif(not cmake_is_new_enough(), reason="needs CMake 3.24"),
    pytest.mark.skipif(
        any(Path(place).exists() for place in USUAL_PLACES), reason="CANN is installed here"
    ),
]

# Each function appends its name and arguments to calls.txt, one call a line.
TOOLKIT = """
foreach(name npu_op_package npu_op_code_gen npu_op_kernel_options npu_op_kernel_sources
    npu_op_kernel_library npu_op_package_add)
  cmake_language(EVAL CODE "
    function(${name})
      string(JOIN | line ${name} \\${ARGN})
      file(APPEND \\${CMAKE_BINARY_DIR}/calls.txt \\"\\${line}\\n\\")
    endfunction()")
endforeach()
function(npu_op_library name type)
  string(JOIN | line npu_op_library ${name} ${type} ${ARGN})
  file(APPEND ${CMAKE_BINARY_DIR}/calls.txt "${line}\\n")
  add_library(${name} INTERFACE)
endfunction()
function(target_include_directories)
endfunction()
set(ASCEND_AUTOGEN_PATH ${CMAKE_BINARY_DIR}/autogen)
"""


def configure(build, home, *options, **environment):
    """Configure preset npu; return the exit code and what it printed, lines joined."""
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    done = subprocess.run(
        ["cmake", "--preset", "npu", "-B", str(build), *options],
        cwd=ROOT,
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def test_without_cann_the_preset_says_where_it_looked_and_what_to_do(tmp_path):
    code, text = configure(tmp_path / "build", tmp_path, ASCEND_HOME_PATH=str(tmp_path / "gone"))
    assert code != 0
    assert "CANN was not found" in text
    assert f"environment ASCEND_HOME_PATH: {tmp_path}/gone: no such folder" in text
    assert "environment ASCEND_TOOLKIT_HOME: not set" in text
    assert f"usual place: {tmp_path}/Ascend/cann: no such folder" in text
    assert all(place in text for place in USUAL_PLACES)
    assert "source its set_env.sh" in text
    assert "preset dev" in text


def test_an_older_cann_is_told_from_none(tmp_path):
    home = tmp_path / "cann"
    home.mkdir()
    code, text = configure(tmp_path / "build", tmp_path, ASCEND_TOOLKIT_HOME=str(home))
    assert code != 0
    assert f"CANN was found in {home}" in text
    assert "came with CANN 9" in text
    assert "cmake/flat_sources.cmake" in text


@pytest.fixture
def calls(tmp_path):
    """Return what the build hands to a toolkit: [name, argument, ...] a call."""
    if shutil.which("make") is None:
        pytest.skip("needs make, which CANN's functions call")
    home = tmp_path / "cann"
    modules = home / "compiler/tikcpp/ascendc_kernel_cmake"
    modules.mkdir(parents=True)
    (modules / "asc-config.cmake").write_text(TOOLKIT)
    build = tmp_path / "build"
    code, text = configure(build, tmp_path, ASCEND_HOME_PATH=str(home))
    assert code == 0, text
    assert f"CANN: {home}" in text
    return [line.split("|") for line in (build / "calls.txt").read_text().splitlines()]


def operator_type(operator):
    return "Glm2" + "".join(word.capitalize() for word in operator.split("_"))


def test_with_cann_every_operator_goes_into_the_package(calls):
    names = [name for name, *_ in calls]
    assert names[:2] == ["npu_op_package", "npu_op_code_gen"]
    sources = [arguments for name, *arguments in calls if name == "npu_op_kernel_sources"]
    expected = [
        [
            *("ascendc_kernels", "OP_TYPE", operator_type(operator)),
            *("KERNEL_DIR", f"{operator}/op_kernel", "KERNEL_FILE", f"{operator}.cpp"),
        ]
        for operator in OPERATORS
    ]
    assert sorted(sources) == expected
    assert all((ROOT / "ascend_ops" / row[4] / row[6]).is_file() for row in sources)
    added = calls[-1]
    assert added[:3] == ["npu_op_package_add", "glm2", "LIBRARY"]
    libraries = {arguments[0] for name, *arguments in calls if name == "npu_op_library"}
    assert set(added[3:]) == libraries | {"ascendc_kernels"}


def test_definitions_and_tilings_are_compiled_into_the_host_libraries(calls):
    hosts = {
        str(ROOT / f"ascend_ops/{operator}/op_host/{operator}_{part}.cpp")
        for operator in OPERATORS
        for part in ("def", "tiling")
    }
    assert all(Path(host).is_file() for host in hosts)
    by_library = {row[1]: set(row[3:]) for row in calls if row[0] == "npu_op_library"}
    assert by_library["cust_optiling"] == by_library["cust_op_proto"] == hosts
    generation = next(row for row in calls if row[0] == "npu_op_code_gen")
    assert hosts <= set(generation)
    assert {f"-I{ROOT}/ascend_ops", f"-I{ROOT}/ascend_ops/include"} <= set(generation)


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    out = tmp_path_factory.mktemp("flat") / "sources"
    flatten(out)
    return out


def flatten(out, *options):
    script = str(ROOT / "cmake/flat_sources.cmake")
    command = ["cmake", f"-DOUT={out}", *options, "-P", script]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_flat_sources_differ_in_their_includes_alone(flat):
    originals = {
        path.name: path
        for path in (ROOT / "ascend_ops").rglob("*")
        if path.suffix in {".h", ".cpp"} and "twin" not in path.parts
    }
    copies = [*flat.glob("op_host/*"), *flat.glob("op_kernel/*")]
    assert {path.name for path in flat.glob("op_kernel/*.cpp")} == {
        f"glm2_{operator}.cpp" for operator in OPERATORS
    }
    for copy in copies:
        original = originals[copy.name.removeprefix("glm2_")].read_text(encoding="utf-8")
        text = copy.read_text(encoding="utf-8")
        own = re.findall(r'#include "((?:ascend_ops|\w+/op_host|\w+/op_kernel)/\w+\.h)"', original)
        for include in own:
            original = original.replace(f'"{include}"', f'"{Path(include).name}"')
            assert (copy.parent / Path(include).name).is_file(), f"{copy.name}: {include}"
        assert text == original


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_flat_sources_compile(flat):
    """As C++11 on the host, which is what projects of msopgen ask for; kernels on the twin."""
    twin = f"-I{ROOT}/ascend_ops/twin/include"
    compiled = [(path, ["-std=c++11"]) for path in flat.glob("op_host/*_tiling.cpp")]
    compiled += [(path, ["-std=c++17", twin]) for path in flat.glob("op_kernel/*.cpp")]
    assert len(compiled) == 2 * len(OPERATORS)
    for path, options in compiled:
        command = ["g++", "-fsyntax-only", *options, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_flat_sources_for_cann_8_name_its_reductions(tmp_path):
    assert flatten(tmp_path / "old", "-DCANN_8=ON").returncode == 0
    text = (tmp_path / "old/op_kernel/tile_math.h").read_text(encoding="utf-8")
    assert "#define ASCEND_OPS_CANN_8 1\n" in text


def test_flat_sources_need_a_new_folder(tmp_path):
    done = flatten(tmp_path)
    assert done.returncode != 0
    assert "exists; delete it" in " ".join(done.stderr.split())
    script = str(ROOT / "cmake/flat_sources.cmake")
    done = subprocess.run(["cmake", "-P", script], capture_output=True, text=True, check=False)
    assert "name the folder to write" in done.stderr
