"""Kernels use the part of C++ that device compilers take: a lint over op_kernel/."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "ascend_ops"
KERNEL_FILES = sorted(path for path in ROOT.glob("*/op_kernel/*") if path.suffix in {".h", ".cpp"})

BANNED = {
    "std::": r"\bstd\s*::",
    "new, delete, malloc or free": r"\b(new|delete|malloc|calloc|realloc|free)\b",
    "virtual": r"\b(virtual|override|dynamic_cast|typeid)\b",
    "thread_local": r"\bthread_local\b",
    "a static variable": r"\bstatic\b(?!\s+constexpr\b)(?!_)(?![^;{=]*\()",
    "double": r"\b(double|float64)\b|\blong\s+double\b",
    "an exception": r"\b(try|catch|throw|noexcept)\b",
    "iostream": r"#\s*include\s*<(iostream|cstdio|string|vector)>|\b(cout|cerr|printf|fprintf)\b",
    "a lambda": r"\[[&=]?[\w\s,&=]*\]\s*(\([^()]*\))?\s*(mutable\s*)?(->\s*[\w:]+\s*)?\{",
    "a double literal": r"(?<![\w.])(\d+\.\d*|\.\d+)([eE][+-]?\d+)?(?![\w.])",
    "a string literal": r'"',
}
# A function's head: return type, name, parameters, then its body.
FUNCTION = re.compile(
    r"(?P<head>(?:^|(?<=[;{}>:\n]))[ \t]*(?:[\w:<>,*&\s\"]+?[\s*&]))"
    r"(?P<name>~?\w+)\s*\((?P<params>[^(){};]*)\)\s*(?:const\s*)?\{",
    re.MULTILINE,
)
NOT_FUNCTIONS = {"if", "for", "while", "switch", "return", "constexpr", "ASCEND_IS_AIC"}


def without_comments(source):
    source = re.sub(r"//[^\n]*", "", source)
    return re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)


def code_of(source):
    """Return ``source`` without comments, its own includes and the C linkage of entries."""
    source = re.sub(r'#\s*include\s*"[^"\n]*"', "", without_comments(source))
    return source.replace('extern "C"', "")


def functions_without_aicore(source):
    """Return the names of the functions that are defined without ``__aicore__``."""
    bad = []
    for match in FUNCTION.finditer(code_of(source)):
        head, name = match["head"], match["name"]
        if name in NOT_FUNCTIONS or re.search(r"\b(else|return|case)\b", head):
            continue
        if "__aicore__" not in head:
            bad.append(name)
    return bad


def banned_constructs(source):
    code = code_of(source)
    return {name for name, pattern in BANNED.items() if re.search(pattern, code)}


@pytest.mark.parametrize("path", KERNEL_FILES, ids=lambda path: path.name)
def test_kernels_use_no_banned_construct(path):
    assert not banned_constructs(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", KERNEL_FILES, ids=lambda path: path.name)
def test_every_kernel_function_is_marked_aicore(path):
    assert not functions_without_aicore(path.read_text(encoding="utf-8"))


def test_kernels_were_found():
    names = {path.name for path in KERNEL_FILES}
    assert {"flash_attention.cpp", "rope_append_kernel.h", "tile_math.h"} <= names


def test_the_lint_sees_the_functions_it_judges():
    source = (ROOT / "common/op_kernel/tile_math.h").read_text(encoding="utf-8")
    found = {match["name"] for match in FUNCTION.finditer(code_of(source))}
    assert {"CeilDiv", "AlignUp", "MinOf", "MaxOf", "ReduceRepeatMax"} <= found
    source = (ROOT / "rope_append/op_kernel/rope_append_kernel.h").read_text(encoding="utf-8")
    found = {match["name"] for match in FUNCTION.finditer(code_of(source))}
    assert {"Init", "Process", "Take", "Rotate", "CopyIn", "CopyOutQ", "CopyOutCache"} <= found


@pytest.mark.parametrize(
    ("source", "construct"),
    [
        ("int x = std::min(1, 2);", "std::"),
        ("int* x = new int[4];", "new, delete, malloc or free"),
        ("void* x = malloc(4);", "new, delete, malloc or free"),
        ("struct A { virtual void F() = 0; };", "virtual"),
        ("thread_local int x;", "thread_local"),
        ("static int count = 0;", "a static variable"),
        ("static int counts[4];", "a static variable"),
        ("double x = y;", "double"),
        ("try { F(); } catch (...) {}", "an exception"),
        ("void F() noexcept;", "an exception"),
        ("#include <iostream>", "iostream"),
        ("printf(x);", "iostream"),
        ("auto f = [&](int x) { return x; };", "a lambda"),
        ("auto f = [] { return 1; };", "a lambda"),
        ("float x = 1.5;", "a double literal"),
        ("float x = 1e-3 + 2.0;", "a double literal"),
        ('const char* x = "text";', "a string literal"),
    ],
)
def test_a_banned_construct_is_caught(source, construct):
    assert construct in banned_constructs(source)


@pytest.mark.parametrize(
    "source",
    [
        "// std::min would be a double, new or virtual: a comment may say so",
        "static constexpr uint32_t kC0 = 16;",
        "params.isNew = renewed; float x = 1.0f + 3.0e38f;",
        "static_cast<float>(x[i]);",
        "kL1_[buffer][row * kC0] = x[0];",
        '#include "kernel_operator.h"\nextern "C" __global__ __aicore__ void F(GM_ADDR x) {}',
    ],
)
def test_what_kernels_need_is_allowed(source):
    assert not banned_constructs(source)


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("inline int F(int x) { return x; }", ["F"]),
        ("__aicore__ inline int F(int x) { return x; }", []),
        ("class A {\n  public:\n    void Init(int x) {\n    }\n};", ["Init"]),
        ("class A {\n  public:\n    __aicore__ inline void Init(int x) const {\n    }\n};", []),
        ("template <typename T>\nT MinOf(T a, T b) {\n    return a;\n}", ["MinOf"]),
        ("template <typename T>\n__aicore__ inline T MinOf(T a, T b) {\n    return a;\n}", []),
        ("__aicore__ inline void F() {\n    if (x) {\n    } else if (y) {\n    }\n}", []),
        ("__aicore__ inline void F() {\n    while (Next()) {\n    }\n}", []),
    ],
)
def test_a_function_without_aicore_is_caught(source, bad):
    assert functions_without_aicore(source) == bad
