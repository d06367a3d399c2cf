"""STYLE's table of who may import whom, read from every source file."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# ---- Python -------------------------------------------------------------------------------------

PACKAGES = {
    "glm2_reference": ROOT / "reference/glm2_reference",
    "glm2_ops": ROOT / "bindings/glm2_ops",
    "glm2": ROOT / "glm2",
}
OURS = set(PACKAGES)
# Third-party packages by the package that may import them, besides the standard library.
THIRD_PARTY = {
    "glm2_reference": {"numpy"},
    "glm2_ops": {"numpy"},
    "glm2": {
        "mindspore", "numpy", "ml_dtypes", "sentencepiece", "safetensors", "typer", "click", "rich",
        "gguf", "tokenizers", "huggingface_hub",
    },
}  # fmt: skip
# The text side and every module that `glm2 --help` needs run without MindSpore.
MINDSPORE_FREE = {
    *("glm2.config", "glm2.prompt", "glm2.tokenizer", "glm2.cli", "glm2.demo", "glm2.hub"),
    *("glm2.chat_tokenizer", "glm2.text_tokenizer", "glm2.pieces", "glm2.response"),
    *("glm2.checkpoint_files", "glm2.torch_file", "glm2.torch_pickle", "glm2.weights"),
    *("glm2.convert", "glm2.packed_cache", "glm2.memory_needs", "glm2.synthetic_checkpoint"),
    *("glm2.batch", "glm2.beam_search", "glm2.generate", "glm2.sampling", "glm2.streaming"),
}
WHOLE_REFERENCE = {"glm2.commands.report", "glm2.commands.doctor"}


def imported_modules(source, module):
    """Return what ``source`` imports, anywhere in it: "a" for import a, "a.b" for from a import b."""
    names = set()
    package = module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def is_in(name, package):
    return name == package or name.startswith(f"{package}.")


def forbidden_imports(source, module):
    """Return what ``module`` imports against the rules."""
    package = module.partition(".")[0]
    names = imported_modules(source, module)
    tops = {name.partition(".")[0] for name in names}
    bad = tops - sys.stdlib_module_names - OURS - THIRD_PARTY[package]
    if is_in(module, "glm2_ops.mindspore"):
        bad.discard("mindspore")
    if module in MINDSPORE_FREE:
        bad |= tops & {"mindspore"}
    bad |= {name for name in names if not may_import_ours(module, name)}
    return bad


def may_import_ours(module, name):
    package = module.partition(".")[0]
    target = name.partition(".")[0]
    if target not in OURS or target == package:
        return True
    if package in {"glm2_reference", "glm2_ops"}:
        return False
    return target == "glm2_ops" or module in WHOLE_REFERENCE or is_in(name, "glm2_reference.config")


def python_files():
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join([package, *(part for part in parts if part != "__init__")])
            yield path, name if path.name != "__init__.py" else f"{name}.__init__"


PYTHON_FILES = list(python_files())


@pytest.mark.parametrize(("path", "module"), PYTHON_FILES, ids=[name for _, name in PYTHON_FILES])
def test_python_imports_follow_the_table(path, module):
    source = path.read_text(encoding="utf-8")
    assert not forbidden_imports(source, module)


def test_every_package_was_found():
    assert {name.partition(".")[0] for _, name in PYTHON_FILES} == OURS
    assert "glm2.commands.chat" in {name for _, name in PYTHON_FILES}


@pytest.mark.parametrize(
    ("module", "source", "bad"),
    [
        ("glm2_reference.rope", "import mindspore", "mindspore"),
        ("glm2_reference.rope", "def f():\n    import scipy.linalg", "scipy"),
        ("glm2_reference.rope", "from glm2.config import x", "glm2.config.x"),
        ("glm2_reference.rope", "import glm2_ops", "glm2_ops"),
        ("glm2_ops.attention", "import mindspore as ms", "mindspore"),
        (
            "glm2_ops.attention",
            "from glm2_reference import rope_table",
            "glm2_reference.rope_table",
        ),
        ("glm2_ops.mindspore", "import glm2.model", "glm2.model"),
        ("glm2.model", "from glm2_reference import swiglu", "glm2_reference.swiglu"),
        ("glm2.model", "import glm2_reference", "glm2_reference"),
        ("glm2.model", "from glm2_reference import layers", "glm2_reference.layers"),
        ("glm2.model", "import torch", "torch"),
        ("glm2.tokenizer", "import mindspore", "mindspore"),
        ("glm2.commands.chat", "import glm2_reference.model", "glm2_reference.model"),
    ],
)
def test_a_python_violation_is_caught(module, source, bad):
    assert bad in forbidden_imports(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("glm2_reference.rope", "import numpy.typing as npt\nimport math"),
        ("glm2_ops.mindspore", "import mindspore\nfrom glm2_ops import checks"),
        ("glm2.model", "import mindspore, glm2_ops.mindspore"),
        ("glm2.model", "from glm2_reference.config import GLM2Config"),
        ("glm2.commands.doctor", "from glm2_reference.testing import assert_accurate"),
    ],
)
def test_what_the_table_allows_is_allowed(module, source):
    assert not forbidden_imports(source, module)


def test_relative_imports_are_resolved():
    assert imported_modules("from . import model", "glm2.chat") == {"glm2.model"}
    assert imported_modules("from ..model import x", "glm2.commands.chat") == {"glm2.model.x"}


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["glm2", "glm2.cli", "glm2.tokenizer", "glm2_ops"])
def test_importing_it_does_not_import_mindspore(module):
    if module == "glm2.cli":
        pytest.importorskip("typer")
    if module == "glm2.tokenizer":
        pytest.importorskip("sentencepiece")
    code = f"import sys, {module}; sys.exit('mindspore' in sys.modules)"
    run_python(code)


def test_the_reference_loads_numpy_and_the_standard_library_alone():
    code = "import sys, glm2_reference, glm2_reference.testing; print(*sys.modules)"
    bare = "import sys, numpy; print(*sys.modules)"
    loaded = {name.partition(".")[0] for name in run_python(code).split()}
    before = {name.partition(".")[0] for name in run_python(bare).split()}
    assert loaded - before - sys.stdlib_module_names == {"glm2_reference"}


# ---- C++ ----------------------------------------------------------------------------------------

CPP_SUFFIXES = {".h", ".cpp"}
CANN_HEADERS = r"register/op_def_registry\.h|tiling/platform/platform_ascendc\.h"
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)


def includes(source):
    """Return the includes of ``source``: (quoted, angled)."""
    pairs = INCLUDE.findall(source)
    return {quoted for quoted, _ in pairs if quoted}, {angled for _, angled in pairs if angled}


def allowed_quotes(path):
    """Return a pattern of the headers that ``path``, relative to the root, may include."""
    parts = path.parts
    if parts[0] == "bindings":
        return r"ascend_ops/\w+\.h|(aot_)?common\.h"
    if parts[1] == "include":
        return r"ascend_ops/\w+\.h"
    if parts[1] == "twin":
        if parts[2] == "run":  # joins the public header with the launch of each mode
            return r"ascend_twin/run\.h|launch\.h|gm_table\.h|session\.h"
        if path.name == "run.h":  # the host's side, after the kernel's
            return r"kernel_operator\.h"
        own = r"|".join(twin_headers(path))
        if parts[2] == "check":  # it ends in the fast twin's calls, and shares its fibers
            own = rf"{own}|ascend_twin_check/\w+\.h|fiber\.h|(\.\./fast/)?launch\.h"
            return rf"ascend_twin/\w+\.h|{own}"
        return rf"ascend_twin/\w+\.h|{own}" if parts[2] == "fast" else r"ascend_twin/\w+\.h"
    if parts[1] == "launch":  # the one place that joins host and twin
        twin = r"ascend_twin/\w+\.h|launch\.h|simd\.h|thread_pool\.h"
        check = r"twin_mode\.h|gm_table\.h|session\.h"
        return rf"ascend_ops/\w+\.h|\w+/op_host/\w+_tiling\.h|workspace\.h|{twin}|{check}"
    if parts[1] == "common" and parts[2] == "op_kernel":
        return r"kernel_operator\.h|common/op_kernel/\w+\.h"
    operator = re.escape(parts[1])
    if parts[2] == "op_kernel":
        if path.name.endswith("_tiling_data.h"):
            return r"(?!)"
        return rf"kernel_operator\.h|common/op_kernel/\w+\.h|{operator}/op_kernel/\w+\.h"
    host = r"ascend_ops/\w+\.h|common/op_host/tiling_math\.h"
    if parts[1] != "common":
        host += rf"|{operator}/op_host/\w+\.h|{operator}/op_kernel/\w+_tiling_data\.h"
    if path.name.endswith("_def.cpp"):  # these and what they share are for CANN alone
        host += r"|common/op_host/op_def_support\.h"
    return f"{host}|{CANN_HEADERS}" if path.name == "op_def_support.h" else host


def twin_headers(path):
    return [re.escape(header.name) for header in (ROOT / path.parent).glob("*.h")]


def forbidden_includes(source, path):
    """Return what the C++ file ``path``, relative to the root, includes against the rules."""
    quoted, angled = includes(source)
    pattern = allowed_quotes(path)
    bad = {name for name in quoted if not re.fullmatch(pattern, name)}
    for name in angled:
        top = name.partition("/")[0]
        if "op_kernel" in path.parts:
            allowed = name == "cstdint"  # the one header of the library that tiling data needs
        elif path.parts[0] == "bindings":
            allowed = "/" not in name or top == "pybind11"
        else:
            allowed = top not in {"pybind11", "mindspore", "ascend_ops"} and name != "Python.h"
        if not allowed:
            bad.add(name)
    return bad


def cpp_files():
    for folder in ("ascend_ops", "bindings"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in CPP_SUFFIXES:
                yield path.relative_to(ROOT)


CPP_FILES = list(cpp_files())


@pytest.mark.parametrize("path", CPP_FILES, ids=str)
def test_cpp_includes_follow_the_table(path):
    assert not forbidden_includes((ROOT / path).read_text(encoding="utf-8"), path)


@pytest.mark.parametrize("path", [path for path in CPP_FILES if path.suffix == ".h"], ids=str)
def test_include_guards_are_named_after_the_file(path):
    source = (ROOT / path).read_text(encoding="utf-8")
    guard = re.search(r"^#ifndef (\w+_H_)\n#define \1\n", source, re.MULTILINE)
    assert guard, "no include guard"
    assert guard[1].endswith(path.name.upper().replace(".", "_") + "_")


@pytest.mark.parametrize(
    ("path", "include", "caught"),
    [
        ("ascend_ops/flash_attention/op_kernel/x.h", '"kernel_operator.h"', False),
        ("ascend_ops/flash_attention/op_kernel/x.h", '"common/op_kernel/tile_math.h"', False),
        (
            "ascend_ops/flash_attention/op_kernel/x.h",
            '"flash_attention/op_kernel/flash_attention_tiling_data.h"',
            False,
        ),
        (
            "ascend_ops/flash_attention/op_kernel/x.h",
            '"rope_append/op_kernel/rope_append_kernel.h"',
            True,
        ),
        ("ascend_ops/flash_attention/op_kernel/x.h", '"ascend_ops/status.h"', True),
        ("ascend_ops/flash_attention/op_kernel/x.h", '"ascend_twin/core.h"', True),
        ("ascend_ops/flash_attention/op_kernel/x.h", "<vector>", True),
        (
            "ascend_ops/flash_attention/op_kernel/x_tiling_data.h",
            '"kernel_operator.h"',
            True,
        ),
        ("ascend_ops/flash_attention/op_host/x.cpp", '"ascend_ops/types.h"', False),
        (
            "ascend_ops/flash_attention/op_host/x.cpp",
            '"flash_attention/op_kernel/flash_attention_tiling_data.h"',
            False,
        ),
        (
            "ascend_ops/flash_attention/op_host/x.cpp",
            '"flash_attention/op_kernel/flash_attention_kernel.h"',
            True,
        ),
        ("ascend_ops/flash_attention/op_host/x.cpp", '"launch.h"', True),
        ("ascend_ops/flash_attention/op_host/x.cpp", '"kernel_operator.h"', True),
        ("ascend_ops/flash_attention/op_host/x.cpp", '"common/op_host/tiling_math.h"', False),
        ("ascend_ops/flash_attention/op_host/x.cpp", '"common/op_host/op_def_support.h"', True),
        (
            "ascend_ops/flash_attention/op_host/x_def.cpp",
            '"common/op_host/op_def_support.h"',
            False,
        ),
        ("ascend_ops/flash_attention/op_host/x_def.cpp", '"launch.h"', True),
        ("ascend_ops/common/op_host/op_def_support.h", '"register/op_def_registry.h"', False),
        ("ascend_ops/common/op_host/op_def_support.h", '"common/op_kernel/tile_math.h"', True),
        ("ascend_ops/common/op_host/tiling_math.h", '"register/op_def_registry.h"', True),
        ("ascend_ops/include/ascend_ops/x.h", '"launch.h"', True),
        ("ascend_ops/include/ascend_ops/x.h", "<pybind11/pybind11.h>", True),
        ("ascend_ops/launch/x.cpp", '"launch.h"', False),
        ("ascend_ops/launch/x.cpp", '"ascend_twin/core.h"', False),
        ("ascend_ops/launch/x.cpp", '"flash_attention/op_kernel/flash_attention_kernel.h"', True),
        ("ascend_ops/twin/include/ascend_twin/x.h", '"ascend_ops/types.h"', True),
        ("ascend_ops/twin/include/ascend_twin/x.h", '"launch.h"', True),
        ("ascend_ops/twin/fast/x.cpp", '"ascend_twin/cube.h"', False),
        ("bindings/x.cpp", '"ascend_ops/flash_attention.h"', False),
        ("bindings/x.cpp", "<pybind11/numpy.h>", False),
        ("bindings/x.cpp", '"flash_attention/op_kernel/flash_attention_kernel.h"', True),
        ("bindings/x.cpp", '"thread_pool.h"', True),
    ],
)
def test_a_cpp_violation_is_caught(path, include, caught):
    bad = forbidden_includes(f"#include <cstdint>\n#  include {include}\n", Path(path))
    assert bool(bad) is caught
